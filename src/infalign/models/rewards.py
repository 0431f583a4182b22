"""A reward from its specification: a classifier, a Python function, a server, or a bundled one."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from infalign.shaping import call, checked_output, reward_name
from infalign.text import conversation_of, in_form_of

from .functions import python_function
from .interfaces import Conversation, Scorer
from .precision import Dtype
from .python_reward import PythonReward
from .specs import ModelSpec

__all__ = [
    "arguments",
    "load_reward",
    "score",
    "score_ragged",
]

FORMS = (
    ("bundled", "A reward model of the demonstration.", "bundled:NAME", "bundled:helpful"),
    ("file", "A Python function in a file.", "path/to/file.py:FUNCTION", "my_rewards.py:score"),
    ("module", "A Python function in a module.", "python:MODULE:FUNCTION", "python:rewards:score"),
    (
        "classifier",
        "A sequence classifier with one output: a folder or hub id.",
        "PATH",
        "Skywork/Skywork-Reward-V2-Qwen3-0.6B",
    ),
    (
        "server",
        "A reward server, such as `infalign serve-reward`.",
        "http(s)://HOST/PATH",
        "http://localhost:8000/score",
    ),
)
"""Name, meaning, form and example of each specification that `load_reward` reads."""


def load_reward(spec: str, *, dtype: Dtype = "auto", trust_remote_code: bool = False) -> Scorer:
    """The TRL reward function that `spec` names.

    - `python:package.module:function` or `path/to/file.py:function`: called with `prompts`,
      `completions` and keyword columns, as far as it takes them.
    - `http://host:8000/path`, or https: a server, as `ServerReward`.
    - `bundled:helpful`, `bundled:harmless`: the demonstration reward models.
    - anything else: folder or hub id of a sequence classifier with one output.

    - `dtype`: precision of a classifier, as `precision_of` reads it.

    Raises DataError if the reward does not exist, and MissingExtraError if the library for requests
    to a server is missing.
    """
    named = ModelSpec.parse(spec)
    if named.kind == "python":
        return PythonReward(python_function(spec, "reward"))
    if named.kind == "server":
        from .reward_server import ServerReward

        return ServerReward(spec)
    from .classifier import ClassifierReward

    return ClassifierReward(named.path("reward"), dtype=dtype, trust_remote_code=trust_remote_code)


def score(
    reward: Scorer,
    conversations: Sequence[str | Conversation],
    texts: Sequence[Sequence[str]],
    prompt_ids: Sequence[str],
    columns: Sequence[Mapping[str, Any]] | None = None,
) -> np.ndarray:
    """Checked raw rewards of each prompt's responses, shape (prompts, responses).

    Arguments as in `score_ragged`.
    """
    return np.array(score_ragged(reward, conversations, texts, prompt_ids, columns))


def score_ragged(
    reward: Scorer,
    conversations: Sequence[str | Conversation],
    texts: Sequence[Sequence[str]],
    prompt_ids: Sequence[str | None],
    columns: Sequence[Mapping[str, Any]] | None = None,
) -> list[np.ndarray]:
    """Checked raw rewards of each prompt's responses, of which there may be any number, from one
    call of the reward.

    - `conversations`: the prompts, each a text or chat messages; completions get the same form.
    - `prompt_ids`: None for a prompt without an id.
    - `columns`: the other columns of each prompt, which the reward gets by name, None where a
      prompt has no such column.
    """
    flat = [text for row in texts for text in row]
    values = call(reward, arguments(conversations, texts, prompt_ids, columns))
    checked = checked_output(values, flat, reward_name(reward))
    return np.split(checked, np.cumsum([len(row) for row in texts])[:-1])


def arguments(
    conversations: Sequence[str | Conversation],
    texts: Sequence[Sequence[str]],
    prompt_ids: Sequence[str | None],
    columns: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, list]:
    """The keyword arguments of a reward, or of another function of a user, for responses to
    prompts; as in `score_ragged`."""
    counts = [len(row) for row in texts]

    def each(values: Iterable) -> list:
        return [value for value, n in zip(values, counts, strict=True) for _ in range(n)]

    prompts = each(c if isinstance(c, str) else conversation_of(c) for c in conversations)
    flat = [text for row in texts for text in row]
    names = dict.fromkeys(name for own in columns or () for name in own)
    return {
        **{name: each(own.get(name) for own in columns or ()) for name in names},
        "prompts": prompts,
        "completions": [in_form_of(p, text) for p, text in zip(prompts, flat, strict=True)],
        "prompt_id": each(prompt_ids),
    }
