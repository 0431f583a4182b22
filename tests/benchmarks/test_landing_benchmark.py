"""Two ways of KL targeting, on a tiny case; the benchmark's page is its results."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from scripts import load_script

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmark():
    return load_script("benchmarks/landing.py")


@pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL's settings and transformers disagree
def test_both_ways_land_and_only_fresh_sets_are_drawn_for_every_measurement(benchmark):
    results = benchmark.measure(replace(benchmark.SMOKE, check=256))
    (row,) = results["rows"]
    fresh, reweighted = row["fresh"], row["reweighted"]
    assert fresh["sets"] == fresh["measurements"] >= reweighted["sets"] >= 1
    for way in (fresh, reweighted):
        error = (way["stderr"] ** 2 + way["checked_stderr"] ** 2) ** 0.5
        assert abs(way["checked"] - way["kl"]) < 4 * error
    assert f"| {row['method']} | {row['target']:g} |" in benchmark.page(results)


def test_the_committed_page_is_made_of_the_committed_results(benchmark):
    results = json.loads((REPOSITORY / "benchmarks/landing.json").read_text())
    committed = (REPOSITORY / "docs/landing-benchmarks.md").read_text(encoding="utf-8")
    assert committed == benchmark.page(results)
