"""Finished cells in small files, to commit or to send, so that a study goes on elsewhere.

ARCHIVE/TASK/METHOD-klKL-seedS.parquet, with a row for each held-out prompt. The procedures of a
study read only the order of rewards. So a file has their ranks among all responses to a prompt,
those of the policy and those of the reference, and neither texts nor weights.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from infalign import disk, storage
from infalign._look import Shown
from infalign.comparison.comparison import REFERENCE, SELECTING
from infalign.comparison.measured import AbstractMeasured
from infalign.comparison.origins import column_of
from infalign.config import Cell, StudyTask
from infalign.core import RankProcedure
from infalign.decoding.selection import Decoder
from infalign.errors import ConfigError, DataError
from infalign.evaluation.chances import selection_chances

__all__ = ["Archive", "ArchivedCell", "Ranks", "ranks_of"]

SCHEMA_VERSION = 2
"""In 1, golds and held-out prompts were not among what a cell was made from."""

POLICY = "policy"
"""In a file: the samples of the cell's policy, beside those of the reference."""

STATED = b"infalign"
"""The key of a file's metadata under which everything but the ranks is, as JSON."""

KL = "kl"

Columns = Mapping[tuple[str, str], np.ndarray]
"""Policy or reference, and reward → ranks, shape (prompts, samples)."""


class Ranks(AbstractMeasured):
    """The order of rewards of a cell's samples; every win rate is that of the rewards.

    - `method`: the name of the policy.
    - `columns`: as `ranks_of` makes them.
    - `kl`: KL of each prompt, nats; nan where it was not measured.
    """

    def __init__(self, method: str, columns: Columns, kl: np.ndarray):
        super().__init__(columns[POLICY, SELECTING].shape)
        self._method, self.columns, self.kl = method, columns, kl

    def column(self, name: str, column: str) -> np.ndarray:
        """Ranks in place of rewards; the KL of each prompt, shape (prompts, 1)."""
        if column == KL:
            return self.kl[:, None]
        whose = POLICY if name == self._method else name
        return next(
            x for (own, r), x in self.columns.items() if (own, column_of(r)) == (whose, column)
        )

    def _selected(self, name: str, procedure: Decoder) -> np.ndarray:
        assert isinstance(procedure, RankProcedure), "others are not archived"
        return selection_chances(self.rewards(name), procedure)


def ranks_of(measured: AbstractMeasured, method: str, rewards: Sequence[str]) -> Columns:
    """The rank of each reward among all responses to a prompt: 0 for the lowest, the same for
    equal rewards. The responses come in the order of the first reward, which procedures select by.
    """
    order = [np.argsort(measured.rewards(n, rewards[0]), axis=1) for n in (method, REFERENCE)]
    columns = {}
    for reward in rewards:
        both = [
            np.take_along_axis(measured.rewards(name, reward), own, axis=1)
            for name, own in zip((method, REFERENCE), order, strict=True)
        ]
        joined = np.concatenate(both, axis=1)
        kind = np.min_scalar_type(max(2**16 - 1, joined.shape[1]))
        ranks = np.array([np.unique(row, return_inverse=True)[1] for row in joined], kind)
        columns[POLICY, reward], columns[REFERENCE, reward] = np.split(ranks, [both[0].shape[1]], 1)
    return columns


@dataclass(frozen=True)
class ArchivedCell(Shown):
    """One finished cell."""

    configuration: Mapping[str, Any]
    """The keys of its configuration."""

    made_from: Mapping[str, str]
    """Fingerprints of everything else that it was made from."""

    summary: Mapping[str, Any]
    """What its own results say: `StudyFolder.summary`."""

    made: Mapping[str, Any]
    """Versions, machines and times: `StudyFolder.made`."""

    samples: Ranks


@dataclass(frozen=True)
class Archive(Shown):
    """The archived cells of a study."""

    folder: Path
    _known: dict[Path, tuple[tuple, ArchivedCell]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def path(self, cell: Cell) -> Path:
        """The file of a cell."""
        return self.folder / cell.task.name / f"{cell.name}.parquet"

    def require(self) -> None:
        """Raise DataError if the archive cannot be written."""
        storage.require_writable(self.folder / "cell")

    def require_ranks(self, task: StudyTask, pairs: Mapping[str, tuple[Decoder, Decoder]]) -> None:
        """Raise ConfigError if a task's results need more than the order of rewards."""
        if task.config.evaluate.judge is not None:
            raise ConfigError(
                f"Task {task.name}: it has a judge (`evaluate.judge`), and an archive has no "
                "verdicts. Run it without --archive."
            )
        for spec, pair in pairs.items():
            if not all(isinstance(procedure, RankProcedure) for procedure in pair):
                raise ConfigError(
                    f"Task {task.name}: {spec} reads more than the order of rewards, and an "
                    "archive has only that. Run it without --archive."
                )

    def read(self, cell: Cell) -> ArchivedCell | None:
        """An archived cell; None if it is not there. Raises DataError for a damaged file."""
        path = self.path(cell)
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        state = (status.st_mtime_ns, status.st_size, status.st_ino)
        if path not in self._known or self._known[path][0] != state:
            self._known[path] = state, _read(path, cell)
        return self._known[path][1]

    def write(self, cell: Cell, archived: ArchivedCell) -> None:
        """Write the file of a cell."""
        import pyarrow as pa

        own = archived.samples
        columns: dict[str, Any] = {
            f"{whose} {reward}": pa.FixedSizeListArray.from_arrays(ranks.ravel(), ranks.shape[1])
            for (whose, reward), ranks in own.columns.items()
        }
        stated = {
            "schema_version": SCHEMA_VERSION,
            "cell": cell.path,
            "configuration": archived.configuration,
            "made_from": archived.made_from,
            "summary": archived.summary,
            "made": archived.made,
        }
        stated["sha256"] = _checksum(stated, own)
        table = pa.table(columns | {KL: own.kl})
        table = table.replace_schema_metadata({STATED: json.dumps(storage.as_json(stated))})
        path = self.path(cell)
        with disk.writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        storage.write_table(path, table)


def _read(path: Path, cell: Cell) -> ArchivedCell:
    table = storage.read_table(path)
    try:
        stated = json.loads(table.schema.metadata[STATED])
        version = stated.pop("schema_version")
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise _foreign(path, cell) from error
    _require_version(path, version)
    try:
        columns = {}
        for name in table.column_names:
            if name != KL:
                whose, reward = name.split(" ")
                values = table[name].combine_chunks()
                flat = values.flatten().to_numpy(zero_copy_only=False)
                columns[whose, reward] = flat.reshape(len(table), -1)
        samples = Ranks(cell.method, columns, table[KL].to_numpy())
        checksum = stated.pop("sha256")
        if stated["cell"] != cell.path or checksum != _checksum(stated, samples):
            raise ValueError
        return ArchivedCell(
            stated["configuration"], stated["made_from"], stated["summary"], stated["made"], samples
        )
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise _foreign(path, cell) from error


def _require_version(path: Path, version: object) -> None:
    if version == SCHEMA_VERSION:
        return
    known = f"{path} has the format {version}, and this version reads {SCHEMA_VERSION}."
    if isinstance(version, int) and version < SCHEMA_VERSION:
        raise DataError(
            f"{known} It does not say all that it was made from. Remove it: the same command "
            "writes it again from the study's folder, and else makes the cell again."
        )
    raise DataError(f"{known} Use the version of infalign that wrote it.")


def _foreign(path: Path, cell: Cell) -> DataError:
    return DataError(
        f"{path} is not what `infalign compare --archive` wrote for {cell.path}. Restore it, or "
        "remove it, and the cell is made again."
    )


def _checksum(stated: Mapping[str, Any], samples: Ranks) -> str:
    """Checksum of all that a file says, but its format."""
    said = {key: value for key, value in stated.items() if key != "schema_version"}
    values = {" ".join(k): storage.fingerprint(v.tolist()) for k, v in samples.columns.items()}
    kl = [repr(value) for value in samples.kl.tolist()]
    return storage.fingerprint({"stated": said, "ranks": values, KL: kl})
