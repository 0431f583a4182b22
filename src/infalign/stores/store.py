"""Calibration stores: reference rewards of every prompt, with their provenance.

A store on disk is a folder: `manifest.json` states its provenance and the Parquet shards that
belong to it (`manifest`, `shards`). Shards are memory-mapped: a store of any size opens at once,
and a look-up reads only the values it compares. Every byte is verified before its first use.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from infalign import _check, storage
from infalign._look import Pictured, Shown, label
from infalign.core import Smoothing, ends
from infalign.errors import ArgumentError, DataError, UnknownPromptError

from . import columns
from .columns import KEY, REWARDS
from .manifest import read_manifest, require_finished
from .ragged import checked_rewards, sort_each, tied_pairs
from .sorted_rewards import SortedRewards, held_rewards, held_values, stored_rewards

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["CalibrationStore"]

LEVELS = (0, 0.1, 0.5, 0.9, 1)
"""Levels of the rewards' quantiles in plots and data frames."""

DRAWN = 200
"""Largest number of prompts in a plot."""

SEARCHED = 10_000
"""Number of ids among which the one most like an unknown id is searched."""

FORMER_SAMPLING = {"temperature", "top_p", "max_new_tokens", "batch_size"}
"""The sampling settings that version 0.1 recorded. It removed white space from every response."""


@dataclass(frozen=True, eq=False)
class CalibrationStore(Shown, Pictured):
    """K sorted reference rewards per prompt; K may differ between prompts.

    Make a store from arrays with `from_rewards`, or from a folder with `open`. Picklable: rewards
    in memory are included; a store on disk is reopened when it is unpickled.
    """

    rewards: SortedRewards
    """Prompt id → sorted reference rewards. Any mapping to sorted rows is accepted."""

    provenance: Mapping[str, object]
    """How the rewards were made; compared by `require`."""

    def __post_init__(self):
        if not isinstance(self.rewards, SortedRewards):
            named = _check.mapping("rewards", self.rewards)
            rows = [_check.numbers("rewards", row) for row in named.values()]
            for prompt_id, row in zip(named, rows, strict=True):
                if row.ndim != 1:
                    raise ArgumentError(
                        "rewards",
                        f"must hold a list of rewards per prompt; got shape {row.shape} at "
                        f"prompt_id {prompt_id!r}.",
                    )
            object.__setattr__(self, "rewards", held_rewards(list(named), rows))
        _check.mapping("provenance", self.provenance)

    def _facts(self) -> dict[str, object]:
        least, most = int(self.rewards.counts.min()), int(self.rewards.counts.max())
        return {
            "prompts": len(self),
            "first": next(iter(self)),
            "samples": least if least == most else (least, most),
            "provenance": self.provenance,
        }

    def _columns(self):
        rows = (
            (name, len(row), *np.quantile(row, LEVELS).tolist(), float(row.mean()))
            for name, row in self.rewards.items()
        )
        names = ("prompt_id", "samples", "min", "q10", "median", "q90", "max", "mean")
        return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))

    def _draw(self, axes):
        some = np.unique(np.linspace(0, len(self) - 1, DRAWN).astype(int))
        levels = np.array([np.quantile(self.rewards.row(int(i)), LEVELS) for i in some])
        low, tenth, median, ninth, high = levels[np.argsort(levels[:, 2])].T
        place = (np.arange(len(some)) + 0.5) / len(some)
        axes.fill_between(place, low, high, alpha=0.2, lw=0, label="all rewards")
        axes.fill_between(place, tenth, ninth, alpha=0.4, lw=0, label="the middle 80 %")
        axes.plot(place, median, label="median")
        axes.legend(frameon=False)
        label(axes, x="share of prompts, by median", y="reference reward")

    def __len__(self) -> int:
        """The number of prompts."""
        return len(self.rewards)

    def __iter__(self) -> Iterator[str]:
        """The prompt ids."""
        return iter(self.rewards)

    def __contains__(self, prompt_id: object) -> bool:
        return isinstance(prompt_id, str) and prompt_id in self.rewards

    def __getitem__(self, prompt_id: str) -> np.ndarray:
        """The sorted reference rewards of a prompt, as an array of its own.

        Raises UnknownPromptError, a DataError and a KeyError, for an id that is not in the store.
        """
        if prompt_id not in self:
            like = _check.nearest(prompt_id, islice(self, SEARCHED))
            raise UnknownPromptError(
                f"prompt_id {_check.short(prompt_id)} is not in the calibration store, which has "
                f"{len(self):,} prompts; list(store) has their ids.{_check.visible(like)}"
            )
        return np.array(self.rewards[prompt_id])

    @classmethod
    def from_rewards(cls, prompt_ids: Sequence[str], rewards, provenance=None):
        """A store in memory.

        - `rewards`: one row per prompt id, shape (prompts, K), or one list each where K differs.
        """
        prompt_ids = _check.texts("prompt_ids", prompt_ids)
        values, counts = checked_rewards("rewards", rewards)
        if provenance is not None:
            _check.mapping("provenance", provenance)
        if len(prompt_ids) != len(counts) or len(set(prompt_ids)) != len(prompt_ids):
            raise ValueError(
                f"`prompt_ids` must be unique, one per row of `rewards`; got {len(prompt_ids)} ids "
                f"({len(set(prompt_ids))} distinct) for {len(counts)} rows."
            )
        values = sort_each(values, counts).astype(float)
        return cls(held_values(list(prompt_ids), values, counts), dict(provenance or {}))

    @classmethod
    def from_dataset(cls, dataset, rewards: str = REWARDS, key: str = KEY, *, provenance=None):
        """A store in memory, from a column of reward lists, one prompt per row, with the rewards in
        any order.

        - `dataset`: a `datasets.Dataset`, or a table that Arrow can read, such as its own or a
          pandas data frame.
        - `key`: the column of prompt ids; integers become strings, as in the prompts of a run.
        - `provenance`: how the rewards were made, for tables that do not record it.

        Raises DataError for missing columns, rows without rewards, rewards that are not finite, and
        duplicate ids. `exchange.import_rewards` makes a store on disk.
        """
        _columns(rewards, key)
        if provenance is not None:
            _check.mapping("provenance", provenance)
        parts, stated = columns.read(dataset, rewards, key)
        blocks = list(columns.blocks(parts, rewards, key))
        if not blocks:
            raise DataError("`dataset` must have at least one row; got none.")
        ids = [prompt_id for own, _, _ in blocks for prompt_id in own.to_pylist()]
        counts, values = (np.concatenate([block[i] for block in blocks]) for i in (1, 2))
        return cls(held_values(ids, values, counts), columns.agreed(stated, provenance))

    def to_table(self, rewards: str = REWARDS, key: str = KEY) -> "pa.Table":
        """Prompt ids and their sorted rewards as lists, a table that `datasets.Dataset` accepts.

        The schema's metadata holds the provenance. `exchange.export_rewards` writes files.
        """
        import pyarrow as pa

        _columns(rewards, key)
        schema, parts = columns.tables(self.rewards, self.provenance, rewards, key)
        return pa.Table.from_batches((b for part in parts for b in part.to_batches()), schema)

    def column(self, prompt_ids: Sequence[str]) -> "pa.ListArray":
        """Sorted rewards of these prompts, in the given order, to be added to a dataset of prompts.

        Raises DataError for unknown prompts.
        """
        positions = self.positions(prompt_ids)
        if not len(positions):
            return columns.as_lists(np.empty(0, self.rewards.dtype), positions)
        rows = [self.rewards.row(int(position)) for position in positions]
        counts = np.fromiter(map(len, rows), np.int64, len(rows))
        values = np.concatenate(rows).astype(self.rewards.dtype)
        return columns.as_lists(values, counts)

    @classmethod
    def open(cls, path, *, verify: bool = False):
        """The store in folder `path`.

        Ids are read and verified now; rewards are verified at their first use.

        - `verify`: read and check everything now, as `integrity.check` does.

        Raises DataError for a store that is missing, unfinished, damaged or empty.
        """
        path = _check.path("path", path, "the folder of a store")
        if _check.truth("verify", verify):
            from .integrity import check

            check(path).require()
        manifest = read_manifest(path)
        while True:
            require_finished(path, manifest)
            try:
                return cls(stored_rewards(path, manifest), manifest["provenance"])
            except DataError:
                # A writer may have merged shards since the manifest was read: try the new one.
                before, manifest = manifest, read_manifest(path)
                if manifest == before:
                    raise

    @property
    def samples(self) -> int:
        """The smallest number of reference samples of any prompt."""
        return int(self.rewards.counts.min())

    def quantiles(
        self, prompt_ids: Sequence[str], rewards: Sequence[float], *, smoothing: Smoothing = "none"
    ) -> np.ndarray:
        """Mid-rank quantile of each reward under its own prompt's reference rewards.

        - `rewards`: one per prompt id, shape (n,), or several, shape (n, m).

        Raises DataError for unknown prompts.
        """
        low, high = self.intervals(prompt_ids, rewards, smoothing=smoothing)
        return (low + high) / 2

    def intervals(
        self, prompt_ids: Sequence[str], rewards: Sequence[float], *, smoothing: Smoothing = "none"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the quantile interval that each reward shares with tied reference rewards. They
        are equal if there are no ties.

        Raises DataError as `quantiles` does.
        """
        return ends(*self.ranks(prompt_ids, rewards), smoothing)

    def ranks(
        self, prompt_ids: Sequence[str], rewards: Sequence[float]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How many of the prompt's reference rewards lie below each reward, how many at or below
        it, and their total, shape (n, 1, …).

        - `rewards`: one per prompt id, shape (n,), or several, shape (n, m).

        Raises DataError for unknown prompts and rewards that are not finite.
        """
        positions = self.positions(prompt_ids)
        values = _check.numbers("rewards", rewards)
        if values.shape[:1] != (len(prompt_ids),):
            raise DataError(
                "`rewards` must have one entry for each of `prompt_ids`; got shape "
                f"{values.shape} for {len(prompt_ids)} ids."
            )
        if not np.isfinite(values).all():
            first = np.argwhere(~np.isfinite(values))[0]
            raise DataError(
                f"`rewards` must be finite; got {values[tuple(first)]:g} for prompt_id "
                f"{prompt_ids[first[0]]!r} ({(~np.isfinite(values)).sum()} of {values.size}). "
                "Score those responses again."
            )
        shape = (len(positions), int(np.prod(values.shape[1:])))
        below, up_to, counts = self.rewards.ranks(positions, values.reshape(shape))
        one_each = (len(positions), *[1] * (values.ndim - 1))
        return below.reshape(values.shape), up_to.reshape(values.shape), counts.reshape(one_each)

    def positions(self, prompt_ids: Sequence[str]) -> np.ndarray:
        """Position of each prompt in `rewards`; DataError for unknown prompts."""
        prompt_ids = _check.texts("prompt_ids", prompt_ids)
        positions = self.rewards.find(prompt_ids)
        unknown = np.flatnonzero(positions < 0)
        if unknown.size:
            raise DataError(
                f"prompt_id {prompt_ids[unknown[0]]!r} is not in the calibration store "
                f"({unknown.size} of {len(prompt_ids)} are unknown; it has {len(self.rewards)}). "
                "Calibrate on the prompts you train on."
            )
        return positions

    def tied(self) -> float:
        """Chance that two reference samples of a prompt have the same reward.

        It is 0 for a continuous reward. If it is not small, the reward is discrete, and the theory
        on the quantile axis does not apply: use `infalign.verifiable` or `infalign.finite`.
        """
        total = sum(tied_pairs(values, counts).sum() for values, counts in self.rewards.blocks())
        return float(total / len(self.rewards))

    def require(self, **expected) -> None:
        """Check the provenance against the settings in use.

        Raises a DataError that names all entries that differ.
        """
        storage.require_same(
            storage.as_json({name: self.provenance.get(name) for name in expected}),
            expected,
            "The calibration store was made with",
            "Calibrate again, or restore these settings.",
            error=DataError,
        )

    @property
    def strip(self) -> bool | None:
        """Whether the responses were scored without white space at their ends; None if the
        provenance does not say."""
        sampling = self.provenance.get("sampling")
        if not isinstance(sampling, Mapping):
            return None
        if sampling.keys() == FORMER_SAMPLING:
            return True
        return sampling.get("strip")

    def require_strip(self, strip: bool) -> None:
        """Check that responses are scored as they were in this store: with white space at both
        ends removed, or as they are.

        Raises DataError if they are not. A store without this record passes.
        """
        if self.strip not in (None, _check.truth("strip", strip)):
            raise DataError(
                f"The calibration store was made with `sampling.strip` {_word(self.strip)}, but "
                f"it is {_word(strip)} here, so its rewards are of other texts. Calibrate again, "
                f"or set `strip` to {_word(self.strip)}."
            )

    def require_answer(self, answer: str) -> None:
        """Check that the same part of a response is scored as in this store: `whole`, or
        `after-thinking`.

        Raises DataError if another part is scored. A store without this record holds whole
        responses.
        """
        _check.one_of("answer", answer, ("whole", "after-thinking"))
        sampling = self.provenance.get("sampling")
        own = sampling.get("answer", "whole") if isinstance(sampling, Mapping) else "whole"
        if own != answer:
            raise DataError(
                f"The calibration store was made with `sampling.answer` {own}, but responses are "
                f"scored with {answer} here, so its rewards are of other texts. Calibrate again "
                f"with {answer}, or score what the store's setting reads."
            )


def _word(value: object) -> str:
    return str(value).lower()


def _columns(rewards: str, key: str) -> None:
    """Checks that both are column names."""
    _check.text("rewards", rewards)
    _check.text("key", key)
