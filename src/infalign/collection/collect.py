"""Collection of reference samples into a calibration store; stored samples are not redrawn."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from infalign import _check, _progress
from infalign._look import Shown
from infalign.errors import DataError
from infalign.models.interfaces import Scorer
from infalign.prompts import CHECKSUM, Prompt, checksum, fingerprint, read_by
from infalign.stores import StoreWriter
from infalign.stores.manifest import NAME as MANIFEST
from infalign.stores.manifest import held, new_manifest, read_manifest

from .answers import Engine
from .lending import READ, Lender

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Loan", "Part", "collect", "divided"]

RESPONSES = 1024
"""Approximate number of responses in a shard, which is the most that a kill can lose."""


@dataclass(frozen=True)
class Loan:
    """A store whose responses are used again."""

    lender: Lender
    other_reward: bool
    """Whether its rewards come from another reward, so that its responses are scored again."""

    def rescores(self, prompt_id: str) -> bool:
        """Whether the responses to a prompt are scored again."""
        return self.other_reward or not self.lender.is_scored(prompt_id)


@dataclass(frozen=True)
class Part(Shown):
    """Prompts that become one shard, and what is stored of them."""

    prompts: Sequence[Prompt]
    loan: Loan | None = None
    held: int = 0
    """Number of responses to each prompt that are borrowed."""

    rescored: bool = False
    """Whether the borrowed responses are scored again."""


def collect(
    prompts: Sequence[Prompt],
    engine: Engine,
    samples: int,
    folder: Path,
    *,
    seed: int,
    provenance: Mapping[str, object] | None = None,
    responses: int = RESPONSES,
    report: Callable[[int, int], None] | None = None,
    loans: Sequence[Loan] = (),
    load_scorer: Callable[[], Scorer] | None = None,
    reward: str | None = None,
    varying: Sequence[str] = (),
) -> None:
    """Draw and score `samples` reference samples of each prompt into the store in `folder`.

    Shards are written whole, in the order of the prompts. After a kill at any moment, the same call
    continues with the first missing prompt, and the final store equals that of an uninterrupted
    collection.

    - `engine`: `Local` or `OnRay`. It loads policy and reward only if samples are missing.
    - `provenance`: fingerprints of model, reward, prompts and sampling for
      `CalibrationStore.require`; prompts, samples and seed are added.
    - `responses`: approximate number of responses in a shard; a shard has at least one prompt.
    - `report`: called with the number of prompts done and the total.
    - `loans`: stores whose responses are copied, so that only the missing ones are drawn. They are
      not changed.
    - `load_scorer`: loads the reward that scores responses of `loans` again.
    - `varying`: entries of `provenance` that may be others when a collection is continued, as in
      `StoreWriter`.
    - `reward`: its specification, to note what it reads of prompts. Default: nothing is noted.

    Raises DataError for a folder that was collected with other settings, and if sampling or scoring
    fails.
    """
    size = max(1, _check.count("responses", responses) // _check.count("samples", samples))
    stated = {
        "prompts": fingerprint(prompts),
        "samples": samples,
        "seed": seed,
        **(provenance or {}),
    }
    report = report or (lambda done, total: None)
    if _is_complete(folder, stated, len(prompts)):
        report(len(prompts), len(prompts))
        return
    with StoreWriter(folder, stated, len(prompts), varying=varying) as writer:
        missing = [p for p in prompts if p.id not in writer]
        report(writer.prompts, len(prompts))
        parts = list(divided(missing, samples, size, loans))
        tables = _tables(parts, engine, samples, seed, load_scorer)
        read = {} if reward is None else read_by(prompts, reward)
        for part in parts:
            ends = writer.prompts, writer.prompts + len(part.prompts)
            with _progress.part(*ends, len(prompts)):
                table = next(tables)
            _add(writer, part.prompts, table, samples, read)
            report(writer.prompts, len(prompts))
        assert next(tables, None) is None  # the engine ends, too


def divided(
    prompts: Sequence[Prompt], samples: int, size: int, loans: Sequence[Loan] = ()
) -> Iterator[Part]:
    """The prompts in parts of at most `size`, each of prompts that borrow equally many responses
    from the same store: from the one that has most."""
    part: Part | None = None
    for prompt in prompts:
        best, most, again = None, 0, False
        for loan in loans:
            count = min(loan.lender.counts.get(prompt.id, 0), samples)
            # Of stores with equally many responses, one that needs no new scores is better.
            if count and (count > most or (count == most and again)):
                rescored = loan.rescores(prompt.id)
                if count > most or not rescored:
                    best, most, again = loan, count, rescored
        same = (
            part is not None and part.loan is best and (part.held, part.rescored) == (most, again)
        )
        if part is None or not same or len(part.prompts) == size:
            if part is not None:
                yield part
            part = Part([], best, most, again)
        part = Part([*part.prompts, prompt], best, most, again)
    if part is not None:
        yield part


def _tables(
    parts: Sequence[Part],
    engine: Engine,
    samples: int,
    seed: int,
    load_scorer: Callable[[], Scorer] | None,
) -> Iterator["pa.Table"]:
    """All responses to the prompts of each part: those that are stored, then those that are
    drawn."""
    scorer, due = _Once(load_scorer), [part for part in parts if part.held < samples]
    firsts = [part.held for part in due]
    options = {"firsts": firsts} if any(firsts) else {}
    drawn = (
        iter(engine.answers([p.prompts for p in due], samples, seed, **options)) if due else None
    )
    for part in parts:
        stored = None
        if part.loan is not None:
            again = scorer.value if part.rescored else None
            stored = part.loan.lender.rows(part.prompts, part.held, again)
        if part.held == samples:
            assert stored is not None
            yield stored
            continue
        assert drawn is not None
        yield _joined(part, stored, next(drawn), samples)
    if drawn is not None and next(drawn, None) is not None:
        raise DataError("The engine returned more shards than it was given.")


class _Once:
    """A reward that is loaded when it is first needed."""

    def __init__(self, load: Callable[[], Scorer] | None):
        self._load = load

    @cached_property
    def value(self) -> Scorer:
        if self._load is None:
            raise ValueError("`load_scorer` must be given with loans that are scored again.")
        return self._load()


def _joined(part: Part, stored: "pa.Table | None", drawn: "pa.Table", samples: int) -> "pa.Table":
    """The rows of each prompt together, in the order of their numbers."""
    import pyarrow as pa

    if stored is None:
        return drawn
    rows, k, new = len(part.prompts), part.held, samples - part.held
    order = [
        at
        for i in range(rows)
        for at in (
            *range(i * k, (i + 1) * k),
            *range(rows * k + i * new, rows * k + (i + 1) * new),
        )
    ]
    return pa.concat_tables([stored.cast(drawn.schema), drawn]).take(order)


def _is_complete(folder: Path, stated: Mapping[str, object], prompts: int) -> bool:
    """Whether the store is complete. A complete store is not touched, not even its lock."""
    if not (folder / MANIFEST).exists():
        return False
    stored, wanted = read_manifest(folder), new_manifest(stated, prompts)
    settings = ("provenance", "prompts")
    return held(stored) == prompts and all(stored[k] == wanted[k] for k in settings)


def _add(
    writer: StoreWriter,
    part: Sequence[Prompt],
    table: "pa.Table",
    samples: int,
    read: Mapping[str, str],
) -> None:
    noted = {CHECKSUM: checksum, READ: lambda p: read.get(p.id, "")}
    texts = table["completion"].to_pylist()
    writer.add(
        [p.id for p in part],
        [texts[i : i + samples] for i in range(0, len(texts), samples)],
        table["reward"].to_numpy().reshape(len(part), samples),
        {name: table[name] for name in ("tokens", "logprob")}
        | {name: [v for p in part for v in [of(p)] * samples] for name, of in noted.items()},
    )
