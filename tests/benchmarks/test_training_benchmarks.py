"""Pages of the training benchmarks: what was measured is on them, and verdicts hold."""

import pytest
from scripts import load_script


def load(name):
    return load_script(f"benchmarks/{name}.py")


def policy(method="likelihood", kl=0.51, won=0.875, target=0.5):
    return {
        "procedure": "best-of-n:8",
        "target": target,
        "method": method,
        "kl": kl,
        "kl_stderr": 0.01,
        "landed": target,
        "alpha": 1.0,
        "win_rate": won,
        "stderr": 0.011,
        "sampling": 0.7,
        "efficiency": 0.71,
        "frontier": 0.932,
        "theory": None if method == "dpo" else 0.9,
    }


def test_the_frontier_page_orders_policies_and_counts_policies_on_target():
    frontier = load("frontier")
    rows = [policy("dpo", 0.56, 0.778), policy()]
    page = frontier.page({"plan": vars(frontier.FULL), "rows": rows})
    assert "On the validation prompts 2 of 2 policies" in page and "held-out prompts 1 of 2" in page
    best, worst = (line for line in page.splitlines() if line.startswith("| 0.5 |"))
    assert best.startswith("| 0.5 | likelihood weighted by the tilt | 0.510 ± 0.010 | 71% | 87.5")
    assert best.endswith("| 90.0 | 93.2 | 5.7 |") and worst.endswith("|  | 93.2 | 15.4 |")
    assert len(frontier.figure(rows).axes) == 1


@pytest.mark.parametrize(
    ("won", "words"), [(0.83, "standard error, after 6.0 times"), (0.8, "does not reach")]
)
def test_offline_is_compared_with_what_first_reaches_it(won, words):
    training = load("training")
    row = {"kl": 0.5, "stderr": 0.01}
    rows = [
        {"name": "offline", "seconds": 40.0, "win_rate": 0.82, **row},
        {"name": "on policy, 10 steps", "seconds": 60.0, "win_rate": 0.7, **row},
        {"name": "on policy, 40 steps", "seconds": 240.0, "win_rate": won, **row},
    ]
    results = {
        "plan": vars(training.Sizes()),
        "machine": dict.fromkeys(("threads", "cores", "python", "torch", "transformers", "trl"), 2),
        "offline": {"load": 0.0, "found": rows},
    }
    page = training.page(results)
    assert words in page and "at least 5 times; met" in page


def test_all_subsets_estimate_the_exact_gradient_with_less_variance(tmp_path):
    training = load("training")
    rows = training.variance(training.SMOKE, tmp_path)
    assert max(row["worst_error"] for row in rows) < 4.5  # of 60 entries
    for row in rows:
        as_many = row["one"] * 2 * row["n"] / row["m"]
        assert as_many > 3 * row["all"]
