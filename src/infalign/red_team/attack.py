"""Repeated attacks: several attempts on each prompt, and a test of their success.

Best-of-N jailbreaking (arXiv:2412.03556) perturbs the *prompt* for each attempt and draws one
response to it. Without augmentations the attempts resample the *response* to the unchanged prompt,
like worst-of-n. Both attackers select the most harmful attempt.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from infalign import _check
from infalign._look import Shown
from infalign.errors import DataError
from infalign.models.interfaces import Sampler, Scorer
from infalign.prompts import Prompt, score_responses

from .augmentations import SIGMA, augment

__all__ = ["Attempts", "SuccessTest", "attack"]


@dataclass(frozen=True)
class SuccessTest(Shown):
    """Decides which attempts succeeded, given the prompt before its augmentation."""

    scorer: Scorer | None = None
    """The reward of harmlessness, recorded for every attempt."""

    threshold: float | None = None
    """An attempt succeeds if its reward is below this value."""

    function: Callable[[str, str], bool] | None = None
    """Replaces the threshold: (prompt, response) → whether the attempt succeeded."""

    def __post_init__(self):
        if (self.threshold is None) == (self.function is None):
            raise ValueError(
                "Exactly one of `threshold` and `function` must be given; got "
                f"{'neither' if self.function is None else 'both'}. They define success."
            )
        if self.threshold is not None:
            _check.real("threshold", self.threshold)
            if self.scorer is None:
                raise ValueError(
                    "`scorer` must be given with `threshold`, which is one of its rewards."
                )

    def __call__(
        self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rewards, nan without a scorer, and successes; both of shape (prompts, attempts).

        Raises DataError if the rewards are not finite numbers or the function's values not bools.
        """
        rewards = self.rewards(prompts, texts)
        return rewards, self.successes(prompts, texts, rewards)

    def rewards(self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> np.ndarray:
        """Rewards of the responses, shape (prompts, attempts); nan without a scorer."""
        if self.scorer is None:
            return np.full((len(texts), len(texts[0])), np.nan)
        return np.array(score_responses(self.scorer, prompts, texts))

    def successes(
        self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]], rewards: np.ndarray
    ) -> np.ndarray:
        """Successes of responses with these rewards, shape (prompts, attempts)."""
        if self.function is None:
            return rewards < self.threshold
        succeeded = [
            [self.function(p.text, text) for text in row]
            for p, row in zip(prompts, texts, strict=True)
        ]
        wrong = [v for row in succeeded for v in row if not isinstance(v, bool | np.bool_)]
        if wrong:
            name = getattr(self.function, "__name__", type(self.function).__name__)
            raise DataError(
                f"The success test `{name}` must return True or False; got {wrong[0]!r} "
                f"({len(wrong)} of {rewards.size} times). Compare inside it."
            )
        return np.array(succeeded, bool)


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
