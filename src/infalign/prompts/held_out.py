"""The prompts of a run: those to train on, and others to evaluate on."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil

from infalign.config import Config, Prompts
from infalign.errors import DataError

from .ids import share_of
from .load import load_prompts, read_table, say, table_of
from .prompt import Prompt
from .table import Table

__all__ = ["RunPrompts", "held_out", "run_prompts"]


@dataclass(frozen=True)
class RunPrompts:
    """The training and test prompts of a configuration, read when they are needed.

    If the source of the training prompts has no rows of the test split, part of the training split
    is held out: every prompt whose hash falls below `prompts.test_fraction`. So a prompt stays on
    its side when other rows are added, and prompts of the same text are on the same side. What was
    decided is logged.

    Both raise DataError as `load_prompts`, and if the division leaves nothing on one side.
    """

    config: Config

    @cached_property
    def train(self) -> list[Prompt]:
        """The prompts to calibrate and to train on."""
        if self._divided is not None:
            return self._divided[0]
        return self._read(self.config.prompts)

    @cached_property
    def test(self) -> list[Prompt]:
        """The prompts to evaluate on."""
        if self._divided is not None:
            return self._divided[1]
        return self._read(self.config.test_prompts)

    @property
    def held_out(self) -> bool:
        """Whether the test prompts are a part of the training split that is held out."""
        return self._divided is not None

    @property
    def undivided(self) -> list[Prompt]:
        """The training prompts, and those of their split that are held out."""
        return [*self.train, *(self._divided[1] if self._divided else ())]

    def _read(self, source: Prompts) -> list[Prompt]:
        if self._table is None:
            return load_prompts(source, self.config.folder)
        loaded = read_table(self._table, self._table.rows(source.split, source.limit), source)
        say(self._table.name, loaded.notes)
        return loaded.prompts

    @cached_property
    def _table(self) -> Table | None:
        """The one source of both, or None."""
        source, other = self.config.prompts, self.config.test_prompts
        sliced = any(c in s.split for s in (source, other) for c in "[+")  # such as train[:1000]
        same = (source.file, source.dataset, source.config) == (
            other.file,
            other.dataset,
            other.config,
        )
        return table_of(source, self.config.folder) if same and not sliced else None

    @cached_property
    def _divided(self) -> tuple[list[Prompt], list[Prompt]] | None:
        """The two sides of a training split, part of which is held out; None for other sources."""
        source, other, table = self.config.prompts, self.config.test_prompts, self._table
        if table is None:
            return None
        rows = table.rows(source.split)
        stated = "split" in self.config.evaluate.prompts.model_fields_set
        if not _is_divided(table, source, other, stated):
            return None
        loaded = read_table(table, rows, source)
        shares = [share_of(prompt.messages) for prompt in loaded.prompts]
        sides: tuple[list[Prompt], list[Prompt]] = [], []
        for prompt, share in zip(loaded.prompts, shares, strict=True):
            sides[share < source.test_fraction].append(prompt)
        if not all(sides):
            raise _too_few(table, source.test_fraction, shares)
        number = f"{len(sides[1])} of {len(shares)} ({len(sides[1]) / len(shares):.0%})"
        cause = "" if other.split == source.split else f"there is no split {other.split!r}, so "
        held = f"{cause}{number} are held out for evaluation by a hash of their text"
        say(table.name, [*loaded.notes, f"{held} (`prompts.test_fraction`)"])
        return sides[0][: source.limit], sides[1][: other.limit]


def held_out(prompts: Sequence[Prompt], fraction: float) -> list[Prompt]:
    """The part of the prompts that a run with `prompts.test_fraction` holds out for evaluation.

    - `fraction`: 1 is all of them.

    Raises DataError if it is empty.
    """
    own = [prompt for prompt in prompts if share_of(prompt.messages) < fraction]
    if not own:
        raise DataError(
            f"A share of {fraction:g} of {len(prompts)} prompts holds none out for evaluation. "
            "Give more prompts, or a larger share."
        )
    return own


def run_prompts(config: Config) -> RunPrompts:
    """The prompts of a run, from its configuration."""
    return RunPrompts(config)


def _is_divided(table: Table, source: Prompts, other: Prompts, stated: bool) -> bool:
    """Whether the test split must be made. A split with a name of its own must exist."""
    if other.split == source.split:
        return True
    if table.has(other.split):
        return False
    others = [s for s in table.parts if s not in (None, source.split)]
    if others or (stated and other.split != "test"):
        splits = (
            f"; its splits are {table.described_splits()}" if table.parts.keys() - {None} else ""
        )
        raise DataError(
            f"{table.name} has no split {other.split!r} for evaluation{splits}. Name one with "
            f"`evaluate.prompts.split`; {source.split} holds out part of the training prompts."
        )
    return True


def _too_few(table: Table, fraction: float, shares: list[float]) -> DataError:
    """The error for a division that leaves one side empty, with a fraction that does not."""
    ordered = sorted(set(shares))
    lacking = "evaluate" if ordered[0] >= fraction else "train"
    works = ceil(1000 * ordered[max(0, len(ordered) // 10 - 1)] + 1) / 1000
    possible = len(ordered) > 1 and works <= ordered[-1]
    return DataError(
        f"{table.name} has no split for evaluation, and a share of {fraction:g} of its "
        f"{len(shares)} prompts leaves none to {lacking} on. "
        + (f"Set `prompts.test_fraction` to {works:g}" if possible else "Add prompts")
        + ", or name other prompts with `evaluate.prompts`."
    )
