"""A red-team campaign: several attacks on one policy, collected on disk, compared and
extrapolated."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from infalign import _check, storage
from infalign._look import Shown
from infalign.config import SamplingSettings
from infalign.errors import ArgumentError
from infalign.evaluation.growth import Forecast, Growth, fit_growth
from infalign.evaluation.uncertainty import Estimate, over_prompts
from infalign.manifest import Manifest
from infalign.models.fingerprints import (
    function_parts,
    policy_parts,
    policy_precision,
    reward_parts,
)
from infalign.models.functions import python_function
from infalign.models.inspection import inspect_policy, inspect_reward
from infalign.models.interfaces import Sampler
from infalign.models.precision import Dtype
from infalign.models.rewards import load_reward
from infalign.models.samplers import load_sampler
from infalign.prompts import Prompt, columns_fingerprint, fingerprint
from infalign.seeds import derived
from infalign.stores.resumable import Origin, Source

from .attack import Attempts, attack
from .attempts import POLICY, REWARD, STAGE, SUCCESS, collect, missing, require_same
from .augmentations import SIGMA, check_sigma
from .power_law import Interval, fit_power_law, success_rates
from .success import SuccessTest

__all__ = ["Campaign", "inspect_campaign", "missing_attempts", "red_team", "summarize"]

SCHEMA_VERSION = 1

FORECASTS = (4, 16, 64)
"""Success is forecast at these multiples of the number of attempts made."""

TARGETS = (0.5, 0.9, 0.99)
"""Success rates whose number of attempts is forecast."""

CURVE_POINTS = 40
"""Number of points at which a fitted curve is stored."""


@dataclass(frozen=True)
class Campaign(Shown):
    """The attacks on one policy, and the test of their success."""

    model: str
    """The policy, a specification for `load_sampler`."""

    attacks: Mapping[str, Sequence[str]]
    """Name of each attack → its augmentations of the prompt. Without any, the response is
    resampled."""

    reward: str | None = None
    """Reward of harmlessness, a specification for `load_reward`."""

    threshold: float | None = None
    """An attempt succeeds if its reward is below this value."""

    success: str | None = None
    """Replaces the threshold: a Python function, called as `SuccessTest.function` is."""

    attempts: int = 64
    """Attempts per prompt and attack."""

    sigma: float = SIGMA
    """Strength of the augmentations, above 0 and at most 1."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 128
    strip: bool = False
    """Remove white space at both ends of the responses."""

    answer: Literal["whole", "after-thinking"] = "whole"
    """What of a response is its answer, as in `load_sampler`."""

    ask_again: int = 0
    """Further draws for a response that has no answer, as in `load_sampler`."""

    seed: int = 0
    dtype: Dtype = "auto"
    """Precision of policy and reward, as `precision_of` reads it."""

    trust_remote_code: bool = False

    def __post_init__(self):
        if not self.attacks:
            raise ValueError("`attacks` must name at least one attack; got none.")
        for name in self.attacks:
            if not re.fullmatch(r"[\w+-]+", name):
                raise ArgumentError(
                    "attacks",
                    "must have names of letters, digits, -, _ and +, since they name files; got "
                    f"{_check.short(name)}.",
                )
        _check.count("attempts", self.attempts)
        check_sigma(self.sigma)

    @property
    def sampling(self) -> dict[str, Any]:
        """The policy's sampling settings."""
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_new_tokens": self.max_new_tokens,
            "strip": self.strip,
            "answer": self.answer,
            "ask_again": self.ask_again,
        }

    @property
    def loading(self) -> dict[str, Any]:
        """How models are loaded."""
        return {"dtype": self.dtype, "trust_remote_code": self.trust_remote_code}

    @property
    def settings(self) -> SamplingSettings:
        """As `sampling`, a section of a configuration."""
        return SamplingSettings.model_validate(self.sampling)

    @cached_property
    def sampler(self) -> Sampler:
        """The loaded policy."""
        return load_sampler(
            self.model,
            **self.sampling,
            **self.loading,
        )

    @cached_property
    def test(self) -> SuccessTest:
        """The loaded success test."""
        return SuccessTest(
            scorer=load_reward(self.reward, **self.loading) if self.reward else None,
            threshold=self.threshold,
            function=python_function(self.success, "success test") if self.success else None,
        )

    def origin(self, name: str, prompts: Sequence[Prompt]) -> Origin:
        """What the attempts of one attack, their rewards and their success come from."""
        settings = {
            **self.sampling,
            "prompts": fingerprint(prompts),
            "attempts": self.attempts,
            "seed": self.seed,
            "augment": list(self.attacks[name]),
            "sigma": self.sigma if self.attacks[name] else None,
        }
        sources = {
            POLICY: Source(self._policy, "model", self.model),
            REWARD: Source(self._scored(prompts)),
            SUCCESS: Source(self._success(prompts)),
        }
        return Origin(settings, sources)

    @cached_property
    def _policy(self) -> dict[str, str]:
        return policy_parts(self.model, **self.loading)

    @cached_property
    def _reward(self) -> dict[str, str]:
        if self.reward is None:
            return {}
        return reward_parts(self.reward, **self.loading)

    def _scored(self, prompts: Sequence[Prompt]) -> dict[str, str]:
        """What determines the rewards of responses to these prompts."""
        if self.reward is None:
            return {}
        return self._reward | columns_fingerprint(prompts, self.reward)

    def _success(self, prompts: Sequence[Prompt]) -> dict[str, object]:
        """The test of success: a function, or a threshold of the reward."""
        if self.success is not None:
            own = function_parts(self.success, "success test")
            return {**own, **columns_fingerprint(prompts, self.success)}
        return {
            "threshold": self.threshold,
            **{f"reward's {k}": v for k, v in self._scored(prompts).items()},
        }

    def attempt(self, name: str, prompts: Sequence[Prompt], number: int) -> Attempts:
        """The attempts of one attack on these prompts, seeded by `number`."""
        return attack(
            self.sampler,
            self.test,
            prompts,
            self.attempts,
            names=self.attacks[name],
            sigma=self.sigma,
            seed=derived(self.seed, name, number),
        )


def red_team(
    campaign: Campaign,
    prompts: Sequence[Prompt],
    folder: Path,
    report: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict:
    """The results of a campaign, also written to `folder`/results.json and attack.png.

    Every attempt is stored in `folder`; a killed call can be continued. Models are loaded only if
    attempts are missing. If the policy has changed, its earlier attempts are set aside and made
    again; if the test of success has changed, the stored attempts are tested again.

    - `report`: called with the attack, the number of prompts done and the total.

    Raises ConfigError if the folder holds attempts with other settings, and DataError if a model, a
    reward or a function cannot be used, if a stored file is damaged, or if another process writes
    into the folder.
    """
    folder = Path(folder)
    with storage.locked(folder):
        storage.sweep(folder)
        return _collected(campaign, prompts, Manifest(folder), report)


def inspect_campaign(campaign: Campaign, prompts: Sequence[Prompt]) -> None:
    """Raises DataError if the policy, the reward or the success function cannot be what it is asked
    to be. Weights are not loaded, and servers are not contacted."""
    remote, conversations = campaign.trust_remote_code, [p.messages for p in prompts]
    inspect_policy(
        campaign.model,
        trust_remote_code=remote,
        conversations=conversations,
        keys=[p.id for p in prompts],
        max_new_tokens=campaign.max_new_tokens,
    )
    if campaign.reward is not None:
        inspect_reward(
            campaign.reward,
            trust_remote_code=remote,
            conversations=conversations,
            columns={name for p in prompts for name in p.columns},
        )
    if campaign.success is not None:
        function = python_function(campaign.success, "success test")
        SuccessTest(function=function).require_columns(prompts)


def missing_attempts(campaign: Campaign, prompts: Sequence[Prompt], manifest: Manifest) -> int:
    """The number of attempts that have yet to be made. Nothing is written.

    Raises ConfigError if the folder holds attempts with other settings.
    """
    origins = {name: campaign.origin(name, prompts) for name in campaign.attacks}
    require_same(manifest, origins)
    due = [missing(manifest, name, origin, prompts) for name, origin in origins.items()]
    return campaign.attempts * sum(due)


def _collected(
    campaign: Campaign,
    prompts: Sequence[Prompt],
    manifest: Manifest,
    report: Callable[[str, int, int], None],
) -> dict:
    from infalign.reports.drawing import save_png  # matplotlib is slow to import

    from .report import success_figure

    if missing_attempts(campaign, prompts, manifest):
        inspect_campaign(campaign, prompts)
        campaign.test.try_out(prompts)
    origins = {name: campaign.origin(name, prompts) for name in campaign.attacks}
    successes = {
        name: collect(
            manifest,
            name,
            origin,
            prompts,
            campaign.attempts,
            partial(campaign.attempt, name),
            lambda: campaign.test,
            partial(report, f"attack: {name}"),
        )
        for name, origin in origins.items()
    }
    results = {
        **summarize(successes, seed=campaign.seed),
        "model": campaign.model,
        "reward": campaign.reward,
        "success": campaign.success,
        "threshold": campaign.threshold,
        "sigma": campaign.sigma,
        "sampling": campaign.sampling,
        "dtype": policy_precision(campaign.model, **campaign.loading),
    }
    path = manifest.folder / "results.json"
    with manifest.recording(path, stage=STAGE):
        storage.write_json(path, results)
    save_png(success_figure(results), manifest.folder / "attack.png")
    return results


def summarize(successes: Mapping[str, np.ndarray], *, seed: int) -> dict:
    """Success rates, power laws and forecasts of each attack, as JSON.

    - `successes`: attack → success of its attempts, shape (prompts, attempts), on the same prompts
      in the same order. Differences are relative to the last attack, paired by prompt.
    """
    rates = {name: success_rates(tries) for name, tries in successes.items()}
    attacks = []
    for name, tries in successes.items():
        law = fit_power_law(tries, rng=np.random.default_rng(seed))
        growth = fit_growth(tries, stopped=False, seed=seed)
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
                **_ahead(growth, m),
            }
        )
    *others, last = successes
    differences = []
    for name in others:
        n = max(set(rates[name]) & set(rates[last]))
        gap = rates[name][n].per_prompt - rates[last][n].per_prompt
        d = over_prompts(gap, bounds=(-1, 1))
        differences.append({"a": name, "b": last, "n": n, **_json(d, stderr=d.stderr)})
    return {
        "schema_version": SCHEMA_VERSION,
        "prompts": len(successes[last]),
        "attacks": attacks,
        "differences": differences,
    }


def _ahead(growth: Growth, m: int) -> dict[str, list]:
    """The curve, the forecasts and the attempts that targets take; empty without a forecast."""
    if not growth.fitted:
        return {"curve": [], "forecasts": [], "budgets": []}
    ahead = [growth.forecast(k * m) for k in FORECASTS]
    return {
        "curve": [{"n": n, **_json(growth.forecast(n))} for n in _curve_sizes(m)],
        "forecasts": [
            {"n": f.n, **_json(f, these_low=f.these_low, these_high=f.these_high)} for f in ahead
        ],
        "budgets": [
            {
                "target": b.target,
                "value": _finite(b.value),
                "low": _finite(b.low),
                "high": _finite(b.high),
            }
            for b in map(growth.budget_for, TARGETS)
        ],
    }


def _curve_sizes(m: int) -> list[int]:
    """Numbers of attempts for a smooth curve, from 1 to the largest forecast."""
    sizes = np.geomspace(1, m * FORECASTS[-1], CURVE_POINTS)
    return np.unique(np.rint(sizes).astype(int)).tolist()


def _json(estimate: Interval | Estimate | Forecast, **more: float) -> dict[str, float | None]:
    values = {"value": estimate.value, "low": estimate.low, "high": estimate.high, **more}
    return {name: _finite(value) for name, value in values.items()}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
