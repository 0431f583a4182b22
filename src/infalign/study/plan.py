"""What a study has left to do, as the tasks of its progress."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from infalign.config import Cell
from infalign.models.functions import beside
from infalign.pipeline.tasks import Task, tasks_of

from .cells import part_of
from .folder import StudyFolder
from .shared import REFERENCE

__all__ = ["tasks_left"]


def tasks_left(study: StudyFolder, due: Collection[Cell]) -> tuple[list[str], Sequence[Task]]:
    """The names of what a call will do, one after another, and the tasks of all of it.

    - `due`: the cells that are not finished.
    """
    tasks: list[Task] = []
    known: dict[str, list[Task]] = {}
    for task in study.tasks:
        run = study.runs[task.name]
        with beside(task.folder):
            known[task.name] = tasks_of(run, ("calibrate", "train", "evaluate"))
        if not (run.folder / "evaluation" / "reference.parquet").exists():
            name = f"{task.name}/{REFERENCE}"
            shared = [t for t in known[task.name] if t.name in ("calibrate", "evaluate reference")]
            tasks += [replace(t, name=f"{name} {t.name}") for t in shared]
    for cell in due:
        parts = ((t, part_of(cell, t.name)) for t in known[cell.task.name])
        tasks += [replace(t, name=name) for t, name in parts if name is not None]
    return list(dict.fromkeys(t.name.split()[0] for t in tasks)), tasks
