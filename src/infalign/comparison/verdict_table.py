"""The table of a judge's verdicts on one policy, which grows: a row for each pair of responses.

A verdict belongs to the judge and to what it has read: the prompt, and both responses. Rows whose
pairs are not asked for now wait in `replaced/`, and only pairs that are stored nowhere are judged.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from infalign import _progress, storage
from infalign._look import Shown
from infalign.stores.resumable import Origin, ResumableTable

__all__ = ["PAIR", "VerdictTable"]

PAIR = "pair_checksum"
"""The column of checksums of what the judge has read."""

VERDICTS = ("policy_first", "reference_first")


@dataclass(frozen=True)
class VerdictTable(Shown):
    """The verdicts on the pairs of one policy."""

    table: ResumableTable
    adopted: Callable[[pa.Table, Origin], pa.Table]
    """Gives rows of former versions, which lack checksums, those that they had."""

    def origin(self) -> Origin | None:
        """What the stored verdicts come from, apart from those that are aside; None if there are
        none."""
        files = self._files()
        return self._origin(files[0]) if files else None

    def missing(self, asked: pa.Table, wanted: Origin | None = None) -> list[int]:
        """The rows of `asked` that have no stored verdict; of equal pairs, the first.

        - `asked`: a row for each pair, with its checksum.
        - `wanted`: what the verdicts come from. Default: what the stored ones come from.
        """
        origin = wanted or self.origin()
        seen = set() if origin is None else set(self._rows(origin)[PAIR].to_pylist())
        missing = []
        for at, pair in enumerate(asked[PAIR].to_pylist()):
            if pair not in seen:
                seen.add(pair)
                missing.append(at)
        return missing

    def arrange(self, asked: pa.Table, wanted: Origin) -> tuple[list[str], Path | None]:
        """Set stored rows aside if they come from another judge, or are not exactly those asked.

        Returns the nouns of what has changed of the judge, and the file of its earlier verdicts.
        """
        self.table.finished()  # a file that was removed is named
        nouns: list[str] = []
        aside = None
        for file in self._files():
            own = self._origin(file)
            if file.exists() and (changed := self._changed(own, wanted)):
                nouns, aside = changed, self._shelve(own)
        if self.table.finished() and not self._is(asked):
            self._shelve(wanted)
        return nouns, aside

    def write(
        self,
        asked: pa.Table,
        size: int,
        judge: Callable[[Sequence[int]], pa.Table],
        wanted: Origin,
        report: Callable[[int, int], None],
    ) -> None:
        """Write the table of exactly the pairs asked, `size` of the missing ones at a time.

        - `judge`: a function from rows of `asked` to these rows with their verdicts.
        - `report`: called with the number of pairs done and the total.
        """
        total, missing = len(asked), self.missing(asked, wanted)
        for start in range(0, len(missing), size):
            some, done = missing[start : start + size], total - len(missing) + start
            report(done, total)
            with _progress.part(done, done + len(some), total):
                rows = judge(some)
            self.table._record(self._free_part(), rows, wanted)
        if not (self.table.finished() and self._is(asked)):
            self._finish(asked, wanted)
        self.table._remove(*self.table._left_parts())
        report(total, total)

    def _finish(self, asked: pa.Table, wanted: Origin) -> None:
        """Write the finished table, and leave all other rows aside."""
        rows, pairs, pool = self._rows(wanted), asked[PAIR].to_pylist(), self.table._aside(wanted)
        places = {pair: at for at, pair in enumerate(rows[PAIR].to_pylist())}
        verdicts = rows.take([places[pair] for pair in pairs])
        for column in VERDICTS:
            asked = asked.append_column(column, verdicts[column].cast(pa.float64()))
        self.table._record(self.table.path, asked, wanted)
        spare = sorted(places[pair] for pair in places.keys() - {*pairs})
        if spare:
            self._put_aside(rows.take(spare), wanted)
        elif pool in self.table.manifest:
            self.table._remove(pool)

    def _shelve(self, origin: Origin) -> Path:
        """Put all rows of a judge together aside."""
        pool = self._put_aside(self._rows(origin), origin)
        same = [f for f in self._files() if not self._changed(self._origin(f), origin)]
        self.table._remove(*same)
        return pool

    def _put_aside(self, rows: pa.Table, origin: Origin) -> Path:
        pool = self.table._aside(origin)
        self.table._record(pool, rows, origin)
        return pool

    def _is(self, asked: pa.Table) -> bool:
        """Whether the finished table has exactly the rows that are asked for."""
        self.table.manifest.require(self.table.path)
        rows, names = storage.read_table(self.table.path), asked.column_names
        return {*names} <= {*rows.column_names} and rows.select(names).equals(asked)

    def _rows(self, origin: Origin) -> pa.Table:
        """All rows of a judge, each pair once."""
        pool = self.table._aside(origin)
        files = [f for f in self._files() if not self._changed(self._origin(f), origin)]
        if pool in self.table.manifest and pool.exists():
            files.append(pool)
        tables = [self._read(file) for file in files]
        if not tables:
            return pa.table({name: pa.array([], pa.string()) for name in (PAIR, *VERDICTS)})
        rows = pa.concat_tables(tables)
        first: dict[str, int] = {}
        for at, pair in enumerate(rows[PAIR].to_pylist()):
            first.setdefault(pair, at)
        return rows.take([*first.values()]) if len(first) < len(rows) else rows

    def _read(self, file: Path) -> pa.Table:
        self.table.manifest.require(file)
        rows = storage.read_table(file)
        return rows if PAIR in rows.column_names else self.adopted(rows, self._origin(file))

    def _files(self) -> list[Path]:
        """The finished table, and the parts that were written before or after it."""
        files = (self.table.path, *self.table._left_parts())
        return [file for file in files if file in self.table.manifest and file.exists()]

    def _free_part(self) -> Path:
        number = len(self.table._left_parts())
        while (part := self.table._part(number)).exists() or part in self.table.manifest:
            number += 1
        return part

    def _origin(self, file: Path) -> Origin:
        return Origin.of(self.table.manifest.made_from(file) or {})

    def _changed(self, stored: Origin, wanted: Origin) -> list[str]:
        """The nouns of what has changed of the judge. Former versions noted more than the judge."""
        own = wanted.sources[self.table.rows_from].parts
        return [n for n in stored.changes(wanted).get(self.table.rows_from, []) if n in own]
