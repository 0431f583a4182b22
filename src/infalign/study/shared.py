"""What the cells of a task share: one calibration, and one set of reference samples.

They are made once, in a run folder that is called `reference`. Every cell begins as a copy of it,
so that it is an ordinary run folder which can be reported, evaluated and moved alone.
"""

import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

from infalign import storage
from infalign.comparison.sampling import draw, identify
from infalign.config import StudyTask
from infalign.manifest import Manifest
from infalign.models.functions import beside
from infalign.pipeline.costs import metered
from infalign.pipeline.folder import Run
from infalign.pipeline.run import run
from infalign.stores.resumable import Report

__all__ = ["REFERENCE", "begin", "calibrate", "draw_reference"]

REFERENCE = "reference"
"""The folder of what the cells of a task share."""

SAMPLES = f"{REFERENCE}.parquet"

OWN = ("config.yaml", "configs", "costs.jsonl", storage.LOCK)
"""Files of a run that a copy of it does not have: a linked lock would be the same lock."""


def calibrate(task: StudyTask, folder: Path, report: Report) -> Run:
    """The calibration of a task, in its folder `reference`; what is there is used again."""
    return run(task.config, folder / REFERENCE, until="calibrate", report=report)


def draw_reference(task: StudyTask, folder: Path, report: Report) -> None:
    """The reference's samples on the held-out prompts, after the calibration."""
    run = Run(task.config, folder / REFERENCE)
    with storage.locked(run.folder), beside(task.folder):
        comparison = replace(run.compared(), policies={})
        manifest = Manifest(run.folder / "evaluation")
        with metered(run.folder, "evaluate", report) as measured:
            draw(comparison, manifest, identify(comparison, manifest), measured)


def begin(task: Path, cell: Path) -> None:
    """Make `cell` a run folder with the calibration and the reference samples of its task.

    A folder that is there already gets the calibrations and the reference samples that were made
    since. Files are linked, since they are never changed but replaced, and copied where the file
    system has no links.

    - `task`: the folder of the task.
    """
    shared = task / REFERENCE
    if not cell.exists():
        part = storage.unfinished_name(cell)
        shutil.copytree(
            shared, part, copy_function=_link, ignore=shutil.ignore_patterns(*OWN, ".*.part")
        )
        part.rename(cell)
        return
    for store in sorted(shared.glob("calibration*")):
        if not (cell / store.name).exists():
            part = storage.unfinished_name(cell / store.name)
            ignored = shutil.ignore_patterns(storage.LOCK)
            shutil.copytree(store, part, copy_function=_link, ignore=ignored)
            part.rename(cell / store.name)
    with storage.locked(cell):
        _give_samples(shared, cell)


def _give_samples(shared: Path, cell: Path) -> None:
    """Put the reference samples of a task in the place of those that a cell has of it."""
    source, target = (folder / "evaluation" / SAMPLES for folder in (shared, cell))
    there = Manifest(source.parent)
    if source not in there:
        return
    there.require(source)
    if not (target.exists() and storage.sha256(target) == storage.sha256(source)):
        made_from = there.made_from(source)
        copy = partial(shutil.copyfile, source)
        Manifest(target.parent).replace(target, copy, stage="evaluate", made_from=made_from)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
