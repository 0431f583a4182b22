"""One cell of a study: a training, its KL targeting and its evaluation, in a run folder."""

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

__all__ = ["Outcome", "drop_models", "part_of", "run_cell", "warning_once", "words"]

TALKING = ("infalign.pipeline.run", "infalign.pipeline.stages", "infalign.comparison.run")
"""Loggers of what every run says."""


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
        run(cell.config, folder, until="evaluate", report=_of(cell, report))
    except Exception as failed:
        error = words(failed)
    return Outcome(cell, time.monotonic() - start, error)


def words(error: Exception) -> str:
    """What an error says; an error of another library with its kind, in one line."""
    if isinstance(error, InfalignError | ArgumentError):
        return str(error)
    text = " ".join(str(error).split())[:500]
    return f"{type(error).__name__}: {text}{'' if text.endswith('.') else '.'}"


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


class _Once(logging.Filter):
    """Passes each warning once, and nothing below."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a message is shown."""
        message = record.getMessage()
        passes = record.levelno >= logging.WARNING and message not in self._said
        self._said.add(message)
        return passes


@contextmanager
def warning_once() -> Iterator[None]:
    """Inside the block, the runs of cells do not say what they reuse, and what all of them would
    warn of is said once."""
    filtered, once = [logging.getLogger(name) for name in TALKING], _Once()
    for log in filtered:
        log.addFilter(once)
    try:
        yield
    finally:
        for log in filtered:
            log.removeFilter(once)


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
