"""The benchmark of length control runs on what is given, and its page says what it measured."""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scripts import load_script

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "length_control.py"
REPOSITORY = SCRIPT.parents[1]


@pytest.fixture(scope="module")
def benchmark():
    return load_script("benchmarks/length_control.py")


def annotations(model, gap, rng):
    """40 rows as alpaca_eval writes them, one of them without a verdict."""
    rows = [
        {
            "instruction": f"question {i}",
            "output_1": "x" * 50,
            "output_2": "y" * max(1, round(50 + gap + 20 * rng.normal())),
            "generator_2": model,
            "preference": float(rng.uniform(1, 2)),
        }
        for i in range(40)
    ]
    rows[0]["preference"] = None
    return rows


def test_it_measures_what_is_given_and_keeps_the_rest(benchmark, tmp_path, monkeypatch):
    rng, alpaca = np.random.default_rng(0), tmp_path / "alpaca"
    board = alpaca / benchmark.LEADERBOARD
    board.parent.mkdir(parents=True)
    board.write_text(
        ",win_rate,avg_length,length_controlled_winrate\nclose,50,2000,51.0\nbrief,20,300,30.0\n"
    )
    for model, gap in (("close", 0), ("brief", -45)):
        file = alpaca / benchmark.ANNOTATIONS.replace("*", model)
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(annotations(model, gap, rng)))
    pairs = {"chosen": ["long answer", "no", "b"], "rejected": ["short", "never", "c"]}
    pq.write_table(pa.table(pairs), tmp_path / "judged.parquet")
    call = [str(SCRIPT), "--experiments", "1", "--out", str(tmp_path)]
    given = ["--alpaca", str(alpaca), "--preferences", str(tmp_path / "judged.parquet")]
    monkeypatch.setattr(sys, "argv", call + given)
    benchmark.main()
    results = json.loads((tmp_path / "benchmarks/length_control.json").read_text())
    brief, close = results["alpaca"]
    assert close["identified"] and abs(close["difference"]) < 0.2 and close["invalid"] == 1
    assert not brief["identified"] and brief["difference"] is None and brief["overlap"] < 0.1
    page = (tmp_path / "docs/length-control.md").read_text(encoding="utf-8")
    assert "| judged | 50 |" in page and "| 20–50 % | 1 | 1 |" in page and "| 0–5 % |" in page
    assert results["published"]["models"] == 1 and results["published"]["mean"] > 0
    monkeypatch.setattr(sys, "argv", call)
    benchmark.main()
    assert (tmp_path / "docs/length-control.md").read_text(encoding="utf-8") == page


def test_the_committed_page_is_made_of_the_committed_results(benchmark):
    results = json.loads((REPOSITORY / "benchmarks/length_control.json").read_text())
    committed = (REPOSITORY / "docs/length-control.md").read_text(encoding="utf-8")
    assert committed == benchmark.page(results)
