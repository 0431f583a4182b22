"""The folder of a study, and which of its cells are finished.

study.yaml, manifest.json       the study as resolved; the finished cells
results.json, report.html       what came out, written again after every cell
tasks/TASK/reference/           what the cells of a task share
tasks/TASK/METHOD-klKL-seedS/   a cell: an ordinary run folder

A cell is also finished if it is in the study's archive, which may be all that there is of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from infalign import storage
from infalign._look import Shown
from infalign.comparison.comparison import SELECTING
from infalign.comparison.measured import AbstractMeasured, Measured
from infalign.config import Cell, Grid, StudyTask
from infalign.config.documents import read_document
from infalign.decoding.selection import Decoder
from infalign.errors import ConfigError, DataError
from infalign.manifest import Manifest, Stage
from infalign.models.fingerprints import judge_parts, reward_fingerprint
from infalign.models.functions import beside
from infalign.pipeline.costs import making, spent
from infalign.pipeline.folder import Run
from infalign.pipeline.inputs import unread_training
from infalign.prompts import fingerprint
from infalign.stores.manifest import NAME, read_manifest

from .archive import KL, Archive, ArchivedCell, Ranks, ranks_of
from .shared import REFERENCE

__all__ = ["RESULTS", "StudyFolder"]

FIRST = "study.yaml"
"""The first file of a study; a folder that contains it is one."""

RESULTS = Path("evaluation", "results.json")
"""The last file of a cell."""

PROVENANCE = "provenance.json"
"""The file of a run that has its versions."""

STAGE = "compare"


@dataclass(frozen=True)
class StudyFolder(Shown):
    """A study, the folder that its results go to, and the archive of its finished cells."""

    grid: Grid
    folder: Path
    archive: Archive | None = None

    def require(self) -> None:
        """Raise ConfigError unless the folder holds a study or is empty, and if a task cannot be
        archived; DataError if the archive lacks cells and cannot be written."""
        if self.archive is not None:
            if not all(self.archive.path(cell).exists() for cell in self.grid.cells):
                self.archive.require()
            for task in self.tasks:
                self.archive.require_ranks(task, self.pairs(task))
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

    def pairs(self, task: StudyTask) -> Mapping[str, tuple[Decoder, Decoder]]:
        """Spec → how policy and reference are decoded, as the task's configuration says."""
        with beside(task.folder):
            return self.runs[task.name].compared(()).pairs

    def stage(self, cell: Cell) -> Stage:
        """What a finished cell was made from; needs what its task shares."""
        configuration = {"configuration": storage.fingerprint(self._stated(cell))}
        shared = self._shared(cell.task) | self._judged_by(cell.task)
        return Stage(self.manifest, STAGE, configuration | shared)

    def has_shared(self, task: StudyTask) -> bool:
        """Whether what the cells of a task share is there."""
        return self._reference(task).exists()

    def _reference(self, task: StudyTask) -> Path:
        return self.runs[task.name].folder / "evaluation" / "reference.parquet"

    def _shared(self, task: StudyTask) -> dict[str, str]:
        """Fingerprints of what the cells of a task share."""
        run = self.runs[task.name]
        return {
            "content": storage.fingerprint(run.fingerprints),
            "calibration": storage.sha256(run.store_path / NAME)[:16],
            "reference": storage.sha256(self._reference(task))[:16],
        }

    def _drawn(self, task: StudyTask) -> dict[str, str]:
        """Fingerprints of the models and responses that the cells of a task share. Rewards are not
        among them: the same reward of the same response may be rounded differently elsewhere."""
        shared = self._shared(task)
        key = (task.name, *shared.values())
        if key not in self._known_drawn:
            store = self.runs[task.name].store_path
            files = {
                "calibration": [store / own["file"] for own in read_manifest(store)["samples"]],
                "reference": [self._reference(task)],
            }
            own = {name: _responses(paths) for name, paths in files.items() if paths}
            self._known_drawn[key] = {**shared, **own, **self._judged_by(task)}
        return self._known_drawn[key]

    def _judged_by(self, task: StudyTask) -> dict[str, str]:
        """Fingerprints of the held-out prompts, in their order, of the gold rewards and of the
        judge, as they are when this is first asked."""
        if task.name not in self._known_judged_by:
            self._known_judged_by[task.name] = self._read_judged_by(task)
        return self._known_judged_by[task.name]

    def _read_judged_by(self, task: StudyTask) -> dict[str, str]:
        run, config = self.runs[task.name], task.config
        loading: dict[str, Any] = {
            "dtype": config.dtype,
            "trust_remote_code": config.trust_remote_code,
        }
        golds, asked = config.evaluate.gold, run.test_prompts
        with beside(task.folder):
            read = {n: fingerprint(asked, spec) for n, spec in run.compared().rewards.items()}
            scored = {f"gold {n}": reward_fingerprint(spec, **loading) for n, spec in golds.items()}
            if (judge := config.evaluate.judge) is not None:
                scored["judge"] = storage.fingerprint(judge_parts(judge, **loading))
        return {"held-out prompts": storage.fingerprint([[p.id for p in asked], read]), **scored}

    @cached_property
    def _known_judged_by(self) -> dict[str, dict[str, str]]:
        return {}

    @cached_property
    def _known_drawn(self) -> dict[tuple[str, ...], dict[str, str]]:
        return {}

    def _stated(self, cell: Cell, begun: object = None) -> dict:
        """The keys of a cell. Two kinds are as they were when it began, so that neither makes it
        again: those that its version did not have, if they have their defaults now; and those under
        `train` that its method does not read.

        - `begun`: the keys with which it began. Default: those in its folder.
        """
        not_asked = {"trust_remote_code"}
        stated = cell.config.model_dump(mode="json", exclude=not_asked, exclude_none=True)
        given = cell.config.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
        if begun is None:
            try:
                begun = read_document(Run(cell.config, self.of_cell(cell)).config_file)
            except ConfigError:
                return stated
        if not isinstance(begun, dict):
            return stated
        known = _known(stated, begun, given)
        if isinstance(former := begun.get("train"), dict):
            unread = unread_training(cell.config.train, cell.method)
            names = {key.removeprefix("train.") for key in unread}
            read = {name: value for name, value in known["train"].items() if name not in names}
            known["train"] = read | {name: former[name] for name in names if name in former}
        return known

    def due(self) -> list[Cell]:
        """The cells that are not finished."""
        return [cell for cell in self.grid.cells if not self.is_finished(cell)]

    def is_finished(self, cell: Cell) -> bool:
        """Whether a cell is finished, and from what it would be made from now.

        Raises DataError if its results are damaged, and the errors of `archived`.
        """
        return self.archived(cell) is not None or self.is_in_folder(cell)

    def is_in_folder(self, cell: Cell) -> bool:
        """Whether the folder has the finished cell."""
        results = self.of_cell(cell) / RESULTS
        if results not in self.manifest or not self.has_shared(cell.task):
            return False
        stage = self.stage(cell)
        return stage.is_current(results) and stage.has(results)

    def archived(self, cell: Cell) -> ArchivedCell | None:
        """What the archive has of a cell; None if it has nothing.

        Raises ConfigError if the cell was made with other settings, and DataError if it was made
        from something else than what its task shares now.
        """
        if self.archive is None or (known := self.archive.read(cell)) is None:
            return None
        path = self.archive.path(cell)
        storage.require_same(
            known.configuration,
            self._stated(cell, known.configuration),
            f"{path} comes from other settings:",
            "Name another archive, or restore those values.",
        )
        if self.has_shared(cell.task):
            storage.require_same(
                known.made_from,
                self._drawn(cell.task),
                f"{path} was not made from the models and samples that task {cell.task.name} has "
                "now:",
                "Name another archive; its cells are then made from these.",
                error=DataError,
            )
        return known

    def require_one_origin(self, task: StudyTask) -> None:
        """Raise DataError if archived cells of a task come from different samples."""
        cells = ((cell, self.archived(cell)) for cell in task.cells)
        known = [(cell, own) for cell, own in cells if own is not None]
        for cell, own in known[1:]:
            storage.require_same(
                known[0][1].made_from,
                own.made_from,
                f"The archived cells {known[0][0].path} and {cell.path} do not come from the same "
                "models and samples:",
                "Keep the cells of one origin.",
                error=DataError,
            )

    def finish(self, cell: Cell) -> None:
        """List a cell as finished."""
        with self.stage(cell).recording(self.of_cell(cell) / RESULTS):
            pass  # the cell has written it already

    def add_to_archive(self, cell: Cell) -> None:
        """Archive a finished cell, unless it is archived."""
        if self.archive is None or self.archived(cell) is not None:
            return
        measured = self.measured(cell)
        rewards = [SELECTING, *cell.config.evaluate.gold]
        kls = measured.column(cell.method, KL)
        known = ~np.isnan(kls)
        kl = np.where(known, kls, 0).sum(1) / np.where(known.any(1), known.sum(1), np.nan)
        ranks = Ranks(cell.method, ranks_of(measured, cell.method, rewards), kl)
        own, made = self.summary(cell), self.made(cell)
        drawn = self._drawn(cell.task)
        self.archive.write(cell, ArchivedCell(self._stated(cell), drawn, own, made, ranks))

    def measured(self, cell: Cell) -> AbstractMeasured:
        """The numbers of a finished cell's samples."""
        known = self.archived(cell)
        if known is not None:
            return known.samples
        with beside(cell.task.folder):
            comparison = self.runs[cell.task.name].compared()
        own = replace(comparison, policies={cell.method: cell.method})
        return Measured(own, Manifest(self.of_cell(cell) / "evaluation"))

    def summary(self, cell: Cell) -> Mapping[str, Any]:
        """What the results of a finished cell say of its policy: its KL, its win rates, those of
        theory, and the share of the KL that moved quantiles."""
        known = self.archived(cell)
        if known is not None:
            return known.summary
        (policy,) = storage.read_json(self.of_cell(cell) / RESULTS)["policies"]
        return {
            "kl": policy["kl"] and policy["kl"]["value"],
            "win_rates": {spec: rate["value"] for spec, rate in policy["win_rates"].items()},
            "theory": policy.get("theory", {}),
            "kl_efficiency": policy.get("kl_efficiency"),
        }

    def made(self, cell: Cell) -> Mapping[str, Any]:
        """Where, when and with what a finished cell was made, as far as it was noted."""
        known = self.archived(cell)
        if known is not None:
            return known.made
        folder = self.of_cell(cell)
        noted = making(folder)
        said = folder / PROVENANCE
        return {
            "began": noted.began and noted.began.isoformat(timespec="seconds"),
            "ended": noted.ended and noted.ended.isoformat(timespec="seconds"),
            "machines": list(noted.machines),
            "seconds": round(sum(spent(folder).values()), 1),
            "versions": storage.read_json(said).get("versions", {}) if said.exists() else {},
            "dtype": self.runs[cell.task.name].fingerprints.get("dtype"),
        }


def _responses(files: Sequence[Path]) -> str:
    """Fingerprint of stored responses, in whichever order and files they are."""
    columns = ["prompt_id", "sample", "completion"]
    rows = [row for file in files for row in storage.read_table(file).select(columns).to_pylist()]
    return storage.fingerprint(sorted([row[name] for name in columns] for row in rows))


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
