"""The table of one policy's samples, which grows: a row for each prompt and number of sample.

A table holds exactly the rows that a comparison asks for. Rows of the same policy and settings that
it does not ask for wait in `replaced/` until they are asked for again, and only rows that exist
nowhere are drawn. A column that comes from another reward or reference than now is set aside under
a name of its own, `COLUMN@…`, in the same table.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infalign import _progress, storage
from infalign._look import Shown
from infalign.prompts import CHECKSUM, Prompt, checksum, fingerprint
from infalign.stores.resumable import Origin, ResumableTable, Source

__all__ = ["SampleTable", "aligned", "law", "read_of"]

READ = "#read"


def read_of(column: str) -> str:
    """The column of checksums of what a reward has read of a prompt beside the messages."""
    return f"{column}{READ}"


Rows = tuple[pa.Table, Origin]
"""Rows, and what they come from."""


def law(settings: Mapping[str, object]) -> dict[str, object]:
    """The settings that rows follow from. The size of batches changes none but for rounding."""
    own = {name: settings[name] for name in ("sampling", "seed") if name in settings}
    if isinstance(sampling := own.get("sampling"), Mapping):
        own["sampling"] = {k: v for k, v in sampling.items() if k != "batch_size"}
    return storage.as_json(own)


@dataclass(frozen=True)
class SampleTable(Shown):
    """The rows of one policy: which are stored, which are missing, and how they are completed."""

    table: ResumableTable
    prompts: Sequence[Prompt]
    samples: int
    reads: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Column of each reward → checksums of what it may read of the prompts beside the messages;
    empty if that is nothing."""

    def stored(self, wanted: Origin) -> Rows | None:
        """All stored rows, with the columns that `wanted` describes under their plain names; None
        if there are none."""
        files = self._files()
        return self._joined([self._read(file, wanted) for file in files]) if files else None

    def origin(self) -> Origin | None:
        """What the stored rows come from; None if there are none."""
        files = self._files()
        origins = [Origin.of(self.table.manifest.made_from(file) or {}) for file in files]
        if not origins:
            return None
        first, *others = origins
        sources = {
            key: source
            for key, source in first.sources.items()
            if all(key in o.sources and o.sources[key].parts == source.parts for o in others)
        }
        return Origin(law(first.settings), sources)

    def missing(self) -> list[tuple[int, list[int]]]:
        """What has to be drawn, apart from rows that are set aside: the number of the first missing
        sample, and the indices of the prompts that lack the samples from there."""
        files = self._files()
        rows = [self._identities(file) for file in files]
        return self._missing(pa.concat_tables(rows) if rows else None)

    def is_exact(self) -> bool:
        """Whether the finished table has all rows that are asked for and no others."""
        if self._files() != [self.table.path]:
            return False
        rows = self._identities(self.table.path)
        return not self._missing(rows) and len(rows) == len(self.prompts) * self.samples

    def needed(self, wanted: Origin) -> tuple[list[str], int, int]:
        """What the table lacks: the nouns of what has changed if all rows are drawn again, and the
        numbers of rows to be drawn and to be scored by a reward again."""
        stored, pool = self.stored(wanted), self._at(self._aside(wanted), wanted)
        changed = [] if stored is None else self._changed(stored[1], wanted)
        own = [] if stored is None or changed else [stored]
        if not own and not pool:
            return changed, len(self.prompts) * self.samples, 0
        rows, _ = self._joined([*own, *pool])
        drawn = sum(len(places) * (self.samples - first) for first, places in self._missing(rows))
        asked = rows.filter(self._asked(rows))
        scored = 0
        for key in wanted.sources:
            if key.startswith("reward"):
                scored += asked[key].null_count if key in asked.column_names else len(asked)
        return changed, drawn, scored

    def arrange(self, wanted: Origin) -> tuple[list[str], Path | None]:
        """Set rows aside that are not asked for, and bring back those that are.

        Returns the nouns of what has changed if all rows were set aside, and their file.
        """
        self.table.finished()  # a file that was removed is named
        stored, aside, changed = self.stored(wanted), None, []
        if stored is not None:
            changed = self._changed(stored[1], wanted)
            if changed:
                aside = self._aside(stored[1])
                self._record(aside, *self._joined([*self._at(aside, wanted), stored]))
                self.table._remove(*self._files())
                stored = None
        own = [] if stored is None else [stored]
        pool = self._aside(wanted)
        there = self._at(pool, wanted)
        needed = bool(there) and self._adds(there[0][0], own)
        if not needed and not (own and self._spare(own[0][0])):
            return changed, aside
        rows, origin = self._joined([*own, *there])
        inside = self._asked(rows)
        # The pool has all rows until the others are stored: a kill in between loses none.
        self._record(pool, rows, origin)
        self.table._remove(*self._files())
        self._record(self.table._part(0), self._sorted(rows.filter(inside)), origin)
        rest = rows.filter(pc.invert(inside))
        if len(rest):
            self._record(pool, rest, origin)
        else:
            self.table._remove(pool)
        return changed, aside

    def draw(
        self,
        size: int,
        make: Callable[[list[int], int, int], pa.Table],
        origin: Origin,
        report: Callable[[int, int], None],
    ) -> None:
        """Write the missing rows, about `size` rows at a time.

        - `make`: a function from indices of prompts, the number of their first missing sample and
          the number of the part to the rows.
        - `report`: called with the number of prompts done and the total.
        """
        missing, total = self.missing(), len(self.prompts)
        left = sum(len(places) for _, places in missing)
        number = len(self.table._left_parts())
        for first, places in missing:
            each = max(1, size // (self.samples - first))
            for start in range(0, len(places), each):
                some = places[start : start + each]
                report(total - left, total)
                part = self._free_part(number)
                with _progress.part(total - left, total - left + len(some), total):
                    rows = make(some, first, number)
                self._record(part, rows, origin)
                number, left = number + 1, left - len(some)
        report(total, total)

    def finish(self, rows: pa.Table, origin: Origin) -> None:
        """Write the finished table, if it differs from the stored one."""
        self._record(self.table.path, self._sorted(rows), origin)
        self.sweep()

    def sweep(self) -> None:
        """Remove the parts that a kill left beside the finished table."""
        self.table._remove(*self.table._left_parts())

    @cached_property
    def checksums(self) -> dict[str, str]:
        """Checksum of each prompt."""
        return {p.id: checksum(p) for p in self.prompts}

    def _files(self) -> list[Path]:
        """The finished table and the parts that were written after it, or the parts alone."""
        path = self.table.path
        own = [path] if path in self.table.manifest and path.exists() else []
        parts = [p for p in self.table._left_parts() if p in self.table.manifest and p.exists()]
        return [*own, *parts]

    def _free_part(self, number: int) -> Path:
        while (part := self.table._part(number)).exists():
            number += 1
        return part

    def _at(self, path: Path, wanted: Origin) -> list[Rows]:
        there = path in self.table.manifest and path.exists()
        return [self._read(path, wanted)] if there else []

    def _read(self, file: Path, wanted: Origin) -> Rows:
        self.table.manifest.require(file)
        origin = Origin.of(self.table.manifest.made_from(file) or {})
        rows = self._with_checksums(storage.read_table(file), origin)
        own = Origin(law(origin.settings), origin.sources)
        rows, origin = aligned(rows, own, wanted, self.table)
        return self._fresh(rows), origin

    def _fresh(self, rows: pa.Table) -> pa.Table:
        """The rows without the rewards of prompts of which the reward reads something else now."""
        for column in rows.column_names:
            if column not in self.reads:
                continue
            now = self.reads[column]
            names = rows.column_names
            if not now and read_of(column) not in names:
                continue
            ids, asked = rows["prompt_id"].to_pylist(), rows[CHECKSUM].to_pylist()
            then = (
                rows[read_of(column)].to_pylist() if read_of(column) in names else [None] * len(ids)
            )
            # Of prompts that are not asked for now, nothing is known to have changed.
            same = [
                now.get(i) == own or self.checksums.get(i) != mark
                for i, own, mark in zip(ids, then, asked, strict=True)
            ]
            nothing = pa.scalar(None, rows[column].type)
            values = pc.if_else(pa.array(same, pa.bool_()), rows[column], nothing)
            rows = rows.set_column(names.index(column), column, values)
        return rows

    def _identities(self, file: Path) -> pa.Table:
        """Prompt, number and checksum of every row."""
        self.table.manifest.require(file)
        origin = Origin.of(self.table.manifest.made_from(file) or {})
        rows = self._with_checksums(storage.read_table(file), origin)
        return rows.select(["prompt_id", "sample", CHECKSUM])

    def _with_checksums(self, rows: pa.Table, origin: Origin) -> pa.Table:
        """The rows with checksums of their prompts. Former versions wrote one fingerprint of all
        prompts; if it fits, the prompts are the same, and otherwise they are not known."""
        if CHECKSUM in rows.column_names:
            return rows
        ids = rows["prompt_id"].to_pylist()
        there = set(ids)
        own = [p for p in self.prompts if p.id in there]
        same = fingerprint(own) == origin.settings.get("prompts")
        known = self.checksums if same else {}
        column = pa.array([known.get(i, "unknown") for i in ids], pa.string())
        return rows.append_column(CHECKSUM, column)

    def _changed(self, stored: Origin, wanted: Origin) -> list[str]:
        """The nouns of what the rows come from and that has changed."""
        parts = stored.changes(wanted).get(self.table.rows_from, [])
        ours, theirs = stored.settings, law(wanted.settings)
        words = {"sampling": "sampling settings"}
        return [*parts, *(words.get(n, n) for n in theirs if ours.get(n) != theirs[n])]

    def _asked(self, rows: pa.Table) -> pa.Array:
        """Which rows are asked for."""
        known, n = self.checksums, self.samples
        names = (rows[name].to_pylist() for name in ("prompt_id", "sample", CHECKSUM))
        inside = [known.get(i) == own and k < n for i, k, own in zip(*names, strict=True)]
        return pa.array(inside, pa.bool_())

    def _spare(self, rows: pa.Table) -> bool:
        return not pc.all(self._asked(rows), min_count=0).as_py()

    def _adds(self, more: pa.Table, own: Sequence[Rows]) -> bool:
        """Whether rows that are asked for are among `more` alone."""
        asked = more.filter(self._asked(more))
        have = set().union(*(_keys(rows) for rows, _ in own))
        return bool(_keys(asked) - have)

    def _missing(self, rows: pa.Table | None) -> list[tuple[int, list[int]]]:
        numbers: dict[str, set[int]] = {}
        if rows is not None:
            asked = rows.filter(self._asked(rows))
            for i, k in zip(
                asked["prompt_id"].to_pylist(), asked["sample"].to_pylist(), strict=True
            ):
                numbers.setdefault(i, set()).add(k)
        firsts = []
        for p in self.prompts:
            own = numbers.get(p.id, set())
            firsts.append(next(k for k in range(self.samples + 1) if k not in own))
        due = [place for place, first in enumerate(firsts) if first < self.samples]
        due.sort(key=lambda place: (firsts[place], place))
        return [(first, list(own)) for first, own in groupby(due, lambda place: firsts[place])]

    def _joined(self, parts: Sequence[Rows]) -> Rows:
        """Rows of several files together, each once; columns that some lack are null there."""
        table = pa.concat_tables([rows for rows, _ in parts], promote_options="default")
        names = (table[name].to_pylist() for name in ("prompt_id", "sample", CHECKSUM))
        seen: dict[tuple, int] = {}
        for at, key in enumerate(zip(*names, strict=True)):
            seen.setdefault(key, at)
        if len(seen) < len(table):
            table = table.take(list(seen.values()))
        sources: dict[str, Source] = {}
        for _, origin in parts:
            sources = {**origin.sources, **sources}
        return table, Origin(parts[0][1].settings, sources)

    def _sorted(self, rows: pa.Table) -> pa.Table:
        """The rows in the order of the prompts and of their numbers."""
        places = {p.id: place for place, p in enumerate(self.prompts)}
        at = np.array([places.get(i, len(places)) for i in rows["prompt_id"].to_pylist()])
        order = np.lexsort((rows["sample"].to_numpy(), at))
        return rows if (np.diff(order) == 1).all() else rows.take(order)

    def _aside(self, origin: Origin) -> Path:
        return self.table._aside(Origin(law(origin.settings), origin.sources))

    def _record(self, file: Path, rows: pa.Table, origin: Origin) -> None:
        self.table._record(file, rows, Origin(law(origin.settings), origin.sources))


def _keys(rows: pa.Table) -> set[tuple[str, int]]:
    names = (rows[name].to_pylist() for name in ("prompt_id", "sample"))
    return set(zip(*names, strict=True))


def aligned(rows: pa.Table, origin: Origin, wanted: Origin, table: ResumableTable) -> Rows:
    """Rows with the columns that come from what `wanted` states under their plain names, and those
    that come from something else under names of their own."""
    renamed, sources = {}, {}
    for key, source in origin.sources.items():
        plain = key.partition("@")[0]
        own = wanted.sources.get(plain)
        if plain == table.rows_from or own is None:
            new = key
        else:
            new = plain if own.parts == source.parts else f"{plain}@{_mark(source)}"
        sources[new] = source
        if new != key and plain != table.rows_from:
            ends = (key.removeprefix(plain), new.removeprefix(plain))
            for column in table._columns(plain):
                renamed[f"{column}{ends[0]}"] = f"{column}{ends[1]}"
    names = [renamed.get(name, name) for name in rows.column_names]
    return rows.rename_columns(names), Origin(origin.settings, sources)


def _mark(source: Source) -> str:
    return storage.fingerprint(dict(source.parts))[:8]
