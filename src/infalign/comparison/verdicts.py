"""What a pairwise judge says of kept responses, pair by pair, both orders."""

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from infalign import storage
from infalign.evaluation.judging import JudgeWinRate, draw_pairs, judge_win_rate
from infalign.models.judges import judge_pairs, load_judge
from infalign.stores import by_prompt

from .measured import Measured
from .plan import REFERENCE, Comparison
from .shards import Report, drop_shards, in_shards

SHARD = 64
"""Pairs that a killed evaluation asks for again at most."""


def compare_pairs(comparison: Comparison, folder: Path, report: Report) -> None:
    """`folder`/judge-NAME.parquet for every policy, if there is a judge.

    Columns: prompt_id, policy_sample, reference_sample, and the verdicts `policy_first` and
    `reference_first`: 1 where the response shown first wins, 0 where the second does, 0.5 for a
    tie, null where there is no verdict. Pairs are drawn as the first procedure keeps them.
    """
    if comparison.judge is None:
        return
    measured, judge = Measured(comparison, folder), None
    for name in comparison.policies:
        path = folder / f"judge-{name}.parquet"
        if not path.exists():
            judge = judge or load_judge(
                comparison.judge,
                seed=comparison.seed,
                trust_remote_code=comparison.trust_remote_code,
            )
            make = partial(_shard, measured, name, judge, _pairs(measured, name))
            size = max(1, SHARD // comparison.judge_pairs)
            told = partial(report, f"judge {name}")
            in_shards(path, len(comparison.prompts), size, make, told)
        drop_shards(path)


def read_verdicts(comparison: Comparison, folder: Path, name: str) -> JudgeWinRate:
    """The judge's win rate of one policy; pairs without a verdict are left out and counted."""
    path = folder / f"judge-{name}.parquet"
    ids = [p.id for p in comparison.prompts]
    verdicts = by_prompt(storage.read_table(path), ids, source=str(path))
    orders = [verdicts.matrix(column) for column in ("policy_first", "reference_first")]
    return judge_win_rate(np.stack(orders, axis=2), missing="exclude")


def _pairs(measured: Measured, name: str) -> np.ndarray:
    """Samples to show, shape (prompts, pairs, 2): the policy's and the reference's."""
    comparison = measured.comparison
    procedure, against = next(iter(comparison.pairs.values()))
    return draw_pairs(
        measured.rewards(name),
        measured.rewards(REFERENCE),
        procedure,
        comparison.judge_pairs,
        rng=np.random.default_rng(comparison.sample_seed(f"judge {name}")),
        against=against,
        **measured.calibration,
    )


def _shard(measured: Measured, name, judge, pairs, start, end) -> pa.Table:
    rows, pairs = np.arange(start, end)[:, None], pairs[start:end]
    ours = measured.texts(name)[rows, pairs[..., 0]]
    theirs = measured.texts(REFERENCE)[rows, pairs[..., 1]]
    prompts = measured.comparison.prompts[start:end]
    found = judge_pairs(judge, [p.messages for p in prompts], ours.tolist(), theirs.tolist())
    columns = {
        "prompt_id": [p.id for p in prompts for _ in range(pairs.shape[1])],
        "policy_sample": pairs[..., 0].ravel(),
        "reference_sample": pairs[..., 1].ravel(),
    }
    for order, column in enumerate(("policy_first", "reference_first")):
        columns[column] = pa.array(found[..., order].ravel(), from_pandas=True)
    return pa.table(columns)
