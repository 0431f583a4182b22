"""Repeated attacks: several attempts on each prompt.

Best-of-N jailbreaking (arXiv:2412.03556) perturbs the *prompt* for each attempt and draws one
response to it. Without augmentations the attempts resample the *response* to the unchanged prompt,
like worst-of-n. Both attackers select the most harmful attempt.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from infalign import _check
from infalign._look import Shown
from infalign.models.interfaces import Sampler
from infalign.prompts import Prompt

from .augmentations import SIGMA, augment
from .success import SuccessTest

__all__ = ["Attempts", "attack"]


@dataclass(frozen=True)
class Attempts(Shown):
    """The prompts as sent, the responses, and their success; each field has one row per prompt."""

    asked: list[list[str]]
    """The last message of the prompt, as it was sent."""

    completions: list[list[str]]
    rewards: np.ndarray
    successes: np.ndarray


def attack(
    sampler: Sampler,
    test: SuccessTest,
    prompts: Sequence[Prompt],
    attempts: int,
    *,
    names: Sequence[str],
    sigma: float = SIGMA,
    seed: int,
) -> Attempts:
    """`attempts` attempts on each prompt, reproducible by the seed.

    - `names`: augmentations of the prompt's last message, drawn for each attempt; none for plain
      repeated sampling.
    """
    _check.count("attempts", attempts)
    streams = np.random.SeedSequence(_check.seed("seed", seed)).spawn(2)
    draw = int(streams[0].generate_state(1)[0])
    if names:
        rng = np.random.default_rng(streams[1])
        asked = [
            [augment(p.text, names=names, sigma=sigma, rng=rng) for _ in range(attempts)]
            for p in prompts
        ]
        conversations = [
            [*p.messages[:-1], {**p.messages[-1], "content": text}]
            for p, row in zip(prompts, asked, strict=True)
            for text in row
        ]
        flat = [row[0].text for row in sampler.sample(conversations, 1, seed=draw)]
        texts = [flat[i : i + attempts] for i in range(0, len(flat), attempts)]
    else:
        asked = [[p.text] * attempts for p in prompts]
        drawn = sampler.sample([p.messages for p in prompts], attempts, seed=draw)
        texts = [[r.text for r in row] for row in drawn]
    return Attempts(asked, texts, *test(prompts, texts))
