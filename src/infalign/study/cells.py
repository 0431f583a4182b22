"""One cell of a study: a training, its KL targeting and its evaluation, in a run folder."""

import gc
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infalign.config import Cell
from infalign.errors import ArgumentError, InfalignError
from infalign.manifest import Manifest
from infalign.pipeline.folder import Run
from infalign.pipeline.run import run
from infalign.stores.resumable import Report

from .shared import begin

__all__ = ["Outcome", "drop_models", "part_of", "run_cell"]


@dataclass(frozen=True)
class Outcome:
    """How a cell ended."""

    cell: Cell
    seconds: float
    error: str | None = None
    """Why it failed; None if it is finished."""


def run_cell(cell: Cell, task: Path, folder: Path, report: Report) -> Outcome:
    """Bring a cell to its end, from wherever an earlier call left it.

    An error is part of the outcome: the other cells do not depend on it.

    - `task`: the folder of its task.
    """
    start = time.monotonic()
    error = None
    try:
        begin(task, folder)
        with _quietly():
            run(cell.config, folder, until="evaluate", report=_of(cell, report))
    except (InfalignError, ArgumentError) as failed:
        error = str(failed)
    except Exception as failed:
        error = f"{type(failed).__name__}: {' '.join(str(failed).split())[:500]}"
    gc.collect()  # trainers form reference cycles, and the next cell needs the memory
    return Outcome(cell, time.monotonic() - start, error)


def part_of(cell: Cell, task: str) -> str | None:
    """The name of a task of a run as a part of a cell; None if it is not a part of it, but of what
    all cells share."""
    if task == f"evaluate {cell.method}":
        return f"{cell.path} evaluation"
    train = f"train {cell.method}: "
    return f"{cell.path} {task.removeprefix(train)}" if task.startswith(train) else None


def _of(cell: Cell, report: Report) -> Report:
    def named(what: str, done: int, total: int) -> None:
        if (name := part_of(cell, what)) is not None:
            report(name, done, total)

    return named


@contextmanager
def _quietly() -> Iterator[None]:
    """Inside the block, runs do not say what they reuse; warnings pass."""
    log = logging.getLogger("infalign.pipeline")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def drop_models(cell: Cell, folder: Path, models: str) -> None:
    """Remove the weights of a finished cell that the study does not ask for.

    - `models`: as in the study's configuration.
    """
    if models == "all":
        return
    from infalign.training.policy import PARTS

    trained = Run(cell.config, folder).attempt(cell.method)
    unwanted = [trained / part / "model" for part in PARTS]
    Manifest(folder).forget(*unwanted)
    for path in unwanted:
        shutil.rmtree(path, ignore_errors=True)
