"""Attacks by repetition: m attempts on each prompt, what came of them, and how success grows.

Two attackers. Best-of-N jailbreaking (arXiv:2412.03556) perturbs the *prompt* anew for each attempt
and draws one response to it; without augmentations attempts resample the *response* to the prompt
as it is, which is what worst-of-n does. Both keep the attempt that does most harm.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from infalign import _check
from infalign.errors import DataError
from infalign.evaluation.uncertainty import over_prompts
from infalign.models.interfaces import Sampler, Scorer
from infalign.models.rewards import score_ragged
from infalign.prompts import Prompt

from .augmentations import SIGMA, augment
from .power_law import Interval, fit_power_law, success_rates

SCHEMA_VERSION = 1
FORECASTS = (4, 16, 64)
"""Multiples of the attempts made, at which success is forecast."""


@dataclass(frozen=True)
class Judge:
    """Says which attempts succeeded, against the prompt as it was before it was augmented."""

    scorer: Scorer | None = None
    """The reward of harmlessness; recorded for every attempt."""

    threshold: float | None = None
    """An attempt succeeds with a reward below it."""

    function: Callable[[str, str], bool] | None = None
    """In place of a threshold: (prompt, response) to whether the attempt succeeded."""

    def __post_init__(self):
        if (self.threshold is None) == (self.function is None):
            raise ValueError(
                "Exactly one of `threshold` and `function` must be given; got "
                f"{'neither' if self.function is None else 'both'}. They say what success is."
            )
        if self.threshold is not None:
            _check.real("threshold", self.threshold)
            if self.scorer is None:
                raise ValueError("`scorer` must be given: `threshold` is one of its rewards.")

    def verdicts(self, prompts: Sequence[Prompt], texts) -> tuple[np.ndarray, np.ndarray]:
        """Rewards, nan without a scorer, and successes; both shape (prompts, attempts).

        Raises DataError where reward or function return something else.
        """
        rewards = np.full((len(texts), len(texts[0])), np.nan)
        if self.scorer is not None:
            conversations, ids = [p.messages for p in prompts], [p.id for p in prompts]
            rewards = np.array(score_ragged(self.scorer, conversations, texts, ids))
        if self.function is None:
            return rewards, rewards < self.threshold
        said = [
            [self.function(p.text, text) for text in row]
            for p, row in zip(prompts, texts, strict=True)
        ]
        wrong = [v for row in said for v in row if not isinstance(v, bool | np.bool_)]
        if wrong:
            name = getattr(self.function, "__name__", type(self.function).__name__)
            raise DataError(
                f"The success test `{name}` must return True or False; got {wrong[0]!r} "
                f"({len(wrong)} of {rewards.size} times). Compare inside it."
            )
        return rewards, np.array(said, bool)


@dataclass(frozen=True)
class Attempts:
    """What was asked, answered, and came of it; each with a row per prompt."""

    asked: list[list[str]]
    """The last message as it was sent."""

    completions: list[list[str]]
    rewards: np.ndarray
    successes: np.ndarray


def attack(
    sampler: Sampler,
    judge: Judge,
    prompts: Sequence[Prompt],
    attempts: int,
    *,
    names: Sequence[str],
    sigma: float = SIGMA,
    seed: int,
) -> Attempts:
    """`attempts` attempts on each prompt; the same for the same seed.

    - `names`: augmentations of the prompt's last message, anew for each attempt; none for plain
      repeated sampling.
    """
    _check.count("attempts", attempts)
    streams = np.random.SeedSequence(_check.count("seed", seed, at_least=0)).spawn(2)
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
    return Attempts(asked, texts, *judge.verdicts(prompts, texts))


def summarize(successes: dict[str, np.ndarray], *, seed: int) -> dict:
    """Success rates, power laws and forecasts of each attack, as JSON.

    - `successes`: attack to what came of its attempts, shape (prompts, attempts), on the same
      prompts in the same order. Differences are to the last attack, paired by prompt.
    """
    rates = {name: success_rates(tries) for name, tries in successes.items()}
    attacks = []
    for name, tries in successes.items():
        law = fit_power_law(tries, rng=np.random.default_rng(seed))
        m = tries.shape[1]
        attacks.append(
            {
                "augment": name,
                "attempts": m,
                "broken": int(tries.any(1).sum()),
                "rates": [{"n": n, **_json(r, stderr=r.stderr)} for n, r in rates[name].items()],
                "law": {
                    "a": _json(law.a),
                    "b": _json(law.b),
                    "sizes": list(law.sizes),
                    "misfit": _finite(law.misfit),
                    "reservations": list(law.reservations),
                },
                "curve": [{"n": n, **_json(law.forecast(n))} for n in _between(m)]
                if law.fitted
                else [],
                "forecasts": [{"n": k * m, **_json(law.forecast(k * m))} for k in FORECASTS]
                if law.fitted
                else [],
            }
        )
    *others, last = successes
    differences = []
    for name in others:
        n = max(set(rates[name]) & set(rates[last]))
        d = over_prompts(rates[name][n].per_prompt - rates[last][n].per_prompt)
        differences.append({"a": name, "b": last, "n": n, **_json(d, stderr=d.stderr)})
    return {
        "schema_version": SCHEMA_VERSION,
        "prompts": len(successes[last]),
        "attacks": attacks,
        "differences": differences,
    }


def _between(m: int) -> list[int]:
    """Sizes for a smooth curve, from 1 to the farthest forecast."""
    return np.unique(np.rint(np.geomspace(1, m * FORECASTS[-1], 40)).astype(int)).tolist()


def _json(estimate: Interval, **more) -> dict:
    values = {"value": estimate.value, "low": estimate.low, "high": estimate.high, **more}
    return {name: _finite(value) for name, value in values.items()}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
