"""A run's checks, and what its stages would cost, without a run: nothing is written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from infalign import _check
from infalign._look import Shown
from infalign.config import Config
from infalign.models.functions import beside

from .checks import check, checks_of
from .estimate import Cost, cost
from .folder import Run, require_run
from .measure import Speed, Trial, measure
from .plan import StagePlan, changes, plan_of
from .run import STAGES, is_trained, require_libraries
from .workload import Room, Workload, parameters_of, room, workloads

__all__ = ["DryRun", "dry_run", "due", "measured", "silent"]

Report = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody sees."""


SECONDS = 30.0
"""Default time for the measurement."""


@dataclass(frozen=True)
class DryRun(Shown):
    """What is known of a run before it begins."""

    checks: list[str]
    """Names of the checks, all of which passed."""

    works: list[Workload]
    """The work of every stage that takes time."""

    costs: list[Cost]
    """The cost of that work; empty if nothing was measured."""

    speed: Speed | None
    room: Room
    plan: list[str] = field(default_factory=list)
    """A line about each stage, where the folder holds results of the run."""

    longest: int | None = None
    """Largest length of a response, in tokens; None if it is not limited here."""


def dry_run(
    config: Config,
    folder: Path,
    *,
    until: str = "report",
    seconds: float = SECONDS,
    report: Report = silent,
) -> DryRun:
    """Check a run, measure its models for about `seconds` seconds, and estimate its costs.

    Nothing is written. With 0 seconds nothing is measured.

    Raises the errors of `run`.
    """
    _check.one_of("until", until, STAGES)
    _check.real("seconds", seconds)
    folder = Path(folder)
    require_run(folder)
    require_libraries()
    trained = is_trained(until)
    run = Run(config, folder)
    with beside(config.folder):
        checks = checks_of(run, trained=trained)
        report("checks", 0, 1)
        passed = check(checks)
        report("checks", 1, 1)
        plans = plan_of(run, until)
        works = due(workloads(run), plans)
        works = [w for w in works if w.name == "calibrate" or trained]
        if STAGES.index(until) < STAGES.index("evaluate"):
            works = [w for w in works if w.name != "evaluate"]
        parameters = parameters_of(run)
        speed = measured(Trial.of(run, trained), seconds, report)
    train = config.train if trained else None
    costs = [] if speed is None else [cost(work, speed, parameters, train) for work in works]
    left = room(works, parameters or 0, config.train.lora > 0)
    return DryRun(passed, works, costs, speed, left, changes(plans), config.sampling.max_new_tokens)


def due(works: Sequence[Workload], plans: Sequence[StagePlan]) -> list[Workload]:
    """The work that is not done yet."""
    own = {p.name: p for p in plans}
    samples = [p for p in plans if p.stage == "evaluate"]
    left = []
    for work in works:
        parts = samples if work.name == "evaluate" else [own[work.name]] if work.name in own else []
        if parts and all(p.state == "reused" for p in parts):
            work = replace(work, reused=True)
        elif parts and work.name in ("calibrate", "evaluate"):
            drawn, again = (sum(getattr(p.cost, n) for p in parts) for n in ("responses", "scored"))
            scored = again + drawn * work.scored // work.generated
            work = replace(work, generated=drawn, scored=scored, stored=drawn)
        left.append(work)
    return left


def measured(trial: Trial, seconds: float, report: Report) -> Speed | None:
    """The speed of the models of a trial; None without time."""
    if seconds <= 0:
        return None
    report("measurement", 0, 1)
    speed = measure(trial, seconds)
    report("measurement", 1, 1)
    return speed
