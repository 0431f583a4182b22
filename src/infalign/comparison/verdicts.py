"""Verdicts of a pairwise judge on selected responses, pair by pair, in both orders."""

import logging
from collections.abc import Callable, Sequence
from functools import cache, partial

import numpy as np
import pyarrow as pa

from infalign import storage
from infalign.errors import DataError
from infalign.evaluation.judging import JudgeWinRate, judge_win_rate, selected_pairs
from infalign.manifest import Manifest
from infalign.models.judges import PairwiseJudge, judge_pairs, load_judge
from infalign.stores import by_prompt
from infalign.stores.resumable import Report, ResumableTable

from .comparison import JUDGED, REFERENCE
from .measured import Measured
from .origins import VERDICTS, Origins
from .sampling import STAGE

__all__ = ["draw_verdicts", "read_verdicts"]

LOG = logging.getLogger(__name__)

PART = 64
"""Maximum number of pairs that a killed evaluation submits again."""


def draw_verdicts(measured: Measured, origins: Origins, report: Report) -> None:
    """Write judge-NAME.parquet for every policy, if there is a judge.

    Columns: prompt_id, policy_sample, reference_sample, and the verdicts `policy_first` and
    `reference_first`: 1 if the response shown first wins, 0 if the second does, 0.5 for a tie, null
    if there is no verdict. Responses are drawn with the first procedure's selection chances.

    Stored verdicts on the same responses, of the same judge, are used again; others are set aside.
    """
    comparison = measured.comparison
    if comparison.judge is None:
        return
    ids = [p.id for p in comparison.prompts]
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
    tables = {name: _table(measured.manifest, name) for name in comparison.policies}
    stored = [table.origin() for table in tables.values() if table.finished()]
    source = origins.judge(stored[0] if len(stored) == len(tables) else None)
    size = max(1, PART // comparison.judge_pairs)
    for name, table in tables.items():
        wanted = origins.verdicts(name, measured.samples, source)
        changed, aside = table.renew(wanted)
        if changed:
            LOG.warning(
                "Judge of policy %s: the %s changed. It is asked again; its earlier verdicts are "
                "in %s.",
                name,
                " and the ".join(changed),
                aside,
            )
        make = partial(_judged, measured, name, cache(partial(_pairs, measured, name)), judge)
        table.write(ids, size, make, wanted, partial(report, f"judge {name}"))


def read_verdicts(measured: Measured, name: str) -> JudgeWinRate:
    """The judge's win rate of one policy; pairs without a verdict are left out and counted.

    Raises DataError unless each prompt has its pairs.
    """
    comparison, path = measured.comparison, _table(measured.manifest, name).path
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


def _table(manifest: Manifest, name: str) -> ResumableTable:
    path = manifest.folder / f"{JUDGED}{name}.parquet"
    return ResumableTable(manifest, path, STAGE, VERDICTS)


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
    measured: Measured,
    name: str,
    pairs: Callable[[], np.ndarray],
    judge: Callable[[], PairwiseJudge],
    places: Sequence[int],
    part: int,
) -> pa.Table:
    """Verdicts on the pairs of the prompts at these indices."""
    rows, own = np.array(places)[:, None], pairs()[list(places)]
    policy_texts, reference_texts = measured.texts(name), measured.texts(REFERENCE)
    prompts = [measured.comparison.prompts[place] for place in places]
    verdicts = judge_pairs(
        judge(),
        [p.value for p in prompts],
        policy_texts[rows, own[..., 0]].tolist(),
        reference_texts[rows, own[..., 1]].tolist(),
        columns=[{"prompt_id": p.id, **p.columns} for p in prompts],
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
