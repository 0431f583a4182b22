"""One cell of a study: a training, its KL targeting and its evaluation, in a run folder."""

import gc
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from infalign.config import Cell
from infalign.errors import ArgumentError, InfalignError
from infalign.manifest import Manifest
from infalign.pipeline.folder import Run
from infalign.pipeline.run import run
from infalign.stores.resumable import Report

from .shared import begin

__all__ = ["Outcome", "drop_models", "run_cell"]

LOG = logging.getLogger(__name__)


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
    except (InfalignError, ArgumentError) as failed:
        error = str(failed)
    except Exception as failed:
        error = f"{type(failed).__name__}: {' '.join(str(failed).split())[:500]}"
    gc.collect()  # trainers form reference cycles, and the next cell needs the memory
    return Outcome(cell, time.monotonic() - start, error)


def _of(cell: Cell, report: Report) -> Report:
    """Reports of a run under the name of its cell, without those about what cells share."""
    own = (f"train {cell.method}:", f"evaluate {cell.method}:")

    def named(what: str, done: int, total: int) -> None:
        if f"{what}:".startswith(own) and what != f"train {cell.method}":  # had been finished
            report(f"{cell.path} {what}", done, total)

    return named


def drop_models(cell: Cell, folder: Path, models: str) -> None:
    """Remove the weights of a finished cell that the study does not ask for.

    - `models`: as in the study's configuration.
    """
    if models == "all":
        return
    trained = Run(cell.config, folder).attempt(cell.method)
    parts = ["warm_start", "on_policy", "offline"] + ([""] if models == "none" else [])
    unwanted = [trained / part / "model" for part in parts]
    Manifest(folder).forget(*unwanted)
    for path in unwanted:
        shutil.rmtree(path, ignore_errors=True)
