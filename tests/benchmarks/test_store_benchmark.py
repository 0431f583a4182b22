"""The store benchmark runs, and its page says what it measured."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "store.py"


def test_it_runs_and_the_page_is_made_of_the_results(tmp_path):
    command = [sys.executable, SCRIPT, "--smoke", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "benchmarks/store.json").read_text())
    rows = results["cases"]
    assert [(row["grows"], row["prompts"], row["samples"]) for row in rows] == [
        ("prompts", 40, 4), ("prompts", 80, 4), ("samples", 40, 2), ("samples", 40, 4),
    ]  # fmt: skip
    page = (tmp_path / "docs/store-benchmarks.md").read_text()
    assert done.stdout.strip() == page.strip() and "{" not in page
    for row in rows:
        assert row["bytes"] > row["prompts"] * row["samples"] * 4  # at least the rewards
        for kind in ("store", "dict"):
            assert row[kind]["open_seconds"] > 0
            assert row[kind]["look_ups"].keys() == {"8", "16"}
            assert min(row[kind]["look_ups"].values()) > 0
        assert f"{1e3 * row['store']['open_seconds']:.3g}" in page
        assert f"{row['bytes'] / row['prompts']:.0f}" in page
