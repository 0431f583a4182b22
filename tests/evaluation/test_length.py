"""Length control against every subset, another optimizer, refits without each prompt, and truth."""

from itertools import combinations

import numpy as np
import pytest
from contracts import keep, law
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, ndtri

from infalign import BestOfN, Sampling, SoftBestOfN, WorstOfN, win_rate
from infalign.evaluation.chances import selection_chances
from infalign.evaluation.equal_length import PRIOR_SD, pair_control
from infalign.evaluation.length import QUANTILES, length_controlled, length_summary
from infalign.evaluation.uncertainty import Bounds

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(40)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
"""The standard normal distribution, for means over prompts."""


def world(prompts, m, k, *, seed, bias=0.0, skill=0.5):
    """Rewards that like length by `bias` per token; the policy is longer, and better by `skill`."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(8, 40, (prompts, m)), rng.integers(4, 32, (prompts, k))
    quality = rng.normal(skill, 1, (prompts, m)), rng.normal(0, 1, (prompts, k))
    a, b = (q + bias * x for q, x in zip(quality, lengths, strict=True))
    return a, lengths[0], b, lengths[1]


def pairs(a, la, b, lb, procedure, against):
    """(difference, outcome) of what is kept of every pair of subsets, in plain Python."""
    kept = []
    for rewards, lengths, side in ((a, la, procedure), (b, lb, against)):
        subsets = combinations(zip(rewards, lengths, strict=True), side.draws)
        kept.append([keep(side, iter(s), None) for s in subsets])
    return [(x[1] - y[1], (1 + np.sign(x[0] - y[0])) / 2) for x in kept[0] for y in kept[1]]


def optimized(table):
    """σ(α) by a general optimizer, on prompts given as lists of pairs that weigh the same."""
    d = np.concatenate([[x for x, _ in rows] for rows in table])
    o = np.concatenate([[y for _, y in rows] for rows in table])
    w = np.concatenate([np.full(len(rows), 1 / len(rows)) for rows in table])
    x = np.tanh(d / np.sqrt(np.cov(d, aweights=w, ddof=0)))

    def loss(c):
        eta = c[0] + c[1] * x
        return w @ (np.logaddexp(0, eta) - o * eta) + c @ c / (2 * PRIOR_SD**2)

    found = minimize(loss, [0, 0], method="BFGS", options={"gtol": 1e-9})
    return expit(found.x[0]), found.x[1]


@pytest.mark.parametrize(
    ("procedure", "against"),
    [(Sampling(), Sampling()), (BestOfN(2), BestOfN(3)), (WorstOfN(3), Sampling())],
    ids=str,
)
def test_the_regression_is_that_of_every_pair_of_subsets(procedure, against):
    data = world(12, 5, 4, seed=0, bias=0.05)
    table = [pairs(*row, procedure, against) for row in zip(*data, strict=True)]
    controlled, slope = optimized(table)
    found = length_controlled(*data, procedure, against=against)
    assert found.controlled.value == pytest.approx(controlled, abs=1e-6)
    assert found.slope == pytest.approx(slope, abs=1e-5)
    d = np.array([[np.mean([f(x) for x, _ in rows]) for rows in table] for f in SIDES])
    assert (found.longer, found.shorter) == pytest.approx(d.mean(1))
    expected = win_rate(data[0], data[2], procedure, against=against)
    np.testing.assert_allclose(found.win_rate.per_prompt, expected.per_prompt, atol=1e-12)


SIDES = (lambda d: d > 0, lambda d: d < 0)


def test_the_jackknife_agrees_with_refits_without_each_prompt():
    data, prompts = world(40, 6, 6, seed=1, bias=0.08), 40
    found = length_controlled(*data, BestOfN(2))
    without = np.array(
        [
            length_controlled(*(np.delete(x, p, axis=0) for x in data), BestOfN(2)).controlled.value
            for p in range(prompts)
        ]
    )
    stderr = np.sqrt((prompts - 1) * without.var())
    assert found.controlled.stderr == pytest.approx(stderr, rel=0.03)


def test_where_length_is_all_there_is_the_controlled_win_rate_is_a_half():
    _, ours, _, theirs = world(300, 16, 16, seed=2)
    found = length_controlled(ours, ours, theirs, theirs, Sampling())
    assert found.win_rate.value > 0.6
    assert abs(found.controlled.value - 0.5) < 0.02
    assert found.explained.low > 0.1


@pytest.mark.parametrize("procedure", [Sampling(), BestOfN(4), WorstOfN(4)], ids=str)
def test_where_length_does_not_matter_nothing_is_explained(procedure):
    found = length_controlled(*world(300, 12, 12, seed=3), procedure)
    assert abs(found.explained.value) < 4 * found.explained.stderr
    assert abs(found.explained.value) < 0.01 < found.win_rate.value - 0.5
    assert found.controlled.stderr < 1.3 * found.win_rate.stderr


def test_a_policy_that_wins_by_length_and_skill_keeps_the_skill():
    # Quality differs by N(½, 2), so at equal length it wins with chance Φ(½ / √2) = .638.
    found = length_controlled(*world(600, 12, 12, seed=4, bias=0.05), Sampling())
    assert found.win_rate.value > 0.68
    assert found.controlled.value == pytest.approx(0.638, abs=0.015)


def test_intervals_cover():
    # The model itself: P(win) = σ(0.4 + 0.8 tanh(d / s)), so the truth is σ(0.4).
    rng, prompts, experiments = np.random.default_rng(5), 120, 400
    covered = []
    for _ in range(experiments):
        d = rng.normal(0.5, 1, prompts)
        wins = rng.random(prompts) < expit(0.4 + 0.8 * np.tanh(d))
        estimate = pair_control(wins, d).controlled
        covered.append(estimate.low < expit(0.4) < estimate.high)
    assert abs(np.mean(covered) - 0.95) < 4 * np.sqrt(0.95 * 0.05 / experiments)


values = st.integers(0, 4)
row = st.lists(st.tuples(values, values), min_size=3, max_size=3)


@law
@given(st.lists(st.tuples(row, row), min_size=2, max_size=4), st.sampled_from([1, 2]))
def test_what_one_side_keeps_under_control_the_other_loses(rows, n):
    a, b = (np.array([r[i] for r in rows], float) for i in (0, 1))
    ours, theirs = (a[..., 0], a[..., 1]), (b[..., 0], b[..., 1])
    won = length_controlled(*ours, *theirs, BestOfN(n))
    lost = length_controlled(*theirs, *ours, BestOfN(n))
    assert won.identified is lost.identified
    if won.identified:
        assert won.controlled.value + lost.controlled.value == pytest.approx(1, abs=1e-6)
        assert won.controlled.stderr == pytest.approx(lost.controlled.stderr, abs=1e-6)
    assert won.bounds.low + lost.bounds.high == pytest.approx(1, abs=1e-6)
    # Nor do the unit of the lengths, a common prefix, or the scale of the reward matter.
    longer = length_controlled(
        np.exp(ours[0]), 5 * ours[1] + 3, np.exp(theirs[0]), 5 * theirs[1] + 3, BestOfN(n)
    )
    assert longer.controlled.value == pytest.approx(won.controlled.value, abs=1e-6, nan_ok=True)
    assert longer.bounds.low == pytest.approx(won.bounds.low, abs=1e-6)


def test_samples_that_were_not_drawn_do_not_count():
    a, la, b, lb = (x.astype(float) for x in world(20, 6, 5, seed=6, bias=0.05))
    full = [np.where(np.arange(x.shape[1]) < 4, x, np.nan) for x in (a, la, b, lb)]
    cut = [x[:, :4] for x in (a, la, b, lb)]
    short, same = length_controlled(*full, BestOfN(2)), length_controlled(*cut, BestOfN(2))
    assert short.controlled.value == same.controlled.value
    assert length_summary(full[1]).quantiles == length_summary(cut[1]).quantiles


def test_equal_lengths_leave_the_win_rate_as_it_is():
    a, _, b, _ = world(50, 4, 4, seed=7)
    found = length_controlled(a, np.full_like(a, 9), b, np.full_like(b, 9), Sampling())
    assert found.controlled.value == pytest.approx(found.win_rate.value, abs=1e-3)
    assert (found.slope, found.scale, found.longer, found.shorter) == (0, 0, 0, 0)


def test_where_everything_is_won_so_is_the_controlled_win_rate():
    _, la, _, lb = world(50, 4, 4, seed=8)
    found = length_controlled(np.ones((50, 4)), la, np.zeros((50, 4)), lb, BestOfN(2))
    assert found.win_rate.value == pytest.approx(1) and found.controlled.value > 0.99


@pytest.mark.parametrize(("shift", "side"), [(100, "longer"), (-100, "shorter")])
def test_a_policy_that_is_always_longer_has_bounds_that_exclude_next_to_nothing(shift, side):
    a, la, b, lb = world(9, 4, 4, seed=9)
    control = length_controlled(a, la + shift, b, lb, BestOfN(2))
    assert control.overlap == 0 and f"is the {side} one" in control.warning
    assert control.bounds.low < 0.05 and control.bounds.high > 0.95


def test_a_procedure_that_reads_calibrated_rewards_can_be_controlled():
    a, la, b, lb = world(60, 8, 8, seed=12, bias=0.1)
    soft, known = SoftBestOfN(4, 0.3), world(60, 1, 32, seed=13, bias=0.1)[2]
    found = length_controlled(a, la, b, lb, soft, calibration=known)
    expected = win_rate(a, b, soft, calibration=known).per_prompt
    np.testing.assert_allclose(found.win_rate.per_prompt, expected, atol=1e-12)
    assert found.explained.low > 0


def test_arrays_that_do_not_belong_together_are_refused():
    a, la, b, lb = (x.astype(float) for x in world(5, 4, 3, seed=10))
    with pytest.raises(ValueError, match=r"`policy_lengths` must have one length per reward; got"):
        length_controlled(a, la[:, :3], b, lb, Sampling())
    hole = la.copy()
    hole[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"`policy_lengths` must .*, 1 and 0 missing\."):
        length_controlled(a, hole, b, lb, Sampling())
    with pytest.raises(ValueError, match=r"one row per prompt each; got 5 and 4 rows"):
        length_controlled(a, la, b[:4], lb[:4], Sampling())
    with pytest.raises(ValueError, match=r"needs at least 4 samples per prompt"):
        length_controlled(a, la, b, lb, BestOfN(4))
    with pytest.raises(
        ValueError, match=r"`chances` must .* sum 1 .*`selection_chances` computes them"
    ):
        length_summary(la, np.ones_like(la))


@pytest.mark.parametrize("procedure", [Sampling(), BestOfN(2), WorstOfN(3)], ids=str)
def test_lengths_of_selected_responses_are_those_of_all_subsets(procedure):
    rewards, lengths, _, _ = world(6, 5, 5, seed=11, bias=0.1)
    samples = np.stack([rewards, lengths], axis=2)
    subsets = [combinations(map(tuple, prompt), procedure.draws) for prompt in samples]
    kept = np.array([[keep(procedure, iter(s), None)[1] for s in some] for some in subsets])
    found = length_summary(lengths, selection_chances(rewards, procedure))
    np.testing.assert_allclose(found.mean.per_prompt, kept.mean(1))
    assert found.sd == pytest.approx(kept.std())
    expected = np.quantile(kept, QUANTILES, method="inverted_cdf")
    np.testing.assert_array_equal(found.quantiles, expected)


@pytest.mark.parametrize("side", ["longer", "shorter"])
@pytest.mark.parametrize(("share", "identified"), [(0.79, True), (0.81, False), (0.99, False)])
def test_few_pairs_on_one_side_give_bounds_and_no_figure(side, share, identified):
    rng = np.random.default_rng(7)
    # A fifth of the pairs differ by less than a token, so some are near.
    apart = np.where(np.arange(100) % 5, 4.0, 0.5)[:, None]
    apart[round(100 * share) :] *= -1
    lengths = (10 + apart, np.full((100, 1), 10.0))[:: 1 if side == "longer" else -1]
    rewards = rng.normal(0.5, 1, (100, 1)), rng.normal(size=(100, 1))
    control = length_controlled(rewards[0], lengths[0], rewards[1], lengths[1], Sampling())
    assert getattr(control, side) == pytest.approx(share)
    assert control.overlap == pytest.approx(1 - share)
    assert control.identified is identified
    for figure in (control.controlled, control.explained):
        assert isinstance(figure, Bounds) is not identified
        assert bool(np.isfinite(figure.value)) is identified and figure.per_prompt.shape == (100,)
        assert figure.low < figure.high and ("between" in str(figure)) is not identified
    assert f"(overlap {100 * (1 - share):.0f} %)" in str(control)
    assert control.bounds.low <= control.win_rate.value <= control.bounds.high
    if identified:
        assert control.warning is None
    else:
        assert control.controlled is control.bounds
        assert f"in {100 * share:.0f} % of them" in control.warning
        assert f"is the {side} one" in control.warning


def test_pairs_on_both_sides_of_a_gap_do_not_identify_its_middle():
    rng = np.random.default_rng(2)
    d = rng.choice([-100.0, 100.0], 400) + rng.normal(size=400)
    control = pair_control(rng.random(400) < 0.5, d)
    assert control.overlap > 0.4 and control.near == 0 and not control.identified
    assert "only 0 % of them have about equal lengths" in control.warning


def test_pairs_of_equal_length_are_evidence():
    # One in ten is longer, none shorter, the rest as long.
    rng = np.random.default_rng(8)
    longer = 10 + (np.arange(100) < 10)[:, None]
    rewards = rng.normal(size=(2, 100, 1))
    control = length_controlled(rewards[0], longer, rewards[1], np.full((100, 1), 10), Sampling())
    assert (control.longer, control.shorter, control.identified) == (0.1, 0, True)


CURVES = {
    "no preference": lambda d: 0 * d,
    "as fitted": lambda d: 1.6 * np.tanh(d),
    "steep": lambda d: 5 * np.tanh(d),
    "without an end": lambda d: 1.2 * d,
    "longer or not": lambda d: 1.2 * np.sign(d),
    "shorter preferred": lambda d: -np.tanh(d),
}
"""Log-odds by the length difference, beyond those at equal length."""


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("longer", [0.005, 0.03, 0.1, 0.3, 0.5, 0.7, 0.97, 0.995])
def test_the_truth_is_covered_at_every_overlap_and_for_curves_other_than_the_fitted(curve, longer):
    rng = np.random.default_rng(6)
    covered, errors = [], []
    for _ in range(12):
        # Hard prompts get short responses: the difference goes with how good a response is.
        hard, d = rng.normal(size=(2, 600))
        d += ndtri(longer)
        wins = rng.random(600) < expit(-0.4 + 0.5 * hard + CURVES[curve](d))
        control = pair_control(wins, d)
        truth = expit(-0.4 + 0.5 * NODES) @ WEIGHTS
        covered.append(control.controlled.low <= truth <= control.controlled.high)
        assert control.identified == (0.2 <= longer <= 0.8)
        errors.append(control.controlled.value - truth)
    assert sum(covered) >= (9 if control.identified else 11)
    if control.identified:
        assert abs(np.mean(errors)) < 0.03


def test_bounds_cover_where_good_responses_are_long():
    # A length difference that goes with quality, as between a weak policy and a verbose reference:
    # the regression takes quality for length, and its intercept is 35 points too high.
    rng = np.random.default_rng(3)
    z = rng.normal(size=805)
    quality = 0.6 * z + 0.8 * rng.normal(size=805)
    d = z + ndtri(0.03)
    control = pair_control(rng.random(805) < expit(-0.4 + 1.2 * quality + 1.6 * np.tanh(d)), d)
    truth = expit(-0.4 + 1.2 * NODES) @ WEIGHTS
    assert np.isnan(control.controlled.value)
    assert control.bounds.low < truth < control.bounds.high
