"""The responses that every policy selects, prompt by prompt, and the ones shown as examples."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from infalign.core import quantiles
from infalign.decoding.selection import Decoder, select

from .comparison import REFERENCE, SELECTING
from .measured import Measured
from .origins import column_of

__all__ = ["SELECTED", "examples", "selected_responses"]

SELECTED = Path("selected", "responses.parquet")
"""The file of the selected responses, in the folder of the comparison's files."""

RANKS = (0.9, 0.5, 0.1)
"""Places of the examples among the prompts, from the smallest gain (0) to the largest (1)."""


def selected_responses(measured: Measured) -> pa.Table:
    """A row for each prompt and policy, the reference first: the response that the main procedure
    selects.

    Columns: `prompt_id`, `prompt`, `policy`; `sample` (its number in the policy's table),
    `response`, `tokens`, `quantile` among the reference's samples, and its rewards, `reward` and
    `reward_NAME`; `win_rate` and `win_rate_NAME`, those of the policy on this prompt, over all ways
    to draw; and `quantiles`, those of all of the policy's samples.
    """
    comparison = measured.comparison
    names, count = [REFERENCE, *comparison.policies], len(comparison.prompts)
    of = {name: _of(measured, name) for name in names}
    prompts = [
        text
        for prompt in comparison.prompts
        # Parquet holds no halves of surrogate pairs.
        for text in [prompt.text.encode("utf-8", "backslashreplace").decode("utf-8")] * len(names)
    ]
    columns = {
        "prompt_id": [prompt.id for prompt in comparison.prompts for _ in names],
        "prompt": prompts,
        "policy": names * count,
    }
    for column in of[REFERENCE]:
        columns[column] = [of[name][column][p] for p in range(count) for name in names]
    numbers = {c: pa.float64() for c in columns if c.startswith(("reward", "win_rate", "quantile"))}
    types = numbers | {"quantiles": pa.list_(pa.float32()), "tokens": pa.int64()}
    return pa.table({c: pa.array(v, types.get(c)) for c, v in columns.items()})


def _of(measured: Measured, name: str) -> dict[str, list]:
    """The columns of one policy, a value for each prompt."""
    comparison = measured.comparison
    decoded, against = next(iter(comparison.pairs.values()))
    # A seed for each policy: another policy in the comparison changes none of its responses.
    rng = np.random.default_rng(comparison.sample_seed(f"selected {name}"))
    procedure: Decoder = against if name == REFERENCE else decoded
    chosen = [select(procedure, values, rng=rng) for values in measured.read_by(procedure, name)]
    rows = np.arange(len(chosen))
    ranks = quantiles(measured.rewards(name), measured.rewards(REFERENCE))
    tokens = measured.column(name, "tokens")[rows, chosen]
    rates = {
        reward: [None] * len(chosen)
        if name == REFERENCE
        else _known(measured.win_rate(name, decoded, against, reward).per_prompt)
        for reward in comparison.rewards
    }
    return {
        "sample": chosen,
        "response": measured.texts(name)[rows, chosen].tolist(),
        "tokens": [None if value is None else int(value) for value in _known(tokens)],
        "quantile": ranks[rows, chosen].tolist(),
        **{
            column_of(reward): measured.rewards(name, reward)[rows, chosen].tolist()
            for reward in comparison.rewards
        },
        **{
            "win_rate" if reward == SELECTING else f"win_rate_{reward}": values
            for reward, values in rates.items()
        },
        "quantiles": ranks.tolist(),
    }


def _known(values: np.ndarray) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]


def examples(
    rows: pa.Table, policy: str, rival: str | None, labels: Mapping[str, str]
) -> list[dict]:
    """Three prompts that a rule chooses, with their responses.

    The prompts are sorted by how much more often `policy` wins on them than `rival`, or by how
    often it wins without one; the examples stand at 90, 50 and 10 % of that order.
    """
    by_prompt: dict[str, list[dict]] = {}
    for row in rows.to_pylist():
        by_prompt.setdefault(row["prompt_id"], []).append(row)
    gains = {}
    for prompt, own in by_prompt.items():
        rates = {row["policy"]: row["win_rate"] for row in own}
        first, second = rates[policy], 0.0 if rival is None else rates[rival]
        gains[prompt] = -np.inf if first is None or second is None else first - second
    order = sorted(gains, key=lambda prompt: gains[prompt])
    places = {round(rank * (len(order) - 1)): rank for rank in RANKS}
    names = {REFERENCE: "Reference", **labels}
    return [
        {
            "prompt_id": order[place],
            "prompt": by_prompt[order[place]][0]["prompt"],
            "rank": rank,
            "gain": float(gains[order[place]]) if np.isfinite(gains[order[place]]) else None,
            "responses": [
                {
                    "policy": row["policy"],
                    "label": names.get(row["policy"], row["policy"]),
                    "text": row["response"],
                    **{key: row[key] for key in ("quantile", "win_rate", "quantiles")},
                }
                for row in by_prompt[order[place]]
            ],
        }
        for place, rank in places.items()
    ]
