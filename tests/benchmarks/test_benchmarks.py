"""The benchmark runs, its page holds all it measured, and what it compares agrees."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "run.py"
PARTS = [
    "designs",
    "frontiers",
    "fixed_points",
    "accuracy",
    "growth_in_n",
    "growth_in_kl",
    "finite",
    "estimators",
    "estimators_growth",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("benchmarks")
    done = subprocess.run(
        [sys.executable, SCRIPT, "--smoke", "--out", out], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def results(folder):
    return json.loads((folder / "benchmarks" / "results.json").read_text())


def times_in(value):
    """Every measured time below a value of the results."""
    if isinstance(value, dict) and "repetitions" in value:
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from times_in(part)


def test_every_part_has_cases_and_every_time_was_repeated(results):
    assert list(results) == ["machine", *PARTS, "coverage", "waits"]
    for part in PARTS:
        assert results[part]
        for row in results[part]:
            times = list(times_in(row))
            assert times and row["procedure"].split(":")[0] in ("best-of-n", "worst-of-n")
            for time in times:
                assert 0 < time["min"] <= time["median"] and time["repetitions"] >= 3


def test_waits_are_given_by_family_with_their_alternatives(results):
    waits = results["waits"]
    for row in waits["designs"]:
        assert row["designs"] == 4 and 0 < row["p50"] <= row["p95"] <= row["worst"]
        assert row["solve_bvp"] > 0 and row["ratio"] > 0
    assert {row["points"] for row in waits["frontiers"]} == {3}
    assert all(row["commands"] > 0 and row["refused"] == 0 for row in waits["commands"])


def test_the_machine_is_described(results):
    machine = results["machine"]
    assert machine["cores_used"] == 1 <= machine["cores"]
    assert all(machine[key] for key in ("processor", "python", "numpy", "scipy", "infalign"))


def test_both_roads_agree(results):
    for row in results["fixed_points"]:
        assert row["extrapolated_win_rate"] == pytest.approx(row["win_rate"], abs=1e-8)
        assert 1e-8 < row["grid_error"] < 1e-4 and row["gap"] < 1e-12
    for row in results["frontiers"]:
        assert row["largest_difference"] < 1e-10
    for row in results["accuracy"]:
        coarse, fine = (point["error"] for point in row["grids"])
        assert coarse / fine == pytest.approx(4, rel=0.3)


def test_the_fixed_point_is_stopped_at_the_accuracy_it_is_said_to_have(results):
    for row in results["fixed_points"]:
        # Second order: the error times the square of the cells is the same on both grids.
        equal = row["equal"]["cells"]
        assert row["grid_error"] * (row["cells"] / equal) ** 2 == pytest.approx(1e-9, rel=0.01)
        assert row["steps"] > 1


def test_outcomes_tend_to_the_quantile_axis(results):
    import infalign as ia

    for row in results["finite"]:
        exact = ia.design(ia.parse_procedure(row["procedure"]), beta=0.2).win_rate
        assert abs(row["win_rate"] - exact) < 0.2 * (10 / row["outcomes"]) ** 0.5


def test_win_rates_are_beside_a_sort_and_resampling(results):
    for row in results["estimators"]:
        assert 0 < row["win_rate"] < 1
        assert row["per_sort"] == pytest.approx(row["estimate"]["min"] / row["sort"]["min"])
        assert ("resampled" in row) == (row["rewards"] != "a tenth missing")
    assert {row["grows"] for row in results["estimators_growth"]} == {"samples", "prompts"}


def test_every_interval_lies_above_the_truth_below_it_or_holds_it(results):
    for row in results["coverage"]:
        for kind in ("default", "Student", "bootstrap"):
            found = row[kind]
            assert found["holds"] + found["above"] + found["below"] == pytest.approx(1)
            # Where all prompts agree, only the default allows for others that were not drawn.
            assert found["width"] >= 0
        assert row["default"]["width"] > 0


def test_one_part_alone_keeps_the_other_results(folder, results):
    arguments = [sys.executable, SCRIPT, "--smoke", "--out", folder, "--only"]
    done = subprocess.run([*arguments, "estimators_growth"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = json.loads((folder / "benchmarks" / "results.json").read_text())
    assert after.pop("estimators_growth") != results["estimators_growth"]
    assert after == {k: v for k, v in results.items() if k != "estimators_growth"}
    done = subprocess.run([*arguments, "design"], capture_output=True, text=True)
    assert done.returncode == 2 and "'design' is not a part; parts are designs" in done.stderr


def test_the_page_and_its_pictures_are_written(folder, results):
    page = (folder / "docs" / "benchmarks.md").read_text()
    assert "{" not in page and "nan" not in page
    for row in results["estimators"]:
        assert f"| {row['rewards']} | {1e3 * row['estimate']['min']:.3g} |" in page
    for row in results["coverage"]:
        assert f"| {row['case']} | {row['prompts']} |" in page
    for part in ("designs", "frontiers", "fixed_points", "finite"):
        assert all(f"| {row['procedure']} |" in page for row in results[part])
    time = results["frontiers"][0]["frontier"]["min"]
    assert np.isfinite(time) and f"{1e3 * time:.3g}" in page
    for name in ("growth", "accuracy", "estimators"):
        assert f"images/bench_{name}.png" in page
        assert (folder / f"docs/images/bench_{name}.png").read_bytes().startswith(b"\x89PNG")
