"""Bands over n hold as often as they say, in worlds of the benchmark; its page is its results."""

import json
from pathlib import Path

import numpy as np
import pytest
from scripts import load_script

from infalign import BestOfN, win_rate
from infalign.evaluation import simultaneous

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmark():
    return load_script("benchmarks/bands.py")


@pytest.mark.parametrize(
    ("kind", "world"), [("binary", "sharper"), ("continuous", "balanced"), ("continuous", "beaten")]
)
def test_bands_and_sets_hold_and_intervals_at_one_n_do_not_hold_together(
    benchmark, kind, world, monkeypatch
):
    monkeypatch.setattr(simultaneous, "DRAWS", 1_000)
    runs = 150
    rng = np.random.default_rng(0)
    row = benchmark.studied(benchmark.WORLDS[kind][world], 60, 16, runs, rng)
    for key in ("together", "each", "first"):
        assert benchmark.distance(row[key], runs) > -3, key
    assert row["all_alone"] < row["together"] and row["widths"][0] < row["widths"][1]


@pytest.mark.parametrize("kind", ["binary", "continuous"])
def test_the_curves_of_the_worlds_are_known(benchmark, kind):
    for name, world in benchmark.WORLDS[kind].items():
        policy, reference = world.draw(np.random.default_rng(1), 20_000, 8)
        for n, truth in zip((1, 8), world.truth(np.array([1, 8])), strict=True):
            own = win_rate(policy, reference, BestOfN(n))
            assert abs(own.value - truth) < 4 * own.stderr, name


def test_the_committed_page_is_made_of_the_committed_results(benchmark):
    results = json.loads((REPOSITORY / "benchmarks/bands.json").read_text())
    committed = (REPOSITORY / "docs/band-benchmarks.md").read_text(encoding="utf-8")
    assert committed == benchmark.page(results)
