"""The decoding benchmark runs, and its page says what it measured."""

import json

import pytest
from scripts import load_script, run_small


@pytest.fixture(scope="module")
def benchmark():
    return load_script("benchmarks/decoding.py")


def test_it_runs_and_the_page_is_made_of_the_results(benchmark, tmp_path, capsys):
    run_small(benchmark, tmp_path)
    results = json.loads((tmp_path / "benchmarks" / "decoding.json").read_text())
    (case,) = results["cases"]
    assert case["n"] * case["prompts"] == results["plan"]["responses"] == 8
    for seconds in case["seconds"].values():
        assert len(seconds) == results["plan"]["repetitions"] and min(seconds) > 0
    page = (tmp_path / "docs" / "decoding-benchmarks.md").read_text(encoding="utf-8")
    assert page == benchmark.page(results)
    assert capsys.readouterr().out.strip() == page.strip()


def test_the_page_marks_what_misses_the_aim(benchmark):
    machine = dict.fromkeys(("processor", "cores", "python", "torch", "transformers"), "")
    cases = [
        {"tokens": 16, "n": 8, "prompts": 4, "seconds": {"generate": a, "infalign": b}}
        for a, b in [([2.0, 2.0, 4.0], [1.0, 2.0, 5.0]), ([1.0, 1.8, 1.0], [2.0, 2.0, 2.0])]
    ]
    plan = {"responses": 32, "max_new_tokens": 4, "repetitions": 3}
    page = benchmark.page({"machine": {**machine, "load": 0.0}, "plan": plan, "cases": cases})
    assert "1 of 2 cases meet it" in page
    assert "| 16 | 8 | 16 | 32 | 1.00× (0.80 to 2.00) |" in page
    assert "| 16 | 8 | 32 | 16 | **0.50×** (0.50 to 0.90) |" in page
