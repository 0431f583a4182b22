"""Win rates from samples: every subset by hand, no bias."""

from itertools import combinations
from math import comb

import numpy as np
import pytest
from contracts import keep, law
from hypothesis import given
from hypothesis import strategies as st

from infalign import (
    BestOfN,
    BestOfPoisson,
    Log,
    OrderStatistic,
    Sampling,
    TiltedPolicy,
    WorstOfN,
    win_rate,
    win_rate_difference,
)
from infalign.evaluation.merged import BLOCK

procedure = st.sampled_from(
    [Sampling(), OrderStatistic(3, 2), *[p(n) for p in (BestOfN, WorstOfN) for n in (1, 2, 3)]]
)
row = st.lists(st.integers(0, 4), min_size=3, max_size=5)  # few values: many ties
rows = st.lists(st.tuples(row, row), min_size=1, max_size=3)


def ragged(rows):
    """Rows of different lengths as one array, nan where no sample was drawn."""
    filled = np.full((len(rows), max(map(len, rows))), np.nan)
    for target, values in zip(filled, rows, strict=True):
        target[: len(values)] = values
    return filled


def by_enumeration(a, b, procedure, against):
    """Mean of w over all subsets of each side, drawn and kept in plain Python."""
    a = [keep(procedure, iter(s), None) for s in combinations(a, procedure.draws)]
    b = [keep(against, iter(s), None) for s in combinations(b, against.draws)]
    return np.mean([0.5 + 0.5 * np.sign(x - y) for x in a for y in b])


def test_win_rate_by_hand():
    # Best of 2 among 1, 2, 5: pairs keep 2, 5, 5. Among 2, 4, 4: 4, 4, 4. Wins 0, 1, 1.
    # Second prompt: 3, 3, 3 against 1, 3, 3, which ties but for the 1: (1 + ½ + ½)/3.
    found = win_rate([[1, 5, 2], [3, 3, 3]], [[4, 4, 2], [1, 3, 1]], BestOfN(2))
    np.testing.assert_allclose(found.per_prompt, [2 / 3, 2 / 3], atol=1e-15)
    assert found.value == pytest.approx(2 / 3)


@law
@given(rows=rows, procedure=procedure, against=procedure)
def test_win_rate_against_every_subset(rows, procedure, against):
    ours, theirs = ragged([a for a, _ in rows]), ragged([b for _, b in rows])
    expected = [by_enumeration(a, b, procedure, against) for a, b in rows]
    found = win_rate(ours, theirs, procedure, against=against)
    np.testing.assert_allclose(found.per_prompt, expected, atol=1e-12)
    assert found.value == pytest.approx(np.mean(expected))


def by_counting(ours, theirs, procedure, against):
    """The definition of the win rate, sample by sample: Σ ΔA ½ (B(v⁻) + B(v))."""
    per_prompt = []
    for a, b in zip(ours, theirs, strict=True):
        a, b = np.sort(a[~np.isnan(a)]), np.sort(b[~np.isnan(b)])
        A, B = procedure.subset_cdf(a.size), against.subset_cdf(b.size)
        below, up_to = np.searchsorted(b, a, "left"), np.searchsorted(b, a, "right")
        per_prompt.append(np.diff(A) @ (B[below] + B[up_to]) / 2)
    return per_prompt


REWARDS = {
    "continuous": lambda rng, shape: rng.normal(size=shape),
    "float32": lambda rng, shape: rng.normal(size=shape).astype(np.float32),
    "float32, with ties": lambda rng, shape: np.float32(0.1) * rng.integers(-9, 9, shape),
    "rounded": lambda rng, shape: rng.normal(size=shape).round(1),
    "pass or fail": lambda rng, shape: rng.integers(0, 2, shape),
    "one bit apart": lambda rng, shape: np.nextafter(1.0, rng.integers(0, 3, shape)),
    "of every size": lambda rng, shape: (
        rng.normal(size=shape) * 10.0 ** rng.integers(-300, 9, shape)
    ),
    "zeros of both signs": lambda rng, shape: rng.choice([0.0, -0.0, 5e-324, -5e-324, 1], shape),
    "some missing": lambda rng, shape: rng.choice([np.nan, 1, 2.5, 3, 4], shape),
}


@pytest.mark.parametrize("kind", REWARDS)
@pytest.mark.parametrize("against", [WorstOfN(2), BestOfN(5)], ids=str)
def test_many_prompts_at_once_are_as_one_by_one(kind, against):
    # More rewards than are merged at once, so that the last block is a short one.
    rng = np.random.default_rng(5)
    ours, theirs = REWARDS[kind](rng, (301, 40)), REWARDS[kind](rng, (301, 61))
    assert ours.size + theirs.size > BLOCK
    found = win_rate(ours, theirs, BestOfN(5), against=against).per_prompt
    expected = by_counting(ours, theirs, BestOfN(5), against)
    np.testing.assert_allclose(found, expected, atol=1e-13)


LARGE = [BestOfN(1024), OrderStatistic(1024, 3), WorstOfN(1024), BestOfPoisson(100)]


@pytest.mark.parametrize("procedure", LARGE, ids=str)
def test_many_draws_of_very_many_samples(procedure):
    # Policy samples are ranks of the reference's, so that W = Σ ΔA B follows from the two laws.
    m, rng = 100_000, np.random.default_rng(6)
    policy, reference = rng.permutation(m) + 0.5, rng.permutation(m)
    law = procedure.subset_cdf(m)
    found = win_rate([policy], [reference], procedure).value
    assert found == pytest.approx(np.diff(law) @ law[1:], abs=1e-12)
    # The policy's i-th lowest lies above the reference's i-th lowest, and the laws are alike.
    assert 0.5 < found < 0.5 + np.diff(law).max()


@law
@given(rows=rows, procedure=procedure, against=procedure)
def test_what_one_side_wins_the_other_loses(rows, procedure, against):
    ours, theirs = ragged([a for a, _ in rows]), ragged([b for _, b in rows])
    won = win_rate(ours, theirs, procedure, against=against).per_prompt
    lost = win_rate(theirs, ours, against, against=procedure).per_prompt
    np.testing.assert_allclose(won + lost, 1, atol=1e-12)


@law
@given(rows=rows, procedure=procedure)
def test_the_same_samples_tie(rows, procedure):
    ours = ragged([a for a, _ in rows])
    np.testing.assert_allclose(win_rate(ours, ours, procedure).per_prompt, 0.5, atol=1e-12)


@law
@given(rows=rows, procedure=procedure)
def test_an_increasing_map_and_the_order_of_samples_change_nothing(rows, procedure):
    ours, theirs = ragged([a for a, _ in rows]), ragged([b for _, b in rows])
    before = win_rate(ours, theirs, procedure).per_prompt
    after = win_rate(np.exp(ours)[:, ::-1], np.exp(theirs)[:, ::-1], procedure).per_prompt
    np.testing.assert_allclose(after, before, atol=1e-14)


@law
@given(st.lists(st.booleans(), min_size=4, max_size=12), st.integers(1, 4))
def test_pass_at_n_is_the_win_rate_against_failures(passes, n):
    # c of m samples pass: pass@n = 1 - C(m - c, n)/C(m, n). Against a reference that always fails
    # a pass wins and a failure ties: W = pass@n + (1 - pass@n)/2.
    m, c = len(passes), sum(passes)
    pass_at_n = 1 - comb(m - c, n) / comb(m, n)
    found = win_rate([passes], np.zeros((1, 4)), BestOfN(n))
    assert found.value == pytest.approx((1 + pass_at_n) / 2, abs=1e-12)


def test_one_success_in_four_passes_at_four():
    # A bootstrap, which draws with replacement, would say 1 - (3/4)^4 = .684.
    found = win_rate([[0, 0, 1, 0]], [[0, 0, 0, 0]], BestOfN(4))
    assert found.value == 1


@pytest.mark.parametrize("procedure", [Sampling(), BestOfN(4), WorstOfN(4)], ids=str)
@pytest.mark.parametrize("against", [None, Sampling()], ids=str)
def test_the_estimate_is_unbiased(procedure, against):
    # Policy F(u) = u³, so rewards are cube roots of uniforms; the truth by quadrature.
    rng, prompts = np.random.default_rng(0), 5_000
    truth = TiltedPolicy(Log(), 1 / 2).win_rate(procedure, against)
    policy, reference = rng.random((prompts, 6)) ** (1 / 3), rng.random((prompts, 5))
    found = win_rate(policy, reference, procedure, against=against)
    assert abs(found.value - truth) < 4 * found.stderr


@pytest.mark.parametrize("procedure", [BestOfN(3), WorstOfN(3)], ids=str)
def test_the_estimate_is_unbiased_with_ties(procedure):
    # Rewards 0 … 4: the policy's law is ((v + 1)/5)³, the reference's (v + 1)/5, and the kept
    # ones' laws A and B are H of these. W = Σ (A(v) - A(v - 1)) (B(v - 1) + B(v))/2.
    rng, prompts, v = np.random.default_rng(1), 5_000, np.arange(6) / 5
    a, b = procedure.cdf(v**3), procedure.cdf(v)
    truth = np.diff(a) @ (b[1:] + b[:-1]) / 2
    policy = np.floor(5 * rng.random((prompts, 6)) ** (1 / 3))
    reference = np.floor(5 * rng.random((prompts, 5)))
    found = win_rate(policy, reference, procedure)
    assert abs(found.value - truth) < 4 * found.stderr


def test_more_samples_narrow_the_estimate():
    # The U-statistic uses every subset, so 16 samples say more of best-of-4 than 4 do.
    rng = np.random.default_rng(2)
    policy, reference = rng.random((500, 16)) ** (1 / 3), rng.random((500, 16))
    few = win_rate(policy[:, :4], reference[:, :4], BestOfN(4)).stderr
    assert win_rate(policy, reference, BestOfN(4)).stderr < 0.7 * few


def test_a_paired_difference_is_narrower_than_an_unpaired_one():
    # Prompts differ in how far both policies are ahead of the reference, b a little more.
    rng, prompts = np.random.default_rng(4), 300
    ahead, reference = rng.normal(0, 1, (prompts, 1)), rng.normal(0, 1, (prompts, 8))
    a = rng.normal(0, 1, (prompts, 8)) + ahead
    b = rng.normal(0, 1, (prompts, 8)) + ahead + 0.2
    found = win_rate_difference(b, a, reference, BestOfN(4))
    of_a, of_b = (win_rate(x, reference, BestOfN(4)) for x in (a, b))
    assert found.value == pytest.approx(of_b.value - of_a.value)
    assert found.stderr < 0.8 * np.hypot(of_a.stderr, of_b.stderr)
    assert found.low > 0


def test_a_policy_does_not_differ_from_itself():
    rewards = [[1.0, 2.0], [3.0, 1.0]]
    found = win_rate_difference(rewards, rewards, [[1.0, 2.0], [2.0, 5.0]], BestOfN(2))
    assert (found.value, found.stderr) == (0, 0)
    # What two prompts have not shown may have a chance of ε = 1 - √.05, and a difference of ±1.
    assert (found.low, found.high) == pytest.approx((-0.776, 0.776), abs=1e-3)


def test_one_prompt_has_no_interval():
    found = win_rate([[1.0, 2.0]], [[0.0, 0.0]], BestOfN(2))
    assert found.value == 1
    assert np.isnan([found.stderr, found.low, found.high]).all()


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ([1.0], [[1.0]], r"`policy_rewards` must be a non-empty array of shape \(prompts, samp"),
        ([[1.0]], [[]], r"`reference_rewards` must be a non-empty array of shape \(prompts, samp"),
        (
            [[1.0, 2], [1, 2]],
            [[1.0, 2]],
            "`policy_rewards` and `reference_rewards` must have one row per prompt each; "
            "got 2 and 1 rows",
        ),
        ([[1.0, np.inf]], [[1.0, 2]], "`policy_rewards` must hold finite rewards; got inf at pro"),
        (
            [[1.0, 2], [1, np.nan], [np.nan, np.nan]],
            [[1.0, 2]] * 3,
            r"`BestOfN\(n=2\)` needs at least 2 samples per prompt in `policy_rewards`; prompt 1 "
            r"has 1 \(2 of 3 prompts are short\)\. Draw more samples, or choose a procedure that "
            r"draws fewer",
        ),
        ([[1.0, 2]], [[1.0]], r"`BestOfN\(n=2\)` needs .* in `reference_rewards`; prompt 0 has 1"),
    ],
)
def test_rewards_that_do_not_suffice_are_refused(ours, theirs, message):
    with pytest.raises(ValueError, match=message):
        win_rate(ours, theirs, BestOfN(2))


def test_a_difference_needs_the_same_prompts():
    # b has one row fewer than the reference, which is what the message speaks of.
    with pytest.raises(ValueError, match="must have one row per prompt each; got 1 and 2 rows"):
        win_rate_difference([[1.0], [2.0]], [[1.0]], [[1.0], [2.0]], Sampling())
