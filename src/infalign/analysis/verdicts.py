"""Verdicts of judges from the files that people have: who has won, of two responses to a prompt.

One row is one answer of a judge. The forms are known by their columns: two policies and a winner
(Chatbot Arena, or a table of one's own), two games with the sides exchanged (MT-bench and
Arena-Hard), annotations of alpaca_eval, and the verdicts that `infalign evaluate` stores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from infalign import _check
from infalign._look import Shown
from infalign.errors import ArgumentError, DataError

from .length_units import differences_in_one_unit
from .reading import selected_rows
from .rows import rows_of
from .verdict_forms import USUAL, form_of

__all__ = ["Verdicts", "join_verdicts", "read_verdicts"]


@dataclass(frozen=True, eq=False)
class Verdicts(Shown):
    """Answers of judges, one entry each."""

    prompts: tuple[str, ...] = field(repr=False)
    """Ids of the prompts."""

    pairs: tuple[str, ...] = field(repr=False)
    """Name of the pair of responses among those of its prompt and its two policies."""

    first: tuple[str, ...] = field(repr=False)
    second: tuple[str, ...] = field(repr=False)
    """The policies whose responses were compared."""

    judges: tuple[str, ...] = field(repr=False)

    outcomes: np.ndarray = field(repr=False)
    """1 where `first` wins, 0 where `second` does, ½ for a tie, nan for an invalid answer."""

    ordered: np.ndarray = field(repr=False)
    """Whether the judge has read the response of `first` before the other one; where not, the
    order is unknown."""

    differences: np.ndarray = field(repr=False)
    """Length of the response of `first` minus that of `second`; nan if unknown."""

    reference: str | None = None
    """The reference, where the source names one."""

    notes: tuple[str, ...] = ()

    length_unit: str | None = None
    """Unit of all lengths, such as characters or tokens; None if there are none."""

    @property
    def policies(self) -> tuple[str, ...]:
        """All policies in the order in which they occur."""
        return tuple(
            dict.fromkeys(n for both in zip(self.first, self.second, strict=True) for n in both)
        )

    def _facts(self):
        return {
            "verdicts": len(self.prompts),
            "invalid": int(np.isnan(self.outcomes).sum()),
            "prompts": len(set(self.prompts)),
            "policies": self.policies,
            "judges": tuple(dict.fromkeys(self.judges)),
        }


def read_verdicts(
    source: str,
    *,
    columns: Mapping[str, str] | None = None,
    where: Mapping[str, str] | None = None,
    reference: str | None = None,
    judge: str = "judge",
) -> Verdicts:
    """Verdicts from files: JSON Lines, JSON, CSV, TSV or Parquet.

    - `source`: a file, a folder, a pattern, or `-` for standard input.
    - `columns`: role, such as `verdict` → column. Default: by usual names.
    - `where`: column → value: only rows with it are read.
    - `reference`, `judge`: their names in sources that do not name them, such as Arena-Hard.

    Raises DataError with file and line for what cannot be read.
    """
    roles = _check.mapping("columns", columns or {})
    unknown = next((role for role in roles if role not in USUAL), None)
    if unknown is not None:
        raise ArgumentError(
            "columns", f"must name {', '.join(USUAL)}; got {_check.short(unknown)}."
        )
    rows = selected_rows(list(rows_of(source)), where or {}, source)
    present = dict.fromkeys(name for row in rows for name in row.values)
    for role, column in roles.items():
        if column not in present:
            raise DataError(
                f"{rows[0].file} has no column {_check.short(column)} (for the {role})."
                f"{_check.nearest(column, present)}"
            )
    own = {r: next((n for n in names if n in present), None) for r, names in USUAL.items()}
    own |= roles
    form = form_of(present, own, rows[0].file)
    answers = [a for row in rows for a in form.read(row, own, (reference or "reference", judge))]
    same = next((a for a in answers if a.first == a.second), None)
    if same is not None:
        raise DataError(
            f"{source}: prompt {_check.short(same.prompt)} compares {_check.short(same.first)} "
            "with itself. Name the two policies differently."
        )
    if form.reference == "unnamed":
        reference = reference or "reference"
    elif form.reference == "second":
        seconds = {a.second for a in answers}
        reference = reference or (seconds.pop() if len(seconds) == 1 else None)
    lengths = differences_in_one_unit([a.lengths for a in answers])
    return Verdicts(
        prompts=tuple(a.prompt for a in answers),
        pairs=tuple(a.pair for a in answers),
        first=tuple(a.first for a in answers),
        second=tuple(a.second for a in answers),
        judges=tuple(a.judge for a in answers),
        outcomes=np.array([a.outcome for a in answers]),
        ordered=np.array([a.ordered for a in answers]),
        differences=lengths.values,
        reference=reference,
        notes=(form.words, *filter(None, [lengths.note])),
        length_unit=lengths.unit,
    )


def join_verdicts(several: Sequence[Verdicts]) -> Verdicts:
    """Verdicts of several sources, such as one file for each judge, as one.

    Lengths are left out, with a note, if the sources have them in different units.
    """
    several = [
        _check.instance("several", v, Verdicts, "a list of `Verdicts`")
        for v in _check.entries("several", several)
    ]
    if not several:
        raise ArgumentError("several", "must hold at least one; got none.")
    references = {v.reference for v in several}
    notes = dict.fromkeys(note for v in several for note in v.notes)
    differences = np.concatenate([v.differences for v in several])
    units = dict.fromkeys(v.length_unit for v in several if np.isfinite(v.differences).any())
    if len(units) > 1:
        differences = np.full_like(differences, np.nan)
        shown = " and ".join(unit or "a unit without a name" for unit in units)
        notes[f"lengths are left out: the sources have them in {shown}"] = None
    return Verdicts(
        prompts=tuple(p for v in several for p in v.prompts),
        pairs=tuple(p for v in several for p in v.pairs),
        first=tuple(p for v in several for p in v.first),
        second=tuple(p for v in several for p in v.second),
        judges=tuple(j for v in several for j in v.judges),
        outcomes=np.concatenate([v.outcomes for v in several]),
        ordered=np.concatenate([v.ordered for v in several]),
        differences=differences,
        reference=references.pop() if len(references) == 1 else None,
        notes=tuple(notes),
        length_unit=next(iter(units)) if len(units) == 1 else None,
    )
