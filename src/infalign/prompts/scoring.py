"""Rewards of responses to prompts: each prompt in its own form, with its columns."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from infalign.errors import DataError
from infalign.models.interfaces import FAKE, Scorer
from infalign.models.python_reward import PythonReward
from infalign.models.rewards import arguments, score_ragged
from infalign.shaping import reward_name
from infalign.shaping.signature import REQUIRED, Parameters, lacks

from .prompt import Prompt

__all__ = ["call_arguments", "require_scorable", "score_responses", "try_out"]


def score_responses(
    reward: Scorer, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]
) -> list[np.ndarray]:
    """Checked raw rewards of each prompt's responses, of which there may be any number.

    Every path scores with this function, so a reward gets the same arguments on all of them.
    """
    return score_ragged(reward, *_parts(prompts, texts))


def call_arguments(prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> dict[str, list]:
    """The keyword arguments with which `score_responses` calls a reward."""
    return arguments(*_parts(prompts, texts))


def _parts(prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> tuple[Any, ...]:
    return (
        [p.value for p in prompts],
        texts,
        [p.id for p in prompts],
        [p.columns for p in prompts],
    )


def try_out(reward: Scorer, prompts: Sequence[Prompt]) -> None:
    """Score two responses that no model wrote, to the first and the last prompt, so that what is
    wrong with a reward is known before anything is sampled. Raises DataError."""
    score_responses(reward, [prompts[0], prompts[-1]], [[text] for text in FAKE])


def require_scorable(reward: Scorer | None, prompts: Sequence[Prompt]) -> None:
    """Raise DataError if a reward needs a column that no prompt has, before anything is sampled."""
    columns = {name for p in prompts for name in p.columns}
    if isinstance(reward, PythonReward):
        reward.require_columns(columns)
    elif reward is not None:
        missing = Parameters.of(reward).missing({*columns, *REQUIRED})
        if missing:
            raise DataError(lacks(f"The reward `{reward_name(reward)}`", missing, columns))
