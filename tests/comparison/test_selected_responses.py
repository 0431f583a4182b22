"""The selected responses, the examples and the decisions, from samples in memory."""

import numpy as np
import pyarrow as pa
import pytest

from infalign.comparison.comparison import Comparison
from infalign.comparison.measured import Measured
from infalign.comparison.selected import examples, selected_responses
from infalign.comparison.summary import _decisions
from infalign.evaluation.uncertainty import over_prompts
from infalign.prompts import Prompt
from infalign.stores import by_prompt

PROMPTS, SAMPLES = 12, 8
SHIFTS = {"reference": 0.0, "a": 0.8, "b": 0.3, "c": 0.3}


def measured(against=None, policies=("a", "b"), procedures=("best-of-n:4", "sampling")):
    """Samples whose rewards are normal, shifted by policy."""
    prompts = [
        Prompt(f"p{i}", [{"role": "user", "content": f"Ask {i}\ud83d"}]) for i in range(PROMPTS)
    ]
    comparison = Comparison(
        reference="r",
        policies={name: name for name in policies},
        reward="x",
        gold={"gold": "y"},
        prompts=prompts,
        procedures=procedures,
        against=against,
        samples=SAMPLES,
        kl_samples=0,
    )
    made = Measured(comparison, None)
    made.samples = {}
    for number, name in enumerate(("reference", *policies)):
        rng = np.random.default_rng(number)
        rewards = rng.normal(size=PROMPTS * SAMPLES) + SHIFTS[name]
        table = pa.table(
            {
                "prompt_id": [p.id for p in prompts for _ in range(SAMPLES)],
                "sample": list(range(SAMPLES)) * PROMPTS,
                "completion": [f"{name} {r:.6f}" for r in rewards],
                "tokens": [5] * len(rewards),
                "reward": rewards,
                "reward_gold": -rewards,
                "kl": [None] * len(rewards),
                "kl_sampled": [None] * len(rewards),
            }
        )
        made.samples[name] = by_prompt(table, [p.id for p in prompts], source="here")
    return made


def test_every_prompt_and_policy_has_the_response_that_the_procedure_selects():
    made = measured()
    rows = selected_responses(made).to_pylist()
    assert [(r["prompt_id"], r["policy"]) for r in rows] == [
        (f"p{i}", name) for i in range(PROMPTS) for name in ("reference", "a", "b")
    ]
    assert rows[0]["prompt"] == "Ask 0\\ud83d", "half a character is written out"
    for number, row in enumerate(rows):
        prompt, own = number // 3, made.rewards(row["policy"])[number // 3]
        assert row["reward"] == own[row["sample"]] == -row["reward_gold"]
        assert row["response"] == f"{row['policy']} {row['reward']:.6f}"
        # The best of some four of the eight is at least the fourth from below.
        assert row["reward"] >= np.sort(own)[3]
        below = made.rewards("reference")[prompt] < row["reward"]
        ties = made.rewards("reference")[prompt] == row["reward"]
        assert row["quantile"] == pytest.approx(np.mean(below + ties / 2))
        assert len(row["quantiles"]) == SAMPLES
        assert row["quantiles"][row["sample"]] == pytest.approx(row["quantile"], abs=1e-6)
    rates = [r["win_rate"] for r in rows if r["policy"] == "a"]
    procedure, other = made.comparison.pairs["best-of-n:4"]
    assert np.mean(rates) == pytest.approx(made.win_rate("a", procedure, other).value)
    assert {r["win_rate"] for r in rows if r["policy"] == "reference"} == {None}


def test_another_policy_changes_no_selected_response():
    few, many = (selected_responses(measured(policies=own)) for own in (("a",), ("a", "b")))
    kept = [row for row in many.to_pylist() if row["policy"] != "b"]
    assert kept == few.to_pylist()


def test_the_examples_stand_where_the_rule_says():
    table = selected_responses(measured())
    rates = {name: [] for name in ("a", "b")}
    for row in table.to_pylist():
        if row["policy"] in rates:
            rates[row["policy"]].append(row["win_rate"])
    gains = np.subtract(rates["a"], rates["b"])
    shown = examples(table, "a", "b", {"a": "Mine"})
    order = np.argsort(gains, kind="stable")
    assert [e["prompt_id"] for e in shown] == [f"p{order[at]}" for at in (10, 6, 1)]
    assert [e["rank"] for e in shown] == [0.9, 0.5, 0.1]
    assert [e["gain"] for e in shown] == pytest.approx(gains[order[[10, 6, 1]]])
    assert [r["label"] for r in shown[0]["responses"]] == ["Reference", "Mine", "b"]
    alone = examples(table, "a", None, {})
    assert alone[0]["gain"] == pytest.approx(np.sort(rates["a"])[10])


def test_one_prompt_is_one_example():
    table = selected_responses(measured()).slice(0, 3)
    assert len(examples(table, "a", "b", {})) == 1


def test_a_decision_for_each_procedure_and_reward_names_the_best_and_its_lead():
    made = measured(policies=("b", "a", "c"))
    decisions = list(_decisions(made))
    first, by_gold, plain, _ = decisions
    assert [d["procedure"] for d in decisions] == ["best-of-n:4"] * 2 + ["sampling"] * 2
    assert (first["reward"], by_gold["reward"], first["untrained"]) == ("reward", "gold", 0.5)
    assert first["policy"] == plain["policy"] == "a"
    assert by_gold["policy"] in ("b", "c"), "gold is the reward upside down"
    values = [d["value"] for d in first["differences"]]
    assert {d["policy"] for d in first["differences"]} == {"b", "c"} and values == sorted(values)
    procedure, other = made.comparison.pairs["best-of-n:4"]
    rate = {n: made.win_rate(n, procedure, other).value for n in ("a", "b", "c")}
    for own in first["differences"]:
        assert own["value"] == pytest.approx(rate["a"] - rate[own["policy"]])
        assert own["low"] < own["value"] < own["high"]
    alone = made.win_rate("a", procedure, other).per_prompt
    chosen = over_prompts(alone, level=1 - 0.05 / 3, bounds=(0, 1))
    assert first["win_rate"] == chosen.figures(), "one of three was chosen"
    for own in first["differences"]:
        gap = alone - made.win_rate(own["policy"], procedure, other).per_prompt
        apart = over_prompts(gap, bounds=(-1, 1))
        assert own["low"] < apart.low and apart.high < own["high"], "three pairs hold together"
    ranks = first["ranks"]
    assert ranks["a"]["best"] == 1 and {r["worst"] for r in ranks.values()} <= {1, 2, 3}
    for own in first["differences"]:
        shares = set(ranks["a"]["tied"].split()) & set(ranks[own["policy"]]["tied"].split())
        assert bool(shares) == (own["low"] <= 0)


def test_two_policies_have_the_interval_of_their_difference_and_no_ranks():
    made = measured(policies=("b", "a"), procedures=("best-of-n:4",))
    first, _ = _decisions(made)
    pair = made.comparison.pairs["best-of-n:4"]
    gap = made.win_rate("a", *pair).per_prompt - made.win_rate("b", *pair).per_prompt
    apart = over_prompts(gap, bounds=(-1, 1))
    (own,) = first["differences"]
    assert (own["low"], own["high"]) == (apart.low, apart.high) and "ranks" not in first


def test_the_reference_itself_wins_more_with_another_procedure():
    made = measured(against="sampling", procedures=("best-of-n:4",))
    first, by_gold = _decisions(made)
    assert first["untrained"] == pytest.approx(4 / 5, abs=1e-6), "the best of 4 beats one more draw"
    assert by_gold["untrained"] is None
