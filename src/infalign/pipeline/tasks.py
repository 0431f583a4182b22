"""The tasks of a run, as its reports name them, with the amount of their work."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from infalign.methods import METHODS, Offline

from .folder import Run
from .workload import Workload, workloads

__all__ = ["Task", "tasks_of"]


@dataclass(frozen=True)
class Task:
    """One bar of a run's progress."""

    name: str
    stage: str
    kind: Literal["write", "learn", "step", "search"] = "write"
    """What takes its time. write: a policy writes responses; learn: responses are trained on;
    step: both; search: responses are written until a search ends, so its bar says nothing of the
    pace."""

    responses: int = 0
    """The amount of its work; 0 for what takes seconds."""


def tasks_of(run: Run, stages: Collection[str], reused: Collection[str] = ()) -> list[Task]:
    """The tasks of the stages, in the order in which a run does them.

    - `reused`: names of stages, trainings and evaluations, such as `train rloo`, whose results
      exist.
    """
    own = [task for task in _all(run) if task.stage in stages]
    return [task for task in own if task.name.split(":")[0] not in reused]


def _all(run: Run) -> Iterator[Task]:
    calibrate, *trainings, evaluate = workloads(run)
    yield Task("calibrate", "calibrate", responses=calibrate.generated)
    yield Task("design", "design")
    for method, work in zip(run.config.methods, trainings, strict=True):
        yield from _training(run, method, work)
    models = run.compared().models
    for name in models:
        yield Task(f"evaluate {name}", "evaluate", responses=evaluate.generated // len(models))
    yield Task("report", "report")


def _training(run: Run, method: str, work: Workload) -> Iterator[Task]:
    train, name = run.config.train, f"train {method}"
    drawn = 0 if isinstance(METHODS[method], Offline) else train.steps * train.batch_size
    first = "offline" if isinstance(METHODS[method], Offline) else "warm start"
    if work.learned > drawn:
        yield Task(f"{name}: {first}", "train", "learn", work.learned - drawn)
    if drawn:
        yield Task(f"{name}: on policy", "train", "step", work.scored)
    targeting = work.generated - work.scored
    yield Task(f"{name}: KL targeting", "train", "search", responses=targeting)
