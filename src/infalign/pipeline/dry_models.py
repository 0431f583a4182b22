"""As a dry run of a run, for the commands that use models as they are: what can be known before the
first response is checked, and the work is counted and measured. Nothing is written."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from infalign import _check
from infalign.comparison.comparison import Comparison
from infalign.comparison.lacking import lacking
from infalign.comparison.models import inspect_models
from infalign.comparison.origins import Origins
from infalign.comparison.run import FOLDER, require_comparison
from infalign.comparison.sampling import identify
from infalign.manifest import Manifest
from infalign.models.fingerprints import judge_parts
from infalign.models.specs import ModelSpec
from infalign.prompts import Prompt
from infalign.red_team import Campaign, inspect_campaign, missing_attempts
from infalign.seeds import derived

from .check import Check, check, on_responses, server_of, writable
from .decoding_work import DecodingWork
from .dry import SECONDS, DryRun, Report, measured, silent
from .estimate import cost
from .measure import Trial
from .workload import Workload, evaluation, room

__all__ = ["dry_campaign", "dry_comparison", "dry_decoding"]

MODELS = "policies, rewards and prompts"


def dry_comparison(
    comparison: Comparison, folder: Path, *, seconds: float = SECONDS, report: Report = silent
) -> DryRun:
    """As `dry_run`, for `compare_policies`. The reference is measured, and the others are expected
    to be as fast.

    Raises the errors of `compare_policies`.
    """
    manifest = Manifest(Path(folder) / FOLDER)
    identified: list[Origins] = []
    checks = [
        writable(folder),
        Check("folder", partial(require_comparison, Path(folder))),
        Check(MODELS, partial(inspect_models, comparison)),
        *on_responses(
            comparison.reward,
            comparison.gold,
            comparison.judge,
            comparison.answers,
            lambda: comparison.prompts,
            dtype=comparison.dtype,
            trust_remote_code=comparison.trust_remote_code,
        ),
        Check(
            "content of models, rewards and servers",
            lambda: identified.append(identify(comparison, manifest)),
            ("folder", MODELS),
        ),
    ]
    if comparison.judge is not None and ModelSpec.parse(comparison.judge).kind == "server":
        probe = partial(judge_parts, comparison.judge, **comparison.loading)
        checks.append(Check("server of the judge", probe, (MODELS,)))
    trial = Trial(
        comparison.reference,
        comparison.reward,
        comparison.sampling,
        comparison.prompts,
        comparison.samples,
        derived(comparison.seed, "measure"),
        False,
        comparison.trust_remote_code,
        comparison.dtype,
    )
    return _dry(checks, lambda: _left(comparison, manifest, identified[0]), trial, seconds, report)


def _left(comparison: Comparison, manifest: Manifest, origins: Origins) -> Workload:
    """The work of a comparison that is not done yet."""
    whole, left = evaluation(comparison), lacking(comparison, manifest, origins)
    return replace(
        whole,
        generated=left.responses,
        scored=left.scored + left.responses * len(comparison.rewards),
        read=2 * left.kl,
        judged=2 * left.pairs,
        stored=left.responses,
        reused=not any((left.responses, left.scored, left.kl, left.pairs)),
    )


def dry_campaign(
    campaign: Campaign,
    prompts: Sequence[Prompt],
    folder: Path,
    *,
    seconds: float = SECONDS,
    report: Report = silent,
) -> DryRun:
    """As `dry_run`, for `red_team`. Raises its errors."""
    manifest = Manifest(Path(folder))
    missing: list[int] = []
    checks = [
        writable(folder),
        Check(MODELS, partial(inspect_campaign, campaign, prompts)),
        Check("success on two responses", lambda: campaign.test.try_out(prompts), (MODELS,)),
        Check(
            "content of models, rewards and servers",
            lambda: missing.append(missing_attempts(campaign, prompts, manifest)),
            (MODELS,),
        ),
    ]

    def work() -> Workload:
        attempts = missing[0]
        return Workload(
            "red-team",
            generated=attempts,
            scored=attempts if campaign.reward is not None else 0,
            loaded=1,
            stored=attempts,
            reused=not attempts,
        )

    trial = Trial(
        campaign.model,
        campaign.reward,
        campaign.settings,
        prompts,
        1 if any(campaign.attacks.values()) else campaign.attempts,
        derived(campaign.seed, "measure"),
        False,
        campaign.trust_remote_code,
        campaign.dtype,
    )
    return _dry(checks, work, trial, seconds, report)


def dry_decoding(
    decoding: DecodingWork, *, seconds: float = SECONDS, report: Report = silent
) -> DryRun:
    """As `dry_run`, for decoding prompts with a procedure."""
    checks = [*decoding.checks(), *server_of("policy", decoding.model)]
    trial = Trial(
        decoding.model,
        decoding.reward,
        decoding.sampling,
        decoding.prompts,
        decoding.draws,
        derived(decoding.seed, "measure"),
        False,
        decoding.trust_remote_code,
        decoding.dtype,
    )
    return _dry(checks, decoding.workload, trial, seconds, report)


def _dry(
    checks: Sequence[Check],
    work: Callable[[], Workload],
    trial: Trial,
    seconds: float,
    report: Report,
) -> DryRun:
    """Make the checks, count the work and measure.

    - `work`: counts it after the checks have passed.
    """
    _check.real("seconds", seconds)
    report("checks", 0, 1)
    passed = check(checks)
    report("checks", 1, 1)
    left = work()
    speed = None if left.reused else measured(trial, seconds, report)
    costs = [] if speed is None else [cost(left, speed)]
    longest = trial.sampling.max_new_tokens
    return DryRun(passed, [left], costs, speed, room([left], 0, False), longest=longest)
