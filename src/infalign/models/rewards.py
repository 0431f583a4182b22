"""A reward from its specification: a classifier, a Python function, a server, or a bundled one."""

from collections.abc import Sequence

import numpy as np

from infalign.shaping import checked_output, reward_name
from infalign.text import completion_of, conversation_of

from .functions import python_function
from .interfaces import Conversation, Scorer
from .python_reward import PythonReward
from .specs import ModelSpec

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


def load_reward(spec: str, *, trust_remote_code: bool = False) -> Scorer:
    """The TRL reward function that `spec` names.

    - `python:package.module:function` or `path/to/file.py:function`: called with `prompts`,
      `completions` and keyword columns, as far as it takes them.
    - `http://host:8000/path`, or https: a server, as `ServerReward`.
    - `bundled:helpful`, `bundled:harmless`: the demonstration reward models.
    - anything else: folder or hub id of a sequence classifier with one output.

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

    return ClassifierReward(named.path("reward"), trust_remote_code=trust_remote_code)


def score(
    reward: Scorer,
    conversations: Sequence[Conversation],
    texts: Sequence[Sequence[str]],
    prompt_ids: Sequence[str],
) -> np.ndarray:
    """Checked raw rewards of each prompt's responses, shape (prompts, responses)."""
    return np.array(score_ragged(reward, conversations, texts, prompt_ids))


def score_ragged(
    reward: Scorer,
    conversations: Sequence[Conversation],
    texts: Sequence[Sequence[str]],
    prompt_ids: Sequence[str],
) -> list[np.ndarray]:
    """Checked raw rewards of each prompt's responses, of which there may be any number, from one
    call of the reward."""
    counts = [len(row) for row in texts]
    flat = [text for row in texts for text in row]
    values = reward(
        prompts=[
            conversation_of(c) for c, n in zip(conversations, counts, strict=True) for _ in range(n)
        ],
        completions=[completion_of(text) for text in flat],
        prompt_id=[i for i, n in zip(prompt_ids, counts, strict=True) for _ in range(n)],
    )
    checked = checked_output(values, flat, reward_name(reward))
    return np.split(checked, np.cumsum(counts)[:-1])
