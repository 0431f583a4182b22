"""A study's checks, and what it would cost, without it: nothing is written."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from infalign import _check
from infalign._look import Shown
from infalign.config import Cell, Grid, StudyTask
from infalign.models.functions import beside
from infalign.pipeline.dry import DryRun, Report, due, measured, silent
from infalign.pipeline.estimate import Cost, cost
from infalign.pipeline.measure import Trial
from infalign.pipeline.plan import plan_of
from infalign.pipeline.run import require_libraries
from infalign.pipeline.workload import Room, Workload, evaluation, parameters_of, room, workloads

from .archive import Archive
from .folder import StudyFolder
from .plan import has_reference, is_trained
from .run import check_study

__all__ = ["DryStudy", "dry_study"]

SECONDS = 60.0
"""Default time for the measurements of all tasks together."""

COUNTED = ("generated", "scored", "read", "learned", "judged", "loaded", "models", "stored")
"""The amounts of a workload, which add up over cells; checkpoints are removed after each."""


@dataclass(frozen=True)
class DryStudy(Shown):
    """What is known of a study before it begins."""

    tasks: dict[str, DryRun]
    """Task → its checks and the costs of its stages; those of cells for all that are not finished,
    one after another."""

    cells: int
    finished: int

    @property
    def seconds(self) -> float | None:
        """Time for everything, one cell after another; None if nothing was measured."""
        due = [dry for dry in self.tasks.values() if not all(work.reused for work in dry.works)]
        if any(dry.speed is None for dry in due):
            return None
        return sum(cost.seconds for dry in self.tasks.values() for cost in dry.costs)


def dry_study(
    grid: Grid,
    folder: Path,
    *,
    archive: Path | None = None,
    seconds: float = SECONDS,
    report: Report = silent,
) -> DryStudy:
    """Check a study, measure its models for about `seconds` seconds, and estimate its costs.

    Nothing is written. With 0 seconds nothing is measured. `archive` and errors as in `run_study`.
    """
    _check.real("seconds", seconds)
    require_libraries()
    study = StudyFolder(grid, Path(folder), None if archive is None else Archive(Path(archive)))
    study.require()
    passed = check_study(study)
    cells = list(grid.cells)
    left = [cell for cell in cells if not study.is_finished(cell)]
    tasks = {}
    share = seconds / max(1, len({cell.task.name for cell in left}))
    for task in study.tasks:
        if task.name not in passed:  # all of its cells are archived
            continue
        due_cells = [cell for cell in left if cell.task is task]
        tasks[task.name] = _task(study, task, due_cells, passed[task.name], share, report)
    return DryStudy(tasks, len(cells), len(cells) - len(left))


def _task(
    study: StudyFolder,
    task: StudyTask,
    cells: Sequence[Cell],
    passed: list[str],
    seconds: float,
    report: Report,
) -> DryRun:
    run = study.runs[task.name]
    with beside(task.folder):
        works = list(_works(study, task, cells))
        parameters = parameters_of(run)
        trial = Trial.of(run, True)
        speed = measured(trial, seconds, report) if any(n for _, n in works) else None
    train, adapters = run.config.train, run.config.train.lora > 0
    costs = []
    if speed is not None:
        costs = [_cost(cost(work, speed, parameters, train), n) for work, n in works]
    rooms = [(room([work], parameters or 0, adapters), n) for work, n in works]
    needed = Room(
        sum(own.results * n for own, n in rooms), max((own.passing for own, _ in rooms), default=0)
    )
    works_due = [_times(work, n) for work, n in works]
    longest = run.config.sampling.max_new_tokens
    return DryRun(passed, works_due, costs, speed, needed, longest=longest)


def _works(
    study: StudyFolder, task: StudyTask, cells: Sequence[Cell]
) -> Iterator[tuple[Workload, int]]:
    """The work of every stage of a task, and how many times it is due."""
    run = study.runs[task.name]
    calibrate, *trainings, _ = workloads(run)
    (calibrate,) = due([calibrate], plan_of(run, "calibrate"))
    yield calibrate, int(not calibrate.reused)
    comparison = run.compared()
    shared = evaluation(replace(comparison, policies={}))
    yield replace(shared, name="reference"), int(not has_reference(study, task))
    untrained = Counter(cell.method for cell in cells if not is_trained(study, cell))
    for method, work in zip(task.methods, trainings, strict=True):
        models = work.models if study.grid.study.models == "all" else 1
        yield replace(work, models=models), untrained[method]
    one = evaluation(replace(comparison, policies=dict(list(comparison.policies.items())[:1])))
    counted = {n: getattr(one, n) - getattr(shared, n) for n in ("generated", "scored", "stored")}
    yield replace(one, **counted), len(cells)


def _times(work: Workload, count: int) -> Workload:
    """The work of several cells."""
    numbers = {name: getattr(work, name) * count for name in COUNTED}
    name = work.name if count == 1 else f"{work.name} × {count}"
    return replace(work, **numbers, name=name, reused=not count)


def _cost(one: Cost, count: int) -> Cost:
    """The cost of several cells, one after another."""
    amounts = {name: getattr(one, name) * count for name in ("tokens", "seconds", "disk")}
    return replace(one, work=_times(one.work, count), **amounts)
