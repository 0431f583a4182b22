"""The decision of a report: what is to be deployed, and what argues against it."""

import copy
import json

import pytest
from test_reports import SAMPLING, WORST, estimate, results

from infalign.reports.decision import decide, outcome

NONE = {"low": None, "high": None}


def main(values):
    return values["decisions"][0]


def best(values):
    return values["policies"][0]


def said(values):
    return " ".join(decide(values).against)


def test_a_policy_that_wins_more_for_sure_is_deployed():
    decision = decide(results())
    assert decision.title == "Deploy InfAlign-CTRL, decoded with worst-of-4" and decision.made
    assert decision.sentences == (
        "InfAlign-CTRL, decoded with worst-of-4, beats the reference in 91.2 % [89.4, 93.0] of "
        "comparisons.",
        "That is 8.2 points [6.1, 10.3] more than Plain RLHF, at about the same KL.",
        "Decoded with plain sampling, Plain RLHF is the best: 74.1 % [72.5, 75.7]. InfAlign-CTRL "
        "wins 70.2 % [68.6, 71.8], 3.9 points [2.3, 5.5] less.",
    )
    assert [(fact.value, fact.note) for fact in decision.facts] == [
        ("91.2 % [89.4, 93.0]", "50.0 % without training"),
        ("+8.2 points [+6.1, +10.3]", "paired by prompt"),
        ("0.492 nats [0.472, 0.512]", "target 0.5"),
        ("95.1 %", "for any policy, in theory"),
        ("55.5 % [53.5, 57.5]", "a reward not trained on"),
        ("64.5 % [54.5, 74.5]", "a judge"),
    ]


def test_the_interval_and_not_the_estimate_decides():
    values = results()
    best(values)["win_rates"][WORST] = estimate(0.51, 0.02)
    assert decide(values).title.startswith("Keep the reference: no policy wins more for sure")
    for policy in values["policies"]:
        policy["win_rates"][WORST] = estimate(0.45, 0.02)
    assert decide(values).title.startswith("Keep the reference: every policy wins less")
    values["policies"][1]["win_rates"][WORST] = estimate(0.44, 0.1)
    assert decide(values).title.startswith("Keep the reference: no policy wins more for sure")
    best(values)["win_rates"][WORST] |= NONE
    decision = decide(values)
    assert decision.title == "No decision: too few prompts for an interval" and not decision.made


def test_the_decision_allows_for_the_choice_of_the_best_policy():
    values = results()
    best(values)["win_rates"][WORST] = estimate(0.53, 0.02)
    assert decide(values).title.startswith("Deploy")
    main(values)["win_rate"] = estimate(0.53, 0.032)
    decision = decide(values)
    assert decision.title.startswith("Keep the reference: no policy wins more for sure")
    assert decision.sentences[1] == (
        "It was chosen as the best of 2 policies: the interval that allows for this choice, "
        "[49.8, 56.2], contains 50.0 %."
    )


def test_a_policy_that_loses_is_not_said_to_beat_the_reference_or_to_win_by_length():
    values = results()
    best(values)["win_rates"][WORST] = estimate(0.25, 0.02)
    best(values)["length_controlled"][WORST] = estimate(0.4, 0.02)
    decision = decide(values)
    assert decision.sentences[0].startswith(
        "InfAlign-CTRL, decoded with worst-of-4, wins only 25.0 % [23.0, 27.0] of comparisons with"
    )
    assert "win by length" not in " ".join(decision.against)
    best(values)["win_rates"][WORST] = estimate(0.75, 0.02)
    assert "It may win by length: at equal length, its win rate is 40.0 %" in said(values)


def test_policies_that_do_not_differ_for_sure_are_named_together():
    values = results()
    main(values)["differences"][0] |= {"value": 0.004, "low": -0.01, "high": 0.018}
    decision = decide(values)
    assert decision.title == "Deploy InfAlign-CTRL or Plain RLHF, decoded with worst-of-4"
    assert "0.4 points [-1.0, 1.8] more than Plain RLHF" in decision.sentences[1]
    assert decision.sentences[1].endswith("The difference is not significant.")
    main(values)["differences"][0] |= NONE
    assert "too few prompts for an interval" in decide(values).sentences[1]


def test_a_quick_run_decides_nothing():
    decision = decide(results() | {"evidence": False})
    assert decision.title.startswith("No decision: a quick run. It would say: deploy InfAlign-CTRL")
    assert not decision.made and "not evidence" in decision.against[0]
    assert "evidence" not in said(results())


def test_the_reference_is_held_to_the_same_procedure():
    values = results()
    values["procedures"][WORST] = SAMPLING
    main(values)["untrained"] = 0.92  # another way to decode alone gives this
    decision = decide(values)
    assert decision.title.startswith("Keep the reference: no policy wins more for sure")
    assert decision.sentences[1] == (
        "The reference itself, decoded with worst-of-4 against plain sampling, would win 92.0 %."
    )
    assert decision.facts[0].note == "92.0 % without training"
    main(values)["untrained"] = None
    assert decide(values).title.startswith("No decision: what the reference wins") and (
        not decide(values).made
    )


def test_a_policy_without_rivals_or_kl_is_decided_on_alone():
    values = results()
    values["policies"], values["differences"] = values["policies"][:1], []
    for decision in values["decisions"]:
        decision |= {"policy": "rloo", "differences": []}
    best(values).update(kl=None, frontier=None)
    decision = decide(values)
    assert decision.title == "Deploy InfAlign-CTRL, decoded with worst-of-4"
    assert "Decoded with plain sampling, it wins 70.2 % [68.6" in decision.sentences[1]
    assert "Its KL was not measured" in said(values)
    assert ("not measured", "target 0.5") in [(f.value, f.note) for f in decision.facts]


def changed(path, value):
    def change(values):
        *parents, last = path
        part = values
        for key in parents:
            part = part[key]
        part[last] = value

    return change


POLICY = ("policies", 0)
ARGUMENTS = {
    "gold does not agree": (
        changed((*POLICY, "gold", "gold", WORST), estimate(0.49, 0.03)),
        "By gold, InfAlign-CTRL does not win for sure: 49.0 % [46.0, 52.0].",
    ),
    "gold agrees less": (
        changed((*POLICY, "gold", "gold", WORST), estimate(0.75, 0.03)),
        "By gold, InfAlign-CTRL wins 75.0 % [72.0, 78.0], 16.2 points less than by the training",
    ),
    "gold prefers another": (
        changed(
            ("decisions", 1),
            {
                "procedure": WORST,
                "reward": "gold",
                "policy": "rlhf",
                "untrained": 0.5,
                "differences": [{"policy": "rloo", **estimate(0.05, 0.02)}],
            },
        ),
        "By gold, Plain RLHF wins more: by 5.0 points [3.0, 7.0].",
    ),
    "the judge does not agree": (
        changed((*POLICY, "judge", "win_rate"), estimate(0.52, 0.05)),
        "By the judge, InfAlign-CTRL does not win for sure: 52.0 % [47.0, 57.0], of 126 pairs.",
    ),
    "nobody else has judged": (
        lambda values: values.update(gold={}, judge=None),
        "Only the training reward has judged it.",
    ),
    "it is longer": (
        changed(
            (*POLICY, "length_controlled", WORST),
            estimate(0.7, 0.02) | {"longer": 0.97, "shorter": 0.02, "identified": False},
        ),
        "97 % of its selected responses are longer than the reference's",
    ),
    "it wins by length": (
        changed((*POLICY, "length_controlled", WORST), estimate(0.49, 0.02)),
        "It may win by length: at equal length, its win rate is 49.0 % [47.0, 51.0].",
    ),
    "it missed the target": (
        changed((*POLICY, "kl"), estimate(0.6, 0.02)),
        "Its KL on held-out prompts is 0.600 nats [0.580, 0.620], and not the 0.5",
    ),
    "it moved further": (
        changed(("policies", 1, "kl"), estimate(0.3, 0.02)),
        "ended at different KLs (0.49 and 0.30 nats)",
    ),
    "few prompts": (
        changed(("decisions", 0, "differences", 0), {"policy": "rlhf", **estimate(0.08, 0.06)}),
        "128 prompts are few: the interval reaches ±6.0 points.",
    ),
    "far from the best": (
        changed((*POLICY, "frontier", WORST), 0.99),
        "A policy at its KL can win 99.0 %, 7.8 points more",
    ),
    "ranks run out": (
        changed(("calibration", "saturated", "rloo"), 0.4),
        "40.0 % of its responses score above or below all of the reference's",
    ),
    "a warning of the calibration": (
        changed(("calibration", "warnings"), ["Two reference samples are tied."]),
        "Two reference samples are tied.",
    ),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_what_argues_against_it_is_said_and_only_then(name):
    change, words = ARGUMENTS[name]
    values = copy.deepcopy(results())
    assert words not in said(values)
    change(values)
    assert words in said(values)


def test_a_gentler_transform_is_advised_where_best_of_n_is_learned_in_part():
    advice = "Only 31.0 % of the KL of InfAlign-CTRL changed ranks."
    values = results()
    best(values)["kl_efficiency"] = 0.31
    assert best(values)["transform"] == "optimal" and advice not in said(values)  # worst-of-n
    values = json.loads(json.dumps(values).replace(WORST, "best-of-n:4"))
    assert advice in said(values) and "exponential:6 (docs/how-to-choose.md)" in said(values)
    best(values)["transform"] = "exponential:6"
    assert advice not in said(values)
    best(values).update(transform="optimal", kl_efficiency=0.61)
    assert "gentler" not in said(values)


def test_what_it_loses_under_another_procedure_argues_against_it():
    assert "decoded with plain sampling, InfAlign-CTRL wins 3.9 points [2.3, 5.5] less" in said(
        results()
    )
    values = results()
    values["decisions"][2]["differences"][0] |= {"low": -0.01}
    assert "It is tied to" not in said(values)


def test_the_best_of_many_without_a_lead_is_likely_overestimated():
    values = results()
    for name in ("a", "b"):
        values["policies"].append(values["policies"][1] | {"method": name, "label": name})
        main(values)["differences"].append({"policy": name, **estimate(0.01, 0.03)})
    assert "the best of 4 policies on these prompts, without a significant lead" in said(values)
    assert decide(values).title == "Deploy InfAlign-CTRL, a or b, decoded with worst-of-4"


@pytest.mark.parametrize(
    "low, high, said",
    [(0.1, 0.2, "more"), (-0.2, -0.1, "less"), (0.0, 0.1, "none"), (None, None, "unknown")],
)
def test_the_interval_decides_what_is_said(low, high, said):
    assert outcome({"low": low, "high": high}) == said
