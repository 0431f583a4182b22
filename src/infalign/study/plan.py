"""What a study has left to do, as the tasks of its progress."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from infalign.config import Cell
from infalign.models.functions import beside
from infalign.pipeline.tasks import Task, tasks_of

from .folder import StudyFolder
from .shared import REFERENCE

__all__ = ["tasks_left"]


def tasks_left(study: StudyFolder, due: Collection[Cell]) -> tuple[list[str], Sequence[Task]]:
    """The names of what a call will do, one after another, and the tasks of all of it.

    - `due`: the cells that are not finished.
    """
    tasks: list[Task] = []
    known = {}
    for task in study.tasks:
        run = study.runs[task.name]
        with beside(task.folder):
            own = known[task.name] = tasks_of(run, ("calibrate", "train", "evaluate"))
        if not (run.folder / "evaluation" / "reference.parquet").exists():
            name = f"{task.name}/{REFERENCE}"
            tasks += [_named(name, t) for t in own if t.name in ("calibrate", "evaluate reference")]
    for cell in due:
        wanted = (f"train {cell.method}:", f"evaluate {cell.method}:")
        own = known[cell.task.name]
        tasks += [_named(cell.path, t) for t in own if f"{t.name}:".startswith(wanted)]
    return list(dict.fromkeys(t.name.split()[0] for t in tasks)), tasks


def _named(name: str, task: Task) -> Task:
    return replace(task, name=f"{name} {task.name}")
