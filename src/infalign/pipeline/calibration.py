"""The calibration of a run: which store serves it, and what has to be drawn for that.

A store serves a run if it has the run's prompts with at least as many samples, drawn from the same
model with the same settings and scored by the same reward. Where it has more, the first samples of
the run's prompts count. Otherwise a new store borrows all responses that are stored, in this run or
in `calibration.store`, and the missing ones are drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from infalign import storage
from infalign._look import Shown
from infalign.collection.collect import Loan, Part, divided
from infalign.collection.lending import Lender, drawn_with
from infalign.errors import DataError
from infalign.prompts import Prompt, fingerprint
from infalign.stores import CalibrationStore, PromptSamples, by_prompt, read_samples
from infalign.stores.manifest import NAME

from .history import last_number, numbered

if TYPE_CHECKING:
    from .folder import Run

__all__ = [
    "Chosen",
    "Wanted",
    "choose_store",
    "external",
    "open_calibration",
    "require_fit",
    "samples_in",
    "stores_of",
]

FIRST = "calibration"
"""The name of the first store of a run."""

SHOWN = 3
"""Maximum number of prompt ids in a message."""


@dataclass(frozen=True)
class Wanted(Shown):
    """The calibration that a configuration asks for."""

    prompts: Sequence[Prompt]
    samples: int
    seed: int
    reward: str
    fingerprints: Mapping[str, object]
    """Of model, reward, prompts and sampling, as a store's provenance has them."""

    @classmethod
    def of(cls, run: "Run") -> "Wanted":
        """What a run asks for."""
        samples = run.config.calibration.samples
        seed = run.seed("calibrate")
        return cls(run.prompts, samples, seed, run.config.reward, run.fingerprints)

    def misfits(self, lender: Lender) -> list[str]:
        """How a store differs from this, each as `name value, not wanted`; in what all of its
        samples share."""
        stored = drawn_with(lender.provenance) | {"reward": lender.provenance.get("reward")}
        wanted = drawn_with(self.fingerprints) | {"reward": self.fingerprints["reward"]}
        return storage.differences(stored, wanted)

    def differences(self, provenance: Mapping[str, object]) -> list[str]:
        """How an opened store differs, the prompts included."""
        stored, wanted = drawn_with(provenance), drawn_with(self.fingerprints)
        for name in ("reward", "prompts"):
            stored[name], wanted[name] = provenance.get(name), self.fingerprints[name]
        return storage.differences(stored, wanted)

    def missing(self, lender: Lender) -> list[Prompt]:
        """The prompts of which a store has too few samples, or none."""
        return [p for p in self.prompts if self._lacks(lender, p)]

    def _lacks(self, lender: Lender, prompt: Prompt) -> bool:
        few = lender.counts.get(prompt.id, 0) < self.samples
        return few or not lender.is_scored(prompt.id)

    def serves(self, lender: Lender) -> bool:
        """Whether a store has everything. Stores that state no number or seed of their samples were
        made elsewhere."""
        own_seed = lender.provenance.get("seed") in (None, self.seed)
        complete = lender.finished and not self.misfits(lender) and not self.missing(lender)
        return own_seed and complete and (lender.has_samples or self.is_whole(lender))

    def is_whole(self, lender: Lender) -> bool:
        """Whether a store has these prompts and samples and no more."""
        return lender.exact and set(lender.stored.values()) == {self.samples}

    def begins(self, lender: Lender) -> bool:
        """Whether a store is an interrupted collection of exactly this."""
        own = self.fingerprints["prompts"]
        names = {"samples": self.samples, "seed": self.seed, "prompts": own}
        same = all(lender.provenance.get(name) == value for name, value in names.items())
        return same and not lender.finished and not self.misfits(lender)


@dataclass(frozen=True)
class Chosen(Shown):
    """The store of a run."""

    path: Path
    finished: bool
    """Whether it serves already."""

    wanted: Wanted
    loans: Sequence[Loan] = ()
    """Stores that it borrows from."""

    held: Mapping[str, int] = field(default_factory=dict)
    """Numbers of samples that an interrupted collection has already, by prompt."""

    reasons: Sequence[str] = ()
    """Why the latest store of the run does not serve."""

    batch_size: object = None
    """The size of batches that an interrupted collection states, or a list of several."""

    @cached_property
    def _parts(self) -> Sequence[Part]:
        if self.finished:
            return ()
        left = [p for p in self.wanted.prompts if p.id not in self.held]
        return list(divided(left, self.wanted.samples, len(left) + 1, self.loans))

    @property
    def borrowed(self) -> int:
        """Number of stored responses that are used again."""
        return sum(len(part.prompts) * part.held for part in self._parts)

    @property
    def rescored(self) -> int:
        """Number of stored responses that are scored again."""
        again = [part for part in self._parts if part.rescored]
        return sum(len(part.prompts) * part.held for part in again)

    @property
    def drawn(self) -> int:
        """Number of responses that have to be drawn."""
        return sum(len(part.prompts) * (self.wanted.samples - part.held) for part in self._parts)


def choose_store(run: "Run") -> Chosen:
    """The store that serves a run, or the one that will.

    Raises DataError, which names each difference, if `calibration.store` does not serve and
    `calibration.extend` is not set.
    """
    wanted, config = Wanted.of(run), run.config.calibration
    lenders: list[Lender] = []
    if config.store is not None:
        given = external(Path(config.store), wanted)
        if not wanted.misfits(given) and not wanted.missing(given) and given.finished:
            if given.has_samples or wanted.is_whole(given):
                return Chosen(given.path, True, wanted)
        require_fit(given, wanted, extend=config.extend)
        lenders.append(given)
    own = list(stores_of(run.folder, wanted))
    for lender in own:
        if wanted.serves(lender) and wanted.is_whole(lender):
            return Chosen(lender.path, True, wanted)
    for lender in own:
        if wanted.serves(lender):
            return Chosen(lender.path, True, wanted)
    # Another seed asks for other samples of the run itself; those of another run are as good.
    lenders += [one for one in own if one.provenance.get("seed") in (None, wanted.seed)]
    loans = [loan for lender in lenders if (loan := _loan(lender, wanted)) is not None]
    reasons = _reasons(own[-1], wanted) if own else []
    for lender in own:
        if wanted.begins(lender):
            others = [loan for loan in loans if loan.lender is not lender]
            sampling = lender.provenance.get("sampling")
            size = sampling.get("batch_size") if isinstance(sampling, Mapping) else None
            return Chosen(lender.path, False, wanted, others, lender.stored, reasons, size)
    names = [p.name for p in run.folder.iterdir()] if run.folder.is_dir() else []
    free = numbered(run.folder / FIRST, last_number(Path(FIRST), names) + 1)
    # A folder without a manifest is what a kill left before the first shard.
    for number in range(1, last_number(Path(FIRST), names) + 1):
        if not (numbered(run.folder / FIRST, number) / NAME).exists():
            free = numbered(run.folder / FIRST, number)
            break
    return Chosen(free, False, wanted, loans, reasons=reasons)


def stores_of(folder: Path, wanted: Wanted) -> list[Lender]:
    """The stores of a run, finished or not, in the order in which they were made."""
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    places = (numbered(folder / FIRST, n + 1) for n in range(last_number(Path(FIRST), names)))
    opened = (Lender.open(place, wanted.prompts, wanted.reward) for place in places)
    return [own for own in opened if own is not None]


def external(path: Path, wanted: Wanted) -> Lender:
    """The store of `calibration.store`."""
    lender = Lender.open(path, wanted.prompts, wanted.reward)
    if lender is None:
        raise DataError(
            f"`calibration.store` is {path}, which holds no calibration store (no {NAME}). Name "
            "the folder of one, such as runs/mine/calibration."
        )
    return lender


def require_fit(lender: Lender, wanted: Wanted, *, extend: bool) -> None:
    """Raise DataError unless the store serves or, with `extend`, all that it lacks can be drawn."""
    where = f"`calibration.store` {lender.path}"
    if different := wanted.misfits(lender):
        raise DataError(
            f"{where} does not fit this run. It was made with {'; '.join(different)}. Restore "
            "these settings, or calibrate in the run by leaving `calibration.store` out."
        )
    if not lender.has_samples:
        raise DataError(
            f"{where} holds rewards only, so it serves just its own prompts with its own number of "
            f"samples: {_lacks(lender, wanted)}. Set `calibration.samples` and `prompts` to these, "
            "or use a store with samples."
        )
    if not extend:
        cost = sum(max(0, wanted.samples - lender.counts.get(p.id, 0)) for p in wanted.prompts)
        does = f"draws the {cost:,} missing responses" if cost else "scores responses again"
        fewest = min(lender.stored.values(), default=0)
        smaller = f"`calibration.samples: {fewest}`, or " if 1 < fewest < wanted.samples else ""
        raise DataError(
            f"{where} lacks samples of this run: {_lacks(lender, wanted)}. Set {smaller}"
            f"`calibration.extend: true`, which {does} into the run folder and leaves the store as "
            "it is."
        )


def _lacks(lender: Lender, wanted: Wanted) -> str:
    """What a store lacks, in words."""
    missing = [p for p in wanted.prompts if p.id not in lender.stored]
    changed = [p for p in wanted.prompts if p.id in lender.stored and p.id not in lender.counts]
    few = [p for p in wanted.prompts if 0 < lender.counts.get(p.id, 0) < wanted.samples]
    other = [p for p in wanted.prompts if p.id in lender.counts and not lender.is_scored(p.id)]
    words = []
    total = len(wanted.prompts)
    if not lender.finished:
        words.append("its collection is unfinished")
    if missing:
        words.append(f"{len(missing)} of {total} prompts are not in it ({_first(missing)})")
    if changed:
        words.append(
            f"{len(changed)} of {total} prompts have other messages in it, or it does not say "
            f"which ({_first(changed)})"
        )
    if few:
        counts = sorted({lender.counts[p.id] for p in few})
        words.append(
            f"{len(few)} prompts have {' or '.join(map(str, counts[:SHOWN]))} samples of "
            f"{wanted.samples} ({_first(few)})"
        )
    if other:
        words.append(
            f"the reward reads something else of {len(other)} prompts, or the store does not say "
            f"what it read ({_first(other)})"
        )
    extra = len(lender.stored) - (total - len(missing))
    if extra > 0 and not lender.has_samples:
        words.append(f"it has {extra} other prompts")
    return "; ".join(words) or "it has more samples"


def _first(prompts: Sequence[Prompt]) -> str:
    names = ", ".join(repr(p.id) for p in prompts[:SHOWN])
    return f"{names}, …" if len(prompts) > SHOWN else names


def _loan(lender: Lender, wanted: Wanted) -> Loan | None:
    """What a store can lend: responses of the same model under the same settings."""
    if not lender.has_samples or not lender.counts:
        return None
    if drawn_with(lender.provenance) != drawn_with(wanted.fingerprints):
        return None
    return Loan(lender, lender.provenance.get("reward") != wanted.fingerprints["reward"])


def _reasons(lender: Lender, wanted: Wanted) -> list[str]:
    """Why the run's latest store does not serve."""
    reasons = [_readable(difference) for difference in wanted.misfits(lender)]
    seed = lender.provenance.get("seed")
    if seed not in (None, wanted.seed):
        reasons.append("seed changed")
    if not reasons:
        lacking = _lacks(lender, wanted)
        reasons.append(lacking)
    return reasons


def _readable(difference: str) -> str:
    """A difference of fingerprints in words."""
    name = difference.split(" ", 1)[0]
    named = name in ("model", "reward", "tokenizer", "chat_template", "probe")
    return f"{name} changed" if named else difference


def open_calibration(
    path: Path, prompts: Sequence[Prompt], samples: int, reward: str
) -> CalibrationStore:
    """The rewards of these prompts: the store itself, or of a larger one its first samples."""
    lender = Lender.open(path, prompts, reward)
    if lender is None:
        return CalibrationStore.open(path)  # raises
    if lender.exact and set(lender.stored.values()) == {samples}:
        return CalibrationStore.open(path)
    if not lender.has_samples or not all(
        lender.counts.get(p.id, 0) >= samples and lender.is_scored(p.id) for p in prompts
    ):
        return CalibrationStore.open(path)  # as it is: the caller compares the provenance
    rows = samples_in(path, [p.id for p in prompts], samples, ["reward"])
    stated = {"prompts": fingerprint(prompts, reward), "samples": samples}
    provenance = {**lender.provenance, **stated}
    return CalibrationStore.from_rewards(rows.prompt_ids, rows.matrix("reward"), provenance)


def samples_in(
    path: Path, prompt_ids: Sequence[str], samples: int, columns: Sequence[str]
) -> PromptSamples:
    """The first `samples` stored samples of these prompts."""
    import pyarrow.compute as pc

    needed = list(dict.fromkeys(("prompt_id", "sample", *columns)))
    table = read_samples(path, needed)
    return by_prompt(table.filter(pc.less(table["sample"], samples)), prompt_ids, source=str(path))
