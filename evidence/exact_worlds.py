"""Finite worlds with real rewards: for each prompt, K equally likely responses.

A world that cannot be read is left out, with the reason. Beside each real world stand two that
lack one property of it each:

- `one scale`: each prompt's rewards divided by their standard deviation; ties and skew remain.
- `normal`: K distinct rewards at the quantiles of the normal distribution, the same for all
  prompts. With K = 2,000 it is the theory's continuous reward, as closely as is needed.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow.parquet as pq
from scipy.special import ndtri
from scipy.stats import skew

CONTINUOUS = 2_000
"""Responses of the world that stands for a continuous reward."""


@dataclass(frozen=True)
class World:
    """Raw rewards of equally likely responses, shape (prompts, K)."""

    ONE_SCALE: ClassVar[str] = ", one scale"

    name: str
    rewards: np.ndarray

    @property
    def one_scale(self) -> "World":
        """The same rewards, with standard deviation 1 in each prompt whose rewards differ."""
        spread = self.rewards.std(1, keepdims=True)
        scaled = np.divide(self.rewards, spread, out=np.zeros_like(self.rewards), where=spread > 0)
        return World(self.name + self.ONE_SCALE, scaled)

    @property
    def facts(self) -> dict[str, float]:
        """What distinguishes the rewards from continuous ones of one scale."""
        prompts, k = self.rewards.shape
        tied = [
            (np.square(np.unique(row, return_counts=True)[1]).sum() - k) / (k * (k - 1))
            for row in self.rewards
        ]
        varied = self.rewards[np.ptp(self.rewards, 1) > 0]
        spread = np.quantile(varied.std(1), [0.1, 0.9])
        return {
            "prompts": prompts,
            "responses": k,
            "tied_pairs": float(np.mean(tied)),
            "constant_prompts": 1 - len(varied) / prompts,
            "median_skewness": float(np.median(skew(varied, axis=1))),
            "scale_ratio": float(spread[1] / spread[0]),
        }


def normal(k: int = CONTINUOUS) -> World:
    """One prompt with `k` distinct rewards at normal quantiles."""
    return World(f"normal, K = {k:,}", ndtri((np.arange(k) + 0.5) / k)[None])


def judged(data: Path) -> World:
    """Tulu 2 on AlpacaEval: a judge's scores of 11 responses to each of 805 prompts.

    Responses 11 to 15 have no score.
    """
    table = pq.read_table(data / "samples/rewardbench_bon16/samples.parquet").to_pandas()
    scored = table[table["sample"] <= 10].sort_values(["prompt_id", "sample"])
    return World("judge's score", scored["reward"].to_numpy().reshape(-1, 11))


def correct(data: Path) -> World:
    """DeepSeek-R1-Distill-Qwen-1.5B on mathematics: whether each of 128 answers is correct."""
    lines = (data / "counts/deepscaler_base.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    counts = np.array([row["c"] for row in rows])[:, None]
    return World("correct or not", (np.arange(rows[0]["n"]) < counts).astype(float))


def scored(path: Path) -> dict[str, Callable[[Path], World]]:
    """The worlds of the real model's own responses, by reward, from the scores in `path`."""
    if not path.is_file():
        return {}
    rewards: dict[str, list[list[float]]] = {}
    for prompt in json.loads(path.read_text())["prompts"]:
        for name, row in prompt["rewards"].items():
            rewards.setdefault(name, []).append(row)
    return {
        name: lambda _, name=name, rows=rows: World(f"SmolLM2, {name}", np.array(rows, float))
        for name, rows in rewards.items()
    }


FROM_DATA = {"judge's score": judged, "correct or not": correct}
"""Worlds from a data folder that is not part of the repository."""
