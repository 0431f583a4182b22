"""The responses that a page holds: those of all prompts, shortened if they are too much for it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from infalign import storage

__all__ = ["SELECTED", "counted", "embedded_responses"]

SELECTED = Path("evaluation", "selected", "responses.parquet")
"""The selected responses of every policy to every prompt."""

MOST_BYTES = 8_000_000
"""Largest size of the responses in a page, in bytes."""

SHORTEST = 240
"""A text is shortened to this many characters at least; beyond that, prompts are left out."""

COLUMNS = ("sample", "tokens", "quantile", "win_rate")


def embedded_responses(folder: Path, most: int = MOST_BYTES) -> dict | None:
    """The responses of the page as JSON; None if the folder has none.

    If all prompts and responses are larger than `most` bytes, the longest texts are shortened, to
    `cut` characters. If that is not enough, the page holds every k-th prompt: `left_out` counts
    the others.
    """
    path = folder / SELECTED
    if not path.exists():
        return None
    return _fitted(storage.read_table(path), most)


def _fitted(rows: pa.Table, most: int) -> dict:
    policies = list(dict.fromkeys(rows["policy"].to_pylist()))
    rewards = [c for c in rows.column_names if c.startswith("reward")]
    rates = [c for c in rows.column_names if c.startswith("win_rate_")]
    columns = [*COLUMNS, *rewards, *rates]
    values = rows.select(columns).to_pydict()
    quantiles = [_pairs(own) for own in rows["quantiles"].to_pylist()]
    texts, each = rows["response"].to_pylist(), len(policies)
    asked, ids = rows["prompt"].to_pylist()[::each], rows["prompt_id"].to_pylist()[::each]
    numbers = 12 * len(columns) + max(map(len, quantiles), default=0) + 30
    total, every = len(ids), 1
    least = sum(len(t[:SHORTEST].encode()) for t in (*asked, *texts)) + numbers * len(texts)
    if least > most:
        every = -(-least // most)
    held = range(0, total, every)
    own = [asked[p] for p in held]
    own += [text for p in held for text in texts[p * each : (p + 1) * each]]
    cut = _cut(own, most - numbers * len(held) * each)
    shown = (lambda text: text) if cut is None else (lambda text: _short(text, cut))
    return {
        "policies": policies,
        "columns": columns,
        "prompts": [
            {
                "id": ids[p],
                "prompt": shown(asked[p]),
                "rows": [
                    [
                        shown(texts[r]),
                        quantiles[r],
                        *(_rounded(values[column][r]) for column in columns),
                    ]
                    for r in range(p * each, (p + 1) * each)
                ],
            }
            for p in held
        ],
        "cut": cut,
        "left_out": total - len(held),
    }


def _pairs(quantiles: Sequence[float]) -> str:
    """Quantiles from 0 to 1 as numbers from 00 to 99."""
    return "".join(f"{round(99 * u):02d}" for u in quantiles)


def _rounded(value: float | None) -> float | None:
    return value if value is None or isinstance(value, int) else round(value, 4)


def _cut(texts: Sequence[str], room: int) -> int | None:
    """The number of characters to which texts are shortened to fit; None if all fit whole."""
    if sum(len(text.encode()) for text in texts) <= room:
        return None
    low, high = SHORTEST, max(map(len, texts))
    while high - low > 1 + low // 50:
        middle = (low + high) // 2
        fits = sum(len(text[:middle].encode()) for text in texts) <= room
        low, high = (middle, high) if fits else (low, middle)
    return low


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def counted(responses: Mapping) -> str:
    """What the page holds of the responses, in one sentence."""
    shown = len(responses["prompts"])
    words = (
        f"{shown} prompts"
        if not responses["left_out"]
        else (
            f"{shown} of {shown + responses['left_out']} prompts, evenly spaced: all of them would "
            "make the page too large"
        )
    )
    if responses["cut"]:
        words += f"; texts are cut at {responses['cut']} characters"
    return words
