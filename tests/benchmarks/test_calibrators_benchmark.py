"""The calibrators' benchmark runs, goes on where it was, and its page says what it measured."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtri
from scripts import load_script

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        module = load_script("benchmarks/calibrators.py")
        patch.setattr(module, "SMOKE", module.Plan(samples=(2,), prompts=8, bundled=0))
        # In this process, so that what is judged can be watched.
        patch.setattr(module, "ProcessPoolExecutor", lambda jobs: InTurn())
        yield module


class InTurn:
    """An executor that runs at once."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, function, *arguments):
        value = function(*arguments)
        return type("Done", (), {"result": staticmethod(lambda: value)})


def test_it_runs_resumes_and_the_page_is_made_of_the_results(
    benchmark, tmp_path, monkeypatch, capsys
):
    out, nowhere = tmp_path / "out", tmp_path / "nowhere"
    arguments = ["calibrators.py", "--smoke", "--out", str(out), "--data", str(nowhere)]
    monkeypatch.setattr(sys, "argv", arguments)
    benchmark.main()
    told = capsys.readouterr()
    assert f"{nowhere} has no folder `samples`: public samples are skipped." in told.err
    results = json.loads((out / "benchmarks" / "calibrators.json").read_text())
    assert {case["samples"] for case in results["cases"]} == {2} and len(results["cases"]) == 6
    page = (out / "docs" / "calibrators.md").read_text(encoding="utf-8")
    assert page == benchmark.page(results) and told.out.strip() == page.strip()
    for task in results["tasks"]:
        assert f"images/calibrators_{task}.png" in page
        picture = (out / "docs" / "images" / f"calibrators_{task}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")

    monkeypatch.setattr(benchmark, "judged", None)  # nothing is judged twice
    benchmark.main()
    assert json.loads((out / "benchmarks" / "calibrators.json").read_text()) == results


def test_refined_quantiles_are_nearer_to_the_truth_than_counted_ones(benchmark):
    world = benchmark.known_worlds(40)["normal"]
    rng = np.random.default_rng(0)
    rewards, truth, _ = world.draw(8, rng)
    counted = benchmark.Counting().fit(rewards)
    _, transform = benchmark.TASKS["best-of-8"]
    shaped = truth.shaped(counted, transform)
    refined = benchmark._refined(rewards, truth, counted, shaped, "best-of-8", rng)
    middles = (truth.edges[:-1] + truth.edges[1:]) / 2
    upper = (middles > 0.8) & (middles < 0.99)
    rows = np.arange(40)
    errors = [
        np.abs(fitted.quantiles(rows, truth.rewards) - middles)[:, upper].mean()
        for fitted in (refined, counted)
    ]
    assert errors[0] < 0.8 * errors[1]


def test_known_worlds_have_the_features_that_the_page_says(benchmark):
    world = benchmark.known_worlds(20_000)["normal, one scale"]
    place = world.quantile(np.full((20_000, 1), 0.5))[:, 0] - ndtri(0.5)
    fit = np.linalg.lstsq(world.features, place, rcond=None)[0]
    explained = 1 - np.var(place - world.features @ fit) / np.var(place)
    assert abs(explained - 0.5) < 0.02 and abs(place.var() - 1) < 0.05


def test_the_page_tells_worse_from_what_chance_explains(benchmark):
    def row(value, over=0.0, stderr=0.001):
        paired = {"value": over, "stderr": stderr}
        below = {"value": value - 0.9, "stderr": 0.01}
        return {"value": value, "stderr": 0.01, "over_counting": paired, "over_exact": below}

    own = {"identity": row(0.8), "exact": row(0.9), "counting": row(0.84)}
    own |= {"pooled": row(0.89, -0.03), "tail": row(0.88, -0.03, 0.02), "chosen": row(0.89)}
    tasks = {"best-of-8": "exponential:20"}
    case = {"world": "normal", "samples": 4, "chosen": ["pooled"], "best-of-8": own}
    plan = {"prompts": 8, "rounds": 1, "bundled": 0, "samples": [4]}
    page = benchmark.page({"plan": plan, "tasks": tasks, "data": False, "cases": [case]})
    assert "| pooled | best-of-8 | 1 | normal, K = 4: −3.00 ± 0.10 | none |" in page
    assert "| tail | best-of-8 | 1 | none | normal, K = 4: −3.00 ± 2.00 |" in page
    assert "| normal | 4 | 40 ± 10 % | **80 ± 10 %** | **90 ± 10 %** |" in page
    assert "89.0 ± 1.0 · 90 % (pooled) | 90.0 |" in page
