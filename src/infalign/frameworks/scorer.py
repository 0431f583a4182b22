"""What a response is worth in training, for frameworks that are no TRL: asked one by one, scored
many at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypedDict

import numpy as np

from infalign.errors import DataError
from infalign.shaping import Shaper, checked_output, reward_name

from .names import PromptNames


@dataclass(frozen=True)
class Asked:
    """One response, and whose it is."""

    key: str | None
    """The prompt's id, or its text."""

    response: str
    messages: tuple[dict, ...] | None = None
    """The prompt's conversation, where the asker knows it."""


class Scored(TypedDict, total=False):
    """What a response is worth; the same keys for every response of a scorer."""

    score: float
    """What is trained on."""

    raw_reward: float
    quantile: float
    """Under the reference samples of the prompt; a scorer of raw rewards knows none."""


class Scorer(Protocol):
    """Scores responses, after it has found their prompts.

    `resolve` is cheap and concerns one response, so that an unknown prompt is told to who asked
    for it; calling scores many that were resolved, whoever asked.
    """

    def resolve(self, asked: Asked) -> Asked:
        """The same with the prompt's id and conversation; DataError for an unknown prompt."""

    def __call__(self, resolved: Sequence[Asked]) -> list[Scored]:
        """One score for each, in their order."""


class RawScorer:
    """The raw reward as it is.

    - `reward`: a TRL reward function; it is given conversations, as in a run.
    - `names`: the prompts, where askers give no conversations.
    """

    def __init__(self, reward: Callable[..., Sequence[float]], names: PromptNames | None = None):
        self.reward, self.names = reward, names

    def resolve(self, asked: Asked) -> Asked:
        """As of `Scorer`. With its conversation a prompt need not be known."""
        if asked.messages:
            return asked
        return _found(self.names, asked)

    def raw(self, resolved: Sequence[Asked]) -> np.ndarray:
        """Raw rewards, checked. Responses are stripped of white space, as those that a run
        calibrates on are."""
        texts = [a.response.strip() for a in resolved]
        values = self.reward(
            prompts=[list(a.messages) for a in resolved],
            completions=[[{"role": "assistant", "content": text}] for text in texts],
            prompt_id=[a.key for a in resolved],
        )
        return checked_output(values, texts, reward_name(self.reward))

    def __call__(self, resolved: Sequence[Asked]) -> list[Scored]:
        """As of `Scorer`."""
        return [{"score": r, "raw_reward": r} for r in self.raw(resolved).tolist()]


class ShapedScorer:
    """Φ of the calibrated reward, with the raw reward and the quantile it was made of."""

    def __init__(self, raw: RawScorer, shaper: Shaper):
        self.raw, self.shaper = raw, shaper

    def resolve(self, asked: Asked) -> Asked:
        """As of `Scorer`; the prompt must be in the calibration store."""
        names = self.raw.names
        if names is None:
            if asked.key is None:
                raise DataError(
                    "A response came without a prompt_id, which names its reference rewards. "
                    "Send one, such as `infalign export-prompts` writes."
                )
            self.shaper.store.positions([asked.key])
            return self.raw.resolve(asked)
        return _found(names, asked)

    def __call__(self, resolved: Sequence[Asked]) -> list[Scored]:
        """As of `Scorer`."""
        shaped = self.shaper([a.key for a in resolved], self.raw.raw(resolved))
        columns = (column.tolist() for column in (shaped.value, shaped.raw, shaped.quantile))
        return [
            {"score": value, "raw_reward": raw, "quantile": quantile}
            for value, raw, quantile in zip(*columns, strict=True)
        ]


def _found(names: PromptNames | None, asked: Asked) -> Asked:
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
    prompt = names.find(asked.key)
    return replace(asked, key=prompt.id, messages=prompt.messages)
