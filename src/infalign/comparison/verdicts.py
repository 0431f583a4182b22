"""Verdicts of a pairwise judge on selected responses, pair by pair, in both orders."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, partial

import numpy as np
import pyarrow as pa

from infalign import storage
from infalign.errors import DataError
from infalign.evaluation.judging import JudgeWinRate, judge_win_rate, selected_pairs
from infalign.models.judges import PairwiseJudge, judge_pairs, load_judge
from infalign.prompts import columns_fingerprint, fingerprint, read_by
from infalign.stores import by_prompt
from infalign.stores.resumable import Origin, Report, ResumableTable

from .comparison import JUDGED, REFERENCE
from .measured import Measured
from .origins import JUDGE, VERDICTS, Origins, digest
from .sampling import STAGE
from .verdict_table import PAIR, VerdictTable

__all__ = ["draw_verdicts", "pending", "read_verdicts"]

LOG = logging.getLogger(__name__)

PART = 64
"""Maximum number of pairs that a killed evaluation submits again."""


def draw_verdicts(measured: Measured, origins: Origins, report: Report) -> None:
    """Write judge-NAME.parquet for every policy, if there is a judge.

    Columns: prompt_id, pair (its number), policy_sample, reference_sample, pair_checksum (of what
    the judge has read), and the verdicts `policy_first` and `reference_first`: 1 if the response
    shown first wins, 0 if the second does, 0.5 for a tie, null if there is no verdict. Responses
    are drawn with the first procedure's selection chances.

    Stored verdicts of the same judge on the same prompt and responses are used again, so that only
    missing ones are asked for; those of another judge are set aside.
    """
    comparison = measured.comparison
    if comparison.judge is None:
        return
    judge = cache(  # loaded when the first verdict is missing
        partial(
            load_judge,
            comparison.judge,
            unreadable=comparison.judge_unreadable,
            max_new_tokens=comparison.judge_max_new_tokens,
            seed=comparison.seed,
            **comparison.loading,
        )
    )
    tables = {name: _table(measured, name) for name in comparison.policies}
    asked = {name: _asked(measured, name) for name in tables}
    complete = not any(table.missing(asked[name]) for name, table in tables.items())
    stored = [table.origin() for table in tables.values()]
    wanted = origins.verdicts(stored[0], complete)
    for name, table in tables.items():
        changed, aside = table.arrange(asked[name], wanted)
        if changed:
            LOG.warning(
                "Judge of policy %s: the %s changed. It is asked again; its earlier verdicts are "
                "in %s.",
                name,
                " and the ".join(changed),
                aside,
            )
        make = partial(_judged, measured, name, asked[name], judge)
        table.write(asked[name], PART, make, wanted, partial(report, f"judge {name}"))


def pending(measured: Measured, origins: Origins) -> dict[str, int]:
    """Policy → the number of pairs that the judge will compare."""
    tables = {name: _table(measured, name) for name in measured.comparison.policies}
    asked = {name: _asked(measured, name) for name in tables}
    complete = not any(table.missing(asked[name]) for name, table in tables.items())
    stored = [table.origin() for table in tables.values()]
    wanted = origins.verdicts(stored[0], complete)
    return {name: len(table.missing(asked[name], wanted)) for name, table in tables.items()}


def read_verdicts(measured: Measured, name: str) -> JudgeWinRate:
    """The judge's win rate of one policy; pairs without a verdict are left out and counted.

    Raises DataError unless each prompt has its pairs.
    """
    comparison, path = measured.comparison, _table(measured, name).table.path
    measured.manifest.require(path)
    ids = [p.id for p in comparison.prompts]
    verdicts = by_prompt(storage.read_table(path), ids, source=str(path))
    if (verdicts.counts != comparison.judge_pairs).any():
        raise DataError(
            f"{path} must hold {comparison.judge_pairs} pairs of each prompt, and holds "
            f"{verdicts.counts.min()} to {verdicts.counts.max()}. Remove it, and run `{STAGE}` "
            "again."
        )
    orders = [verdicts.matrix(column) for column in ("policy_first", "reference_first")]
    return judge_win_rate(np.stack(orders, axis=2), missing="exclude")


def _table(measured: Measured, name: str) -> VerdictTable:
    manifest = measured.manifest
    path = manifest.folder / f"{JUDGED}{name}.parquet"
    table = ResumableTable(manifest, path, STAGE, VERDICTS)
    return VerdictTable(table, partial(_adopted, measured, name))


def _asked(measured: Measured, name: str) -> pa.Table:
    """The pairs of one policy, a row each, in the order of the prompts."""
    comparison = measured.comparison
    procedure, against = next(iter(comparison.pairs.values()))
    ids, pairs = [p.id for p in comparison.prompts], comparison.judge_pairs
    drawn = selected_pairs(
        measured.chances(name, procedure),
        measured.chances(REFERENCE, against),
        pairs,
        seed=comparison.sample_seed(f"judge {name}"),
        keys=ids,
    )
    rows = pa.table(
        {
            "prompt_id": [i for i in ids for _ in range(pairs)],
            "pair": list(range(pairs)) * len(ids),
            "policy_sample": drawn[..., 0].ravel(),
            "reference_sample": drawn[..., 1].ravel(),
        }
    )
    return rows.append_column(PAIR, _checksums(measured, name, rows))


def _checksums(measured: Measured, name: str, rows: pa.Table) -> pa.Array:
    """A checksum of what the judge reads of each pair."""
    prompts = measured.comparison.prompts
    read = read_by(prompts, measured.comparison.judge or "")
    asked = {p.id: [p.id, p.messages, read.get(p.id)] for p in prompts}
    sides = _texts(measured, name, rows)
    ids = rows["prompt_id"].to_pylist()
    pairs = zip(ids, *sides, strict=True)
    return pa.array([storage.fingerprint([asked[i], ours, theirs]) for i, ours, theirs in pairs])


def _texts(measured: Measured, name: str, rows: pa.Table) -> tuple[list[str], list[str]]:
    """The responses of the policy and of the reference in each row."""
    places = {p.id: at for at, p in enumerate(measured.comparison.prompts)}
    at = [places[i] for i in rows["prompt_id"].to_pylist()]
    ours, theirs = measured.texts(name), measured.texts(REFERENCE)
    return (
        ours[at, rows["policy_sample"].to_numpy()].tolist(),
        theirs[at, rows["reference_sample"].to_numpy()].tolist(),
    )


def _judged(
    measured: Measured,
    name: str,
    asked: pa.Table,
    judge: Callable[[], PairwiseJudge],
    at: Sequence[int],
) -> pa.Table:
    """Verdicts on some of the pairs."""
    rows = asked.take(list(at))
    own = {p.id: p for p in measured.comparison.prompts}
    prompts = [own[i] for i in rows["prompt_id"].to_pylist()]
    ours, theirs = _texts(measured, name, rows)
    verdicts = judge_pairs(
        judge(),
        [p.value for p in prompts],
        [[text] for text in ours],
        [[text] for text in theirs],
        columns=[{"prompt_id": p.id, **p.columns} for p in prompts],
    )
    for order, column in enumerate(("policy_first", "reference_first")):
        values = pa.array(verdicts[:, 0, order], pa.float64(), from_pandas=True)
        rows = rows.append_column(column, values)
    return rows


def _adopted(measured: Measured, name: str, rows: pa.Table, origin: Origin) -> pa.Table:
    """Rows of former versions, which noted what all responses were; none of them if prompts or
    responses are others now."""
    prompts, noted = measured.comparison.prompts, origin.sources[VERDICTS].parts
    columns = columns_fingerprint(prompts, measured.comparison.judge or "")
    now = {
        "prompts": fingerprint(prompts),
        "samples": digest(measured.samples[name]),
        "reference's samples": digest(measured.samples[REFERENCE]),
        **{f"{JUDGE}{noun}": part for noun, part in columns.items()},
    }
    same = all(noted.get(noun) == part for noun, part in now.items())
    rows = rows if same else rows.slice(0, 0)
    counts: Counter[str] = Counter()
    numbers = []
    for prompt_id in rows["prompt_id"].to_pylist():
        numbers.append(counts[prompt_id])
        counts[prompt_id] += 1
    rows = rows.add_column(1, "pair", pa.array(numbers, pa.int64()))
    checksums = _checksums(measured, name, rows).cast(pa.string())
    return rows.add_column(4, PAIR, checksums)
