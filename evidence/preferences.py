"""Preference pairs of the three tasks, in two halves that share no prompt.

- `helpful`, `harmless`: Anthropic HH, the human's choice between two replies.
- `tldr`: Reddit posts, a judge's choice between a model's summary and a person's. A post without a
  judgement gives a pair too: a person's summary of it is better than one of another post.

The hash of the first message decides the half, so that no question is on both sides, whichever
file it came from. Buckets 0 and 1, which the bundled rewards have not seen either, are in half b.
"""

import sys
from pathlib import Path

import pyarrow.parquet as pq

sys.path.append(str(Path(__file__).parents[1] / "bundled_models"))
from corpus import Pair, bucket, load_pairs

__all__ = ["HALVES", "TASKS", "Pair", "bucket", "half_of", "load_task", "post_prompt"]

TASKS = ("helpful", "harmless", "tldr")
HALVES = {"a": range(5, 10), "b": range(5)}
"""Buckets of the first message in each half."""

SUMMARIZE = "Summarize this post in one or two sentences.\n\n"


def half_of(pair: Pair) -> str:
    """The half that a pair is in."""
    return "a" if bucket(pair.turns[0]) in HALVES["a"] else "b"


def post_prompt(post: str) -> str:
    """A Reddit post as a request for its summary."""
    return SUMMARIZE + post.strip().removesuffix("TL;DR:").strip()


def load_task(task: str, data: Path | None, *, judged: bool = False) -> list[Pair]:
    """Pairs of one task from the folder `data`, or from the hub.

    - `judged`: only pairs that a person or a judge has compared.
    """
    if task != "tldr":
        return load_pairs(task, data)
    rows = _posts(data)
    pairs = []
    for row, other in zip(rows, [*rows[1:], *rows[:1]], strict=True):
        turns, summaries = (post_prompt(row["prompt"]),), (row["reference"], row["response"])
        if row["preferred"] is not None:
            best = row["preferred"] == "reference"
            pairs.append(Pair(turns, *(summaries if best else summaries[::-1])))
        elif not judged:
            pairs.append(Pair(turns, row["reference"], other["reference"]))
    return [
        Pair(p.turns, p.chosen.strip(), p.rejected.strip())
        for p in pairs
        if p.chosen.strip() != p.rejected.strip()
    ]


def _posts(data: Path | None) -> list[dict]:
    """Posts with a model's and a person's summary, `preferred` or None."""
    if data is not None:
        return pq.read_table(data / "preferences/tldr_oai1b_judged.parquet").to_pylist()
    from datasets import load_dataset

    rows = load_dataset("openai/summarize_from_feedback", "comparisons", split="train")
    return [
        {
            "prompt": f"TITLE: {row['info']['title']}\n\nPOST: {row['info']['post']}",
            "reference": row["summaries"][0]["text"],
            "response": row["summaries"][1]["text"],
            "preferred": "response" if row["choice"] else "reference",
        }
        for row in rows
    ]
