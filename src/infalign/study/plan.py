"""What a study has left to do, as the tasks of its progress."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from infalign.config import Cell, StudyTask
from infalign.models.functions import beside
from infalign.pipeline.folder import Run
from infalign.pipeline.plan import plan_of
from infalign.pipeline.tasks import Task, tasks_of

from .cells import part_of
from .folder import StudyFolder
from .shared import REFERENCE

__all__ = ["has_reference", "is_trained", "tasks_left", "with_cells"]


def with_cells(study: StudyFolder, cells: Collection[Cell]) -> list[StudyTask]:
    """The tasks of these cells."""
    names = {cell.task.name for cell in cells}
    return [task for task in study.tasks if task.name in names]


def has_reference(study: StudyFolder, task: StudyTask) -> bool:
    """Whether the reference's samples of a task are there, all that would be judged now."""
    run = study.runs[task.name]
    return _is_reused(run, task, "evaluate", f"evaluate {REFERENCE}")


def is_trained(study: StudyFolder, cell: Cell) -> bool:
    """Whether the policy of a cell is there, trained as it would be now."""
    run = Run(cell.config, study.of_cell(cell))
    return _is_reused(run, cell.task, "train", f"train {cell.method}")


def _is_reused(run: Run, task: StudyTask, until: str, name: str) -> bool:
    if not run.folder.exists():
        return False
    with beside(task.folder):
        return any(plan.name == name and plan.state == "reused" for plan in plan_of(run, until))


def tasks_left(study: StudyFolder, due: Collection[Cell]) -> tuple[list[str], Sequence[Task]]:
    """The names of what a call will do, one after another, and the tasks of all of it.

    - `due`: the cells that are not finished.
    """
    tasks: list[Task] = []
    known: dict[str, list[Task]] = {}
    for task in with_cells(study, due):
        run = study.runs[task.name]
        with beside(task.folder):
            known[task.name] = tasks_of(run, ("calibrate", "train", "evaluate"))
        if not has_reference(study, task):
            name = f"{task.name}/{REFERENCE}"
            shared = [t for t in known[task.name] if t.name in ("calibrate", "evaluate reference")]
            tasks += [replace(t, name=f"{name} {t.name}") for t in shared]
    for cell in due:
        wanted = known[cell.task.name]
        if is_trained(study, cell):
            wanted = [t for t in wanted if t.stage != "train"]
        parts = ((t, part_of(cell, t.name)) for t in wanted)
        tasks += [replace(t, name=name) for t, name in parts if name is not None]
    return list(dict.fromkeys(t.name.split()[0] for t in tasks)), tasks
