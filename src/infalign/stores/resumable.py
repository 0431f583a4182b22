"""Tables that take hours, with rows for every prompt: written in parts, keyed by what they come
from, and replaced only where that has changed.

Every file is listed in the folder's manifest with its `Origin`. A killed command repeats at most
one part. Rows that come from something else are set aside in `replaced/`, where they are used
again if it comes back; columns are made again on the stored rows.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from infalign import _progress, storage
from infalign._look import Shown
from infalign.manifest import Manifest

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Origin", "ResumableTable", "Source"]

LOG = logging.getLogger(__name__)

Report = Callable[[str, int, int], None]
"""Progress: the step, the amount done, and the total."""

PARTS, REPLACED = "parts", "replaced"
"""Folders beside a table: parts of tables that are not finished, and earlier tables."""


@dataclass(frozen=True)
class Source(Shown):
    """One thing that rows or columns come from: a policy, a reward, a judge."""

    parts: Mapping[str, object]
    """The noun of each part, which messages use, and its fingerprint."""

    name: str = ""
    """What a user calls it: an option or a key of the configuration. Without a name, another may
    take its place."""

    spec: str = ""
    """The specification under that name."""


@dataclass(frozen=True)
class Origin(Shown):
    """What a table comes from."""

    settings: Mapping[str, object] = field(default_factory=dict)
    """Settings of the user that all rows depend on. Other settings are refused."""

    sources: Mapping[str, Source] = field(default_factory=dict)
    """By name. One of them gives the rows, the others give columns."""

    @classmethod
    def of(cls, made_from: Mapping) -> "Origin":
        """The origin that an entry of a manifest states."""
        sources = {key: Source(**source) for key, source in made_from["sources"].items()}
        return cls(made_from["settings"], sources)

    @staticmethod
    def is_stated(made_from: Mapping) -> bool:
        """Whether an entry of a manifest states an origin."""
        return made_from.keys() == {"settings", "sources"}

    def to_json(self) -> dict:
        """The origin as an entry of a manifest states it."""
        sources = {
            key: {"parts": dict(s.parts), "name": s.name, "spec": s.spec}
            for key, s in self.sources.items()
        }
        return storage.as_json({"settings": dict(self.settings), "sources": sources})

    def changes(self, wanted: "Origin") -> dict[str, list[str]]:
        """Source → nouns of its parts that are not those of `wanted`; for sources of both."""
        both = [key for key in wanted.sources if key in self.sources]
        different = {
            key: [
                noun
                for noun in dict.fromkeys((*wanted.sources[key].parts, *self.sources[key].parts))
                if self.sources[key].parts.get(noun) != wanted.sources[key].parts.get(noun)
            ]
            for key in both
        }
        return {key: nouns for key, nouns in different.items() if nouns}

    def conflicts(self, wanted: "Origin") -> list[str]:
        """The settings that differ, and the names that now mean something else, as `name value, not
        wanted`. A folder that was moved or a model under another path is still the same."""
        differences = storage.differences(self.settings, storage.as_json(dict(wanted.settings)))
        for key in self.changes(wanted):
            ours, theirs = self.sources[key], wanted.sources[key]
            if theirs.name and ours.spec != theirs.spec:
                differences.append(f"{theirs.name} {ours.spec!r}, not {theirs.spec!r}")
        return differences


@dataclass(frozen=True)
class ResumableTable(Shown):
    """A Parquet file with rows for every prompt, in a folder whose lock the caller holds."""

    manifest: Manifest
    path: Path
    stage: str
    """The stage that writes it, for the manifest."""

    rows_from: str
    """The source that gives the rows."""

    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The columns that come from each further source. Default: the column of the source's name."""

    def finished(self) -> bool:
        """Whether the table has rows of all prompts. A file that was removed is made again."""
        if self.path in self.manifest and not self.path.exists():
            LOG.warning("%s is missing. It is made again.", self.path)
            self.manifest.forget(self.path)
        return self.path in self.manifest

    def files(self) -> list[Path]:
        """The finished table, or the parts that are stored, in the order in which they were
        written."""
        there = self.path in self.manifest and self.path.exists()
        return [self.path] if there else list(self._parts())

    def origin(self) -> Origin | None:
        """What the stored rows come from; None if there are none. Of parts, only what they have in
        common."""
        origins = [Origin.of(self.manifest.made_from(file) or {}) for file in self.files()]
        if not origins:
            return None
        first = origins[0]
        common = {
            key: source
            for key, source in first.sources.items()
            if all(o.sources.get(key, source).parts == source.parts for o in origins)
            and all(key in o.sources for o in origins)
        }
        return Origin(first.settings, common)

    def read(self) -> "pa.Table":
        """The stored rows, with the columns that all files have from the same source."""
        import pyarrow as pa

        files, origin = self.files(), self.origin()
        assert origin is not None, "no rows are stored"
        tables = []
        for file in files:
            self.manifest.require(file)
            table = storage.read_table(file)
            own = Origin.of(self.manifest.made_from(file) or {}).sources
            mixed = [c for key in own if key not in origin.sources for c in self._columns(key)]
            tables.append(table.drop_columns(mixed))
        return pa.concat_tables(tables)

    def renew(self, wanted: Origin) -> tuple[list[str], Path | None]:
        """Set stored rows aside unless they come from the wanted source, and bring back those that
        do.

        Returns the nouns of what has changed, and the path of the rows that were set aside.
        """
        stored, aside, changed = self.origin(), None, []
        if stored is not None:
            changed = stored.changes(wanted).get(self.rows_from, [])
            if changed:
                aside = self._aside(stored)
                self._record(aside, self.read(), stored)
                self._remove(*self.files())
        earlier = self._aside(wanted)
        if (stored is None or changed) and earlier in self.manifest and earlier.exists():
            self.manifest.require(earlier)
            origin = Origin.of(self.manifest.made_from(earlier) or {})
            self._record(self._part(0), storage.read_table(earlier), origin)
            self._remove(earlier)
        return changed, aside

    def write(
        self,
        prompt_ids: Sequence[str],
        size: int,
        make: Callable[[list[int], int], "pa.Table"],
        origin: Origin,
        report: Callable[[int, int], None],
    ) -> None:
        """Write the rows that are missing, `size` prompts at a time.

        - `make`: a function from indices into `prompt_ids` and the number of their part to the rows
          of those prompts, with the column `prompt_id`.
        - `report`: called with the number of prompts done and the total.
        """
        total = len(prompt_ids)
        if not self.finished():
            parts = list(self._parts())
            if self.path.exists() and not parts:
                self.manifest.require(self.path)  # raises: the file is not listed
            known = set(self.read()["prompt_id"].to_pylist()) if parts else set()
            missing = [place for place, i in enumerate(prompt_ids) if i not in known]
            for start in range(0, len(missing), size):
                done = total - len(missing) + start
                report(done, total)
                some = missing[start : start + size]
                with _progress.part(done, done + len(some), total):
                    rows = make(some, done // size)
                parts.append(self._part(len(parts)))
                self._record(parts[-1], rows, origin)
            self._record(self.path, self.read(), self.origin() or origin)
        self._remove(*self._left_parts())
        report(total, total)

    def replace(self, table: "pa.Table", origin: Origin) -> None:
        """Replace a finished table by one with the same rows and other columns."""
        self._record(self.path, table, origin)
        self._remove(*self._left_parts())

    def remove(self) -> None:
        """Remove the table and its parts."""
        self._remove(self.path, *self._left_parts())
        with suppress(OSError):  # a kill may have left the folder without parts
            (self.path.parent / PARTS).rmdir()

    def _columns(self, source: str) -> Sequence[str]:
        return self.columns.get(source, (source,))

    def _record(self, file: Path, table: "pa.Table", origin: Origin) -> None:
        write = partial(storage.save_table, table=table)
        self.manifest.replace(file, write, stage=self.stage, made_from=origin.to_json())

    def _remove(self, *files: Path) -> None:
        # Files first: a kill in between leaves entries without files, which count as missing. The
        # last part first: one without those before it would not be seen, and come back later.
        for file in reversed(files):
            file.unlink(missing_ok=True)
        self.manifest.forget(*files)
        for folder in {file.parent for file in files} - {self.path.parent}:
            if folder.exists() and not any(folder.iterdir()):
                folder.rmdir()

    def _part(self, number: int) -> Path:
        return self.path.parent / PARTS / f"{self.path.stem}-{number:05d}.parquet"

    def _parts(self) -> Iterator[Path]:
        return takewhile(
            lambda part: part in self.manifest and part.exists(), map(self._part, count())
        )

    def _left_parts(self) -> list[Path]:
        """All parts, also those that a kill has left without an entry or without a file."""
        name = re.compile(rf"{re.escape(self.path.stem)}-\d{{5,}}\.parquet")
        folder = self.path.parent / PARTS
        files = folder.iterdir() if folder.exists() else ()
        listed = takewhile(lambda part: part in self.manifest, map(self._part, count()))
        return sorted({*listed, *(file for file in files if name.fullmatch(file.name))})

    def _aside(self, origin: Origin) -> Path:
        key = storage.fingerprint([origin.settings, origin.sources[self.rows_from].parts])
        return self.path.parent / REPLACED / f"{self.path.stem}-{key}.parquet"
