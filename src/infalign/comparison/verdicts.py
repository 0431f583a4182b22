"""Verdicts of a pairwise judge on selected responses, pair by pair, in both orders."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from infalign import storage
from infalign.evaluation.judging import JudgeWinRate, judge_win_rate, selected_pairs
from infalign.models.judges import PairwiseJudge, judge_pairs, load_judge
from infalign.stores import by_prompt

from .comparison import REFERENCE, Comparison
from .measured import Measured
from .resumable import Report, drop_parts, write_in_parts

PART = 64
"""Maximum number of pairs that a killed evaluation submits again."""


def draw_verdicts(measured: Measured, report: Report) -> None:
    """Write judge-NAME.parquet for every policy, if there is a judge.

    Columns: prompt_id, policy_sample, reference_sample, and the verdicts `policy_first` and
    `reference_first`: 1 if the response shown first wins, 0 if the second does, 0.5 for a tie, null
    if there is no verdict. Responses are drawn with the first procedure's selection chances.
    """
    comparison = measured.comparison
    if comparison.judge is None:
        return
    ids, judge = [p.id for p in comparison.prompts], None
    for name in comparison.policies:
        path = _path(measured.folder, name)
        if not path.exists():
            judge = judge or load_judge(
                comparison.judge,
                unreadable=comparison.judge_unreadable,
                max_new_tokens=comparison.judge_max_new_tokens,
                seed=comparison.seed,
                trust_remote_code=comparison.trust_remote_code,
            )
            size = max(1, PART // comparison.judge_pairs)
            make = partial(_judged, comparison, judge, _pairs(measured, name))
            make = partial(make, measured.texts(name), measured.texts(REFERENCE))
            write_in_parts(path, ids, size, make, partial(report, f"judge {name}"))
        drop_parts(path)


def read_verdicts(comparison: Comparison, folder: Path, name: str) -> JudgeWinRate:
    """The judge's win rate of one policy; pairs without a verdict are left out and counted."""
    path = _path(folder, name)
    ids = [p.id for p in comparison.prompts]
    verdicts = by_prompt(storage.read_table(path), ids, source=str(path))
    orders = [verdicts.matrix(column) for column in ("policy_first", "reference_first")]
    return judge_win_rate(np.stack(orders, axis=2), missing="exclude")


def _path(folder: Path, name: str) -> Path:
    return folder / f"judge-{name}.parquet"


def _pairs(measured: Measured, name: str) -> np.ndarray:
    """Samples to show, shape (prompts, pairs, 2): the policy's and the reference's."""
    comparison = measured.comparison
    procedure, against = next(iter(comparison.pairs.values()))
    return selected_pairs(
        measured.chances(name, procedure),
        measured.chances(REFERENCE, against),
        comparison.judge_pairs,
        rng=np.random.default_rng(comparison.sample_seed(f"judge {name}")),
    )


def _judged(
    comparison: Comparison,
    judge: PairwiseJudge,
    pairs: np.ndarray,
    policy_texts: np.ndarray,
    reference_texts: np.ndarray,
    places: Sequence[int],
) -> pa.Table:
    """Verdicts on the pairs of the prompts at these indices."""
    rows, own = np.array(places)[:, None], pairs[list(places)]
    prompts = [comparison.prompts[place] for place in places]
    verdicts = judge_pairs(
        judge,
        [p.messages for p in prompts],
        policy_texts[rows, own[..., 0]].tolist(),
        reference_texts[rows, own[..., 1]].tolist(),
    )
    return pa.table(
        {
            "prompt_id": [p.id for p in prompts for _ in range(own.shape[1])],
            "policy_sample": own[..., 0].ravel(),
            "reference_sample": own[..., 1].ravel(),
            "policy_first": pa.array(verdicts[..., 0].ravel(), from_pandas=True),
            "reference_first": pa.array(verdicts[..., 1].ravel(), from_pandas=True),
        }
    )
