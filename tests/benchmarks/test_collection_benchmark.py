"""The collection benchmark runs, and its page says what it measured."""

import json

import pytest
from scripts import load_script, run_small


@pytest.fixture(scope="module")
def benchmark():
    return load_script("benchmarks/collection.py")


def test_it_runs_and_the_page_is_made_of_the_results(benchmark, tmp_path, capsys):
    run_small(benchmark, tmp_path)
    results = json.loads((tmp_path / "benchmarks" / "collection.json").read_text())
    (case,) = results["overhead"]
    assert (case["prompts"], case["samples"]) == (2, 2)
    for seconds in case["seconds"].values():
        assert len(seconds) == results["plan"]["repetitions"] and min(seconds) > 0
    again = [row for row in results["changed"] if row["size"] == 1]
    assert [(row["precision"], row["differ"]) for row in again] == [
        ("float32", 0),
        ("bfloat16", 0),
    ]
    page = (tmp_path / "docs" / "collection-benchmarks.md").read_text(encoding="utf-8")
    assert page == benchmark.page(results)
    assert capsys.readouterr().out.strip() == page.strip()


def test_the_page_marks_what_misses_the_aims(benchmark):
    machine = dict.fromkeys(("cores", "python", "torch", "transformers"), "") | {"load": 0.0}
    plan = benchmark.asdict(benchmark.Plan())
    times = [([2.0, 2.0, 4.0], [1.0, 2.0, 5.0]), ([1.0, 1.0, 2.0], [1.1, 1.2, 2.2])]
    results = {
        "machine": machine,
        "plan": plan,
        "overhead": [
            {"prompts": 4, "samples": 8, "seconds": {"bare": b, "collect": c}} for b, c in times
        ],
        "changed": [{"precision": "bfloat16", "size": 4, "responses": 200, "differ": 3}],
        "workers": [
            {"load": 1.0, "1": {"rate": 2.0, "seconds": 9.0}, "2": {"rate": r, "seconds": 7.0}}
            for r in (3.0, 3.2, 4.0)
        ],
    }
    page = benchmark.page(results)
    assert "1 of 2 cases meet it" in page
    assert "| 4 | 8 | 16 | 32 | 1.00× (0.50 to 1.25) |" in page
    assert "| 4 | 8 | 32 | 29 | **1.10×** (1.10 to 1.20) |" in page
    assert "| bfloat16 | 4 | 200 | 3 (1.5%) |" in page
    assert "Two workers are 1.60 times" in page and "**missed**" in page
    assert "| 1.0 | 2.00 | 3.20 | 1.60 | 9.0 s | 7.0 s |" in page
    assert "Not measured" in benchmark.page({**results, "workers": []})
