"""The folder of a study, and which of its cells are finished.

study.yaml, manifest.json       the study as resolved; the finished cells
results.json, report.html       what came out, written again after every cell
tasks/TASK/reference/           what the cells of a task share
tasks/TASK/METHOD-klKL-seedS/   a cell: an ordinary run folder
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from infalign import storage
from infalign._look import Shown
from infalign.config import Cell, Grid, StudyTask
from infalign.config.documents import read_document
from infalign.errors import ConfigError
from infalign.manifest import Manifest, Stage
from infalign.pipeline.folder import Run
from infalign.stores.manifest import NAME

from .shared import REFERENCE

__all__ = ["RESULTS", "StudyFolder"]

FIRST = "study.yaml"
"""The first file of a study; a folder that contains it is one."""

RESULTS = Path("evaluation", "results.json")
"""The last file of a cell."""

STAGE = "compare"


@dataclass(frozen=True)
class StudyFolder(Shown):
    """A study and the folder that its results go to."""

    grid: Grid
    folder: Path

    def require(self) -> None:
        """Raise ConfigError unless the folder holds a study or is empty."""
        if not self.folder.exists() or (self.folder / FIRST).exists():
            return
        others = [
            p.name
            for p in self.folder.iterdir()
            if p.name != storage.LOCK and not storage.LEFT.fullmatch(p.name)
        ]
        if others:
            raise ConfigError(
                f"{self.folder} is not empty and holds no study (no {FIRST}): it has "
                f"{min(others)!r}. Choose another folder with --out."
            )

    def begin(self) -> None:
        """Write the study's configuration."""
        storage.sweep(self.folder)
        text = yaml.safe_dump(self.resolved, sort_keys=False)
        path = self.folder / FIRST
        if path.exists() and path in self.manifest and path.read_text(encoding="utf-8") == text:
            return
        with self.manifest.recording(path, stage=STAGE):
            storage.write_text(path, text)

    @property
    def resolved(self) -> dict:
        """The study with all keys of its tasks."""
        study = self.grid.study.model_dump(mode="json", exclude={"tasks", "common"})
        tasks = {t.name: t.config.model_dump(mode="json", exclude_none=True) for t in self.tasks}
        return storage.as_json(study | {"tasks": tasks})

    @property
    def tasks(self) -> tuple[StudyTask, ...]:
        """The tasks of the study."""
        return self.grid.tasks

    @cached_property
    def manifest(self) -> Manifest:
        """The finished cells."""
        return Manifest(self.folder)

    def of_task(self, task: StudyTask) -> Path:
        """The folder of a task."""
        return self.folder / "tasks" / task.name

    def of_cell(self, cell: Cell) -> Path:
        """The run folder of a cell."""
        return self.of_task(cell.task) / cell.name

    @cached_property
    def runs(self) -> Mapping[str, Run]:
        """Task → the run of what its cells share."""
        return {t.name: Run(t.config, self.of_task(t) / REFERENCE) for t in self.tasks}

    def stage(self, cell: Cell) -> Stage:
        """What a finished cell was made from; needs what its task shares."""
        run = self.runs[cell.task.name]
        reference = run.folder / "evaluation" / "reference.parquet"
        made_from = {
            "configuration": storage.fingerprint(self._stated(cell)),
            "content": storage.fingerprint(run.fingerprints),
            "calibration": storage.sha256(run.store_path / NAME)[:16],
            "reference": storage.sha256(reference)[:16],
        }
        return Stage(self.manifest, STAGE, made_from)

    def _stated(self, cell: Cell) -> dict:
        """The keys of a cell, without those that the version that began it did not have, if they
        have their defaults: a new version does not make its cells again."""
        not_asked = {"trust_remote_code"}
        stated = cell.config.model_dump(mode="json", exclude=not_asked, exclude_none=True)
        given = cell.config.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
        try:
            begun = read_document(Run(cell.config, self.of_cell(cell)).config_file)
        except ConfigError:
            return stated
        return _known(stated, begun, given) if isinstance(begun, dict) else stated

    def is_finished(self, cell: Cell) -> bool:
        """Whether a cell is finished, and from what it would be made from now.

        Raises DataError if its results are damaged.
        """
        results = self.of_cell(cell) / RESULTS
        shared = self.runs[cell.task.name].folder
        if results not in self.manifest or not (shared / "evaluation/reference.parquet").exists():
            return False
        stage = self.stage(cell)
        return stage.is_current(results) and stage.has(results)

    def finish(self, cell: Cell) -> None:
        """List a cell as finished."""
        with self.stage(cell).recording(self.of_cell(cell) / RESULTS):
            pass  # the cell has written it already


def _known(values: Mapping, begun: Mapping, given: Mapping) -> dict:
    """`values` without the keys that are neither in `begun` nor `given`, also inside sections."""
    known = {}
    for key, value in values.items():
        former, own = begun.get(key), given.get(key)
        if isinstance(value, dict) and isinstance(former, dict):
            known[key] = _known(value, former, own or {})
        elif key in begun or key in given:
            known[key] = value
    return known
