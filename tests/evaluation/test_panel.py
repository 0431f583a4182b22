"""Panels of judges by hand, their agreement against definitions, and coverage with known truths."""

from itertools import permutations

import numpy as np
import pytest

from infalign.errors import ArgumentError, DataError
from infalign.evaluation.agreement import kappa, krippendorff
from infalign.evaluation.panel import panel

nan = float("nan")


def test_votes_orders_judges_pairs_and_prompts_are_averaged_in_turn():
    # Prompt p, pair 1. Judge x: votes 1, 1, 0 with the policy first, 0 with the reference first.
    # Judge y: a tie. So x says (2/3 + 0) / 2 = 1/3, and the pair is worth (1/3 + 1/2) / 2 = 5/12.
    # Pair 2: y says 1. Prompt p: (5/12 + 1) / 2 = 17/24. Prompt q: 0.
    rows = [
        ("p", "1", "x", 0, 1.0),
        ("p", "1", "x", 0, 1.0),
        ("p", "1", "x", 0, 0.0),
        ("p", "1", "x", 1, 0.0),
        ("p", "1", "y", 2, 0.5),
        ("p", "2", "y", 2, 1.0),
        ("q", "1", "z", 0, 0.0),
    ]
    prompts, pairs, judges, orders, outcomes = map(list, zip(*rows, strict=True))
    own = panel(outcomes, prompts=prompts, pairs=pairs, judges=judges, orders=orders)
    assert own.win_rate.per_prompt == pytest.approx([17 / 24, 0])
    assert (own.pairs, own.excluded) == (3, 0)
    x, y, _ = own.judges
    assert x.win_rate.value == pytest.approx(1 / 3) and y.win_rate.value == 0.75
    assert x.position_bias.value == pytest.approx((2 / 3 - 0) / 2)
    assert x.consistency.value == 0 and y.consistency is None and y.position_bias is None
    # Of the three votes of x in one order, one pair in three is the same.
    assert x.repeatability.value == pytest.approx(1 / 3) and y.repeatability is None
    assert (x.verdicts, y.verdicts) == (4, 2)
    assert own.both_orders == pytest.approx(1 / 4)


def test_a_judge_who_prefers_the_first_place_says_nothing_and_shows_his_bias():
    prompts = [f"p{i}" for i in range(40) for _ in range(2)]
    own = panel([1, 0] * 40, prompts=prompts, orders=[0, 1] * 40)
    (judge,) = own.judges
    assert own.win_rate.value == 0.5 and judge.position_bias.value == 0.5
    assert judge.consistency.value == 0 and own.any_judge is None and own.agreement is None


@pytest.mark.parametrize("swapped", ["absent", "invalid"])
def test_an_order_without_an_answer_leaves_no_score_whether_or_not_it_has_a_row(swapped):
    # The judge always prefers the first place; every other pair lacks the second order.
    rows = [
        (f"p{i}", order, nan if order and i % 2 else 1.0 - order)
        for i in range(20)
        for order in (0, 1)
        if swapped == "invalid" or not (order and i % 2)
    ]
    prompts, orders, outcomes = map(list, zip(*rows, strict=True))
    own = panel(outcomes, prompts=prompts, orders=orders)
    (judge,) = own.judges
    assert own.win_rate.value == 0.5 and judge.position_bias.value == 0.5
    assert (own.pairs, own.excluded, own.both_orders) == (10, 10, 1)
    assert own.if_invalid == (0.5, 0.75)
    odd = [f"p{i}" for i in range(1, 20, 2)]
    assert list(judge.one_order) == (odd if swapped == "absent" else [])
    assert judge.invalid == (10 if swapped == "invalid" else 0)


def test_a_judge_of_one_order_a_pair_counts_beside_a_judge_of_both():
    # x reads each pair in an order of chance, y in both.
    rows = [("a", "x", 0, 1), ("b", "x", 1, 1), ("a", "y", 0, 1), ("a", "y", 1, 0)]
    prompts, judges, orders, outcomes = map(list, zip(*rows, strict=True))
    own = panel(outcomes, prompts=prompts, judges=judges, orders=orders)
    assert own.win_rate.per_prompt == pytest.approx([(1 + 0.5) / 2, 1])
    assert [r.one_order for r in own.judges] == [(), ()] and own.both_orders == 1 / 3


def test_without_a_pair_that_has_both_orders_there_is_no_win_rate():
    with pytest.raises(DataError, match="no verdict of a judge on a pair is complete"):
        panel([1, nan, nan, 0], prompts=list("aabb"), orders=[0, 1, 0, 1])


def test_invalid_answers_are_counted_and_bound_the_win_rate():
    own = panel([1, nan, 0, nan], prompts=list("abcd"), judges=list("xxyy"))
    assert [r.invalid for r in own.judges] == [1, 1] and own.excluded == 2
    assert own.win_rate.value == 0.5 and own.if_invalid == (0.25, 0.75)
    with pytest.raises(DataError, match="None of the 2 answers"):
        panel([nan, nan], prompts=["a", "b"])
    with pytest.raises(ArgumentError, match="index 1"):
        panel([1, 2], prompts=["a", "b"])


@pytest.mark.parametrize("side", ["policy", "reference"])
def test_self_preference_is_the_difference_from_the_other_judges(side):
    rng = np.random.default_rng(0)
    prompts = [f"p{i}" for i in range(400) for _ in range(3)]
    wins = rng.random((400, 3)) < [0.7 if side == "policy" else 0.3, 0.5, 0.5]
    own = {"own" if side == "policy" else "own_reference": ["mine"]}
    result = panel(wins.ravel(), prompts=prompts, judges=["mine", "b", "c"] * 400, **own)
    mine, other, _ = result.judges
    expected = (wins[:, 0] - wins[:, 1:].mean(1)) * (1 if side == "policy" else -1)
    assert mine.own == side and mine.self_preference.value == pytest.approx(expected.mean())
    assert 0.1 < mine.self_preference.low < 0.2 < mine.self_preference.high < 0.3
    assert other.own is None and other.self_preference is None


def test_length_control_reads_the_panels_verdicts():
    rng = np.random.default_rng(1)
    d = rng.normal(size=300)
    wins = rng.random((300, 2)) < 1 / (1 + np.exp(-2 * d))[:, None]
    own = panel(
        wins.ravel(),
        prompts=np.repeat(np.arange(300), 2).astype(str).tolist(),
        judges=["a", "b"] * 300,
        differences=np.repeat(d, 2),
    )
    assert own.length.identified and abs(own.length.controlled.value - 0.5) < 0.05
    assert own.length.win_rate.value == pytest.approx(own.win_rate.value)


def disagreement(rows):
    """Krippendorff's α by its definition: over ordered pairs of verdicts of an item, and over all
    ordered pairs of verdicts."""
    units = [[x for x in row if x == x] for row in rows]
    units = [unit for unit in units if len(unit) > 1]
    every = [x for unit in units for x in unit]
    observed = sum(
        sum(a != b for a, b in permutations(unit, 2)) / (len(unit) - 1) for unit in units
    ) / len(every)
    chance = sum(a != b for a, b in permutations(every, 2)) / (len(every) * (len(every) - 1))
    return 1 - observed / chance


@pytest.mark.parametrize("seed", range(4))
def test_agreement_is_that_of_the_definitions(seed):
    rng = np.random.default_rng(seed)
    scores = rng.choice([0, 0.5, 1], (30, 3))
    scores[rng.random((30, 3)) < 0.2] = nan
    prompts = np.arange(30) // 2
    assert krippendorff(scores, prompts).value == pytest.approx(disagreement(scores))
    both = ~np.isnan(scores[:, :2]).any(1)
    a, b = (2 * scores[both, :2]).astype(int).T
    chance = sum(np.mean(a == c) * np.mean(b == c) for c in range(3))
    expected = (np.mean(a == b) - chance) / (1 - chance)
    assert kappa(*scores[:, :2].T, prompts).value == pytest.approx(expected)


def test_where_no_disagreement_could_occur_there_is_no_agreement():
    assert krippendorff([[1, 1], [1, 1]], [0, 1]) is None
    assert krippendorff([[1, nan], [nan, 0]], [0, 1]) is None
    assert kappa([1, 1], [1, 1], [0, 1]) is None


def test_intervals_of_agreement_and_of_win_rates_cover():
    rng = np.random.default_rng(2)
    alpha, rate, judges = [], [], []
    for _ in range(150):
        # Five judges whose leniency is normal, and who agree with a hidden quality.
        lenient = 0.1 * rng.normal(size=5)
        true = rng.random(120) < 0.6
        chance = np.clip(np.where(true, 0.8, 0.2)[:, None] + lenient, 0, 1)
        wins = (rng.random((120, 5)) < chance).astype(float)
        own = panel(
            wins.ravel(),
            prompts=np.repeat(np.arange(120), 5).astype(str).tolist(),
            judges=[str(j) for j in range(5)] * 120,
        )
        fixed = (
            0.6 * np.clip(0.8 + lenient, 0, 1).mean() + 0.4 * np.clip(0.2 + lenient, 0, 1).mean()
        )
        rate.append(own.win_rate.low <= fixed <= own.win_rate.high)
        judges.append(own.any_judge.low <= 0.56 <= own.any_judge.high)
        alpha.append((own.agreement.low, own.agreement.high))
    large = rng.random(200_000) < 0.6
    chance = np.clip(np.where(large, 0.8, 0.2)[:, None] + 0.1 * rng.normal(size=(200_000, 5)), 0, 1)
    truth = krippendorff((rng.random(chance.shape) < chance).astype(float), range(200_000)).value
    assert np.mean(rate) > 0.9 and np.mean(judges) > 0.9
    assert np.mean([low <= truth <= high for low, high in alpha]) > 0.85
