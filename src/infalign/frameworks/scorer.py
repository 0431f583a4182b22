"""Scores of single responses for frameworks other than TRL.

A framework asks about one response at a time (`Asked`); a scorer scores many responses at once
(`Scored`).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NotRequired, Protocol, TypedDict

import numpy as np

from infalign._look import Shown
from infalign.errors import DataError
from infalign.models.reward_server import ServerReward, more_keys
from infalign.models.rewards import score_ragged
from infalign.prompts import Prompt
from infalign.shaping import Shaper
from infalign.shaping.signature import PASSED
from infalign.text import conversation_of, finished

from .prompt_text import PromptNames

__all__ = ["Asked", "RawScorer", "Scored", "Scorer", "ServerScorer", "ShapedScorer", "label_of"]


@dataclass(frozen=True)
class Asked(Shown):
    """One response, and its prompt."""

    key: str | None
    """The prompt's id or text."""

    response: str
    messages: tuple[dict, ...] | None = None
    """The prompt's conversation, if the caller has it."""

    by_text: bool = False
    """Whether `key` is the prompt's text, never its id."""

    columns: Mapping[str, Any] = field(default_factory=dict)
    """What else the reward gets, by name. The columns of a known prompt take precedence."""

    plain: bool = False
    """Whether the prompt is a text, as which the reward then gets prompt and response."""

    @property
    def prompt(self) -> str | list[dict]:
        """The prompt in the form in which the reward gets it."""
        messages = conversation_of(self.messages or ())
        return messages[-1]["content"] if self.plain else messages


def label_of(label: Any) -> tuple[str | None, dict[str, Any]]:
    """The prompt id that a label names, or None, and the columns beside it: a label is an id, or
    JSON, or a mapping, with a `prompt_id` and columns.

    >>> label_of("q7"), label_of('{"prompt_id": "q7", "answer": 4}')
    (('q7', {}), ('q7', {'answer': 4}))
    """
    if isinstance(label, str) and label.lstrip().startswith("{"):
        try:
            label = json.loads(label)
        except ValueError:
            pass  # an id that begins with a brace
    columns: dict[str, Any] = {}
    if isinstance(label, dict):
        columns = {k: v for k, v in label.items() if k not in PASSED}
        label = label.get("prompt_id")
    return (None if label is None or label == "" else str(label)), columns


class Scored(TypedDict):
    """The score of a response; a scorer returns the same keys for every response."""

    score: float
    """The training reward."""

    raw_reward: float
    quantile: NotRequired[float]
    """Quantile under the prompt's reference samples; absent for scorers of raw rewards."""


class Scorer(Protocol):
    """Scores responses in two steps.

    `resolve` is cheap and handles one response, so that an error about an unknown prompt reaches
    the right caller. Calling the scorer scores many resolved responses at once, from any callers.
    """

    def resolve(self, asked: Asked) -> Asked:
        """The same response with its prompt's id and conversation; DataError for an unknown
        prompt."""

    def __call__(self, resolved: Sequence[Asked]) -> list[Scored]:
        """One score per response, in the order given."""


class RawScorer:
    """The unchanged raw reward.

    - `reward`: a TRL reward function; it gets conversations, as in a run.
    - `names`: the prompts, for callers that send no conversations.
    - `strip`: remove white space at both ends of responses, as `sampling.strip` of a run does.
    """

    def __init__(
        self,
        reward: Callable[..., Sequence[float]],
        names: PromptNames | None = None,
        *,
        strip: bool = False,
    ):
        self.reward, self.names, self.strip = reward, names, strip

    def resolve(self, asked: Asked) -> Asked:
        """Like `Scorer.resolve`, but a prompt that comes with its conversation may be unknown."""
        if not asked.messages:
            return _resolved(asked, self.names)
        known = (
            None if self.names is None or asked.by_text else self.names.prompts.get(asked.key or "")
        )
        # A prompt with another conversation than the run's is another prompt.
        same = known is not None and list(known.messages) == conversation_of(asked.messages)
        return _of_prompt(asked, known) if known is not None and same else asked

    def raw(self, resolved: Sequence[Asked]) -> np.ndarray:
        """Checked raw rewards, of the same texts and in the same form as in a run's
        calibration. Responses with other columns are scored in another call: their callers may
        not know of each other, and a column that one lacks keeps the default of its parameter."""
        values = np.empty(len(resolved))
        for places in _of_same_columns(resolved):
            own = [resolved[i] for i in places]
            texts = [finished(a.response, strip=self.strip) for a in own]
            scored = score_ragged(
                self.reward,
                [a.prompt for a in own],
                [[text] for text in texts],
                [a.key for a in own],
                [a.columns for a in own],
            )
            values[places] = np.concatenate(scored)
        return values

    def __call__(self, resolved: Sequence[Asked]) -> list[Scored]:
        """The raw reward of each response, which is also its score."""
        return [{"score": r, "raw_reward": r} for r in self.raw(resolved).tolist()]


class ShapedScorer:
    """The shaped reward, with the raw reward and the quantile behind it."""

    def __init__(self, raw: RawScorer, shaper: Shaper):
        self.raw, self.shaper = raw, shaper

    def resolve(self, asked: Asked) -> Asked:
        """Like `Scorer.resolve`; the prompt must be in the calibration store."""
        if self.raw.names is not None:
            return _resolved(asked, self.raw.names)
        self.shaper.store.positions([_key(asked)])
        return self.raw.resolve(asked)

    def __call__(self, resolved: Sequence[Asked]) -> list[Scored]:
        """Training reward, raw reward and quantile of each response."""
        shaped = self.shaper([_key(a) for a in resolved], self.raw.raw(resolved))
        columns = (column.tolist() for column in (shaped.value, shaped.raw, shaped.quantile))
        return [
            {"score": value, "raw_reward": raw, "quantile": quantile}
            for value, raw, quantile in zip(*columns, strict=True)
        ]


class ServerScorer:
    """The scorer behind `infalign serve-reward`: one reward model for all processes.

    - `url`: the server's address.
    - `options`: `timeout` and `retries`, as in `ServerReward`.

    Raises DataError if the server cannot be reached, rejects a prompt, or is another kind of
    server.
    """

    def __init__(self, url: str, **options: Any):
        self.url, self._server = url, ServerReward(url, **options)

    def resolve(self, asked: Asked) -> Asked:
        """`asked` itself, since the server resolves prompts."""
        return asked

    def __call__(self, resolved: Sequence[Asked]) -> list[Scored]:
        """The server's scores, by one request for the responses with the same columns."""
        scored: dict[int, Scored] = {}
        for places in _of_same_columns(resolved):
            own = self._asked([resolved[i] for i in places])
            scored |= zip(places, own, strict=True)
        return [scored[i] for i in range(len(resolved))]

    def _asked(self, resolved: Sequence[Asked]) -> list[Scored]:
        """The answer to one request."""
        body: dict[str, list] = {
            "labels": [None if a.by_text else a.key for a in resolved],
            "responses": [a.response for a in resolved],
        }
        if any(a.by_text for a in resolved):
            body["prompts"] = [a.key if a.by_text else "" for a in resolved]
        body |= more_keys([a.columns for a in resolved], [a.plain for a in resolved])
        answer = self._server.ask(body)
        try:
            columns = {"score": answer["rewards"], **answer["extra_logs"]}
            rows = zip(*columns.values(), strict=True)
            return [_scored(dict(zip(columns, map(float, row), strict=True))) for row in rows]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{self.url} answered {str(answer)[:120]}, which is not an answer of `infalign "
                "serve-reward RUN`. Is this its address, and is its version the same?"
            ) from error


def _of_same_columns(resolved: Sequence[Asked]) -> list[list[int]]:
    """The places of the responses that have columns of the same names."""
    places: dict[frozenset[str], list[int]] = {}
    for place, asked in enumerate(resolved):
        places.setdefault(frozenset(asked.columns), []).append(place)
    return list(places.values())


def _scored(row: Mapping[str, float]) -> Scored:
    scored: Scored = {"score": row["score"], "raw_reward": row["raw_reward"]}
    if "quantile" in row:
        scored["quantile"] = row["quantile"]
    return scored


def _key(asked: Asked) -> str:
    if asked.key is None or asked.by_text:
        raise DataError(
            "A response came without a prompt_id, which names its reference rewards. Send the ids "
            "that `infalign export-prompts` writes."
        )
    return asked.key


def _resolved(asked: Asked, names: PromptNames | None) -> Asked:
    if names is None:
        raise DataError(
            f"prompt_id {asked.key!r} came without its conversation, which the reward reads. Send "
            "it as `messages`, or name the file with all prompts by `prompts=`."
        )
    if asked.key is None:
        raise DataError(
            "A response came without a prompt_id and without the text of its prompt. Send one of "
            "them."
        )
    prompt = names.find(asked.key, by_text=asked.by_text)
    return _of_prompt(asked, prompt)


def _of_prompt(asked: Asked, prompt: Prompt) -> Asked:
    """The same response to a known prompt: with its conversation, its form and its columns."""
    return replace(
        asked,
        key=prompt.id,
        messages=prompt.messages,
        by_text=False,
        columns={**asked.columns, **prompt.columns},
        plain=prompt.plain,
    )
