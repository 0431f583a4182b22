"""Soft best-of-n and rewind from samples: against every draw, and how calibration biases them."""

from itertools import combinations, permutations

import numpy as np
import pytest
from contracts import law
from hypothesis import given
from hypothesis import strategies as st

from infalign import (
    BestOfN,
    Log,
    Rewind,
    Sampling,
    SoftBestOfN,
    TiltedPolicy,
    quantiles,
    selected_reward,
    win_rate,
    win_rate_difference,
)
from infalign.evaluation import soft_laws
from infalign.evaluation.soft_laws import selected_by_quantile

row = st.lists(st.integers(0, 20), min_size=2, max_size=6).map(lambda r: np.array(r) / 20)
soft = st.builds(SoftBestOfN, st.integers(1, 6), st.sampled_from([0.005, 0.1, 3.0]))
rewind = st.builds(Rewind, st.sampled_from([0.05, 0.5, 0.9]), st.integers(1, 4))


def by_enumeration(row, procedure):
    """The chance of each sample to be kept, over all orders in which samples can be drawn."""
    chances, draws = np.zeros(row.size), 0
    if isinstance(procedure, SoftBestOfN):
        for some in map(list, combinations(range(row.size), procedure.n)):
            weights = np.exp((row[some] - row[some].max()) / procedure.temperature)
            chances[some] += weights / weights.sum()
            draws += 1
    else:
        for some in permutations(range(row.size), procedure.max_tries):
            passing = [i for i in some if row[i] >= procedure.threshold]
            chances[(passing or [some[-1]])[0]] += 1
            draws += 1
    return chances / draws


@law
@given(row=row, procedure=soft | rewind)
def test_chances_against_every_draw(row, procedure):
    if procedure.draws > row.size:
        return
    found = selected_by_quantile(row[None], procedure)[0]
    np.testing.assert_allclose(found, by_enumeration(row, procedure), atol=1e-13)


def test_chances_of_many_draws_have_no_cancellation():
    # 40 of 80: of all samples equal each is kept as often; one far above the others, if drawn.
    even = selected_by_quantile(np.full((1, 80), 0.5), SoftBestOfN(40, 0.1))
    np.testing.assert_allclose(even, 1 / 80, rtol=1e-12)
    one = np.append(np.zeros(79), 1.0)[None]
    found = selected_by_quantile(one, SoftBestOfN(40, 0.01))[0]
    assert found[-1] == pytest.approx(0.5, abs=1e-12)
    np.testing.assert_allclose(found[:-1], 0.5 / 79, rtol=1e-9)


@pytest.mark.parametrize("chunk", [100, 5_000, 40_000])
def test_large_tables_are_worked_through_in_parts(chunk, monkeypatch):
    rng, procedure = np.random.default_rng(5), SoftBestOfN(3, 0.1)
    rows = rng.random((11, 9))
    whole = selected_by_quantile(rows, procedure)
    monkeypatch.setattr(soft_laws, "CHUNK", chunk)  # single nodes, part of a row, some rows
    np.testing.assert_allclose(selected_by_quantile(rows, procedure), whole, atol=1e-14)


def test_hot_is_sampling_and_cold_the_best():
    rng = np.random.default_rng(0)
    rewards, reference = rng.normal(0.5, 1, (50, 9)), rng.normal(size=(50, 7))
    # Quantiles that differ do so by 1/9, 22 of the lowest temperatures: e^-22 is 3e-10.
    calibration = rewards + 1e-9
    for procedure, same in ((SoftBestOfN(4, 1e9), Sampling()), (SoftBestOfN(4, 0.005), BestOfN(4))):
        found = selected_reward(rewards, procedure, calibration=calibration).per_prompt
        np.testing.assert_allclose(found, selected_reward(rewards, same).per_prompt, atol=1e-8)
    once = win_rate(rewards, reference, Rewind(0.5, 1), calibration=calibration).per_prompt
    np.testing.assert_allclose(
        once, win_rate(rewards, reference, Sampling()).per_prompt, atol=1e-12
    )


@pytest.mark.parametrize("procedure", [SoftBestOfN(3, 0.2), Rewind(0.6, 3)], ids=repr)
def test_the_win_rate_against_every_draw(procedure):
    rng = np.random.default_rng(1)
    ours, theirs, known = (rng.integers(0, 6, (4, size)).astype(float) for size in (5, 6, 8))
    ours[1, 3:4] = np.nan
    found = win_rate(ours, theirs, procedure, against=BestOfN(2), calibration=known).per_prompt
    other = win_rate(theirs, ours, BestOfN(2), against=procedure, calibration=known).per_prompt
    for a, b, k, value in zip(ours, theirs, known, found, strict=True):
        a = a[~np.isnan(a)]
        chances = by_enumeration(quantiles([a], [k])[0], procedure)
        best = [max(pair) for pair in combinations(b, 2)]
        wins = chances @ (0.5 + 0.5 * np.sign(a[:, None] - best)).mean(1)
        assert value == pytest.approx(wins, abs=1e-12)
    np.testing.assert_allclose(found + other, 1, atol=1e-12)


@pytest.mark.parametrize("procedure", [SoftBestOfN(4, 0.1), Rewind(0.8, 4)], ids=repr)
def test_it_is_unbiased_for_exact_calibrated_rewards(procedure):
    # Policy F(u) = u³; 500 even reference rewards count a uniform reward to 1/1,000.
    rng, prompts = np.random.default_rng(2), 2_000
    truth = TiltedPolicy(Log(), 1 / 2).win_rate(procedure)
    policy, reference = rng.random((prompts, 6)) ** (1 / 3), rng.random((prompts, 6))
    exact = np.broadcast_to((np.arange(500) + 0.5) / 500, (prompts, 500))
    found = win_rate(policy, reference, procedure, calibration=exact)
    assert abs(found.value - truth) < 4 * found.stderr
    kept = selected_reward(reference, procedure, calibration=exact)
    u = (np.arange(10_000) + 0.5) / 10_000
    assert abs(kept.value - (1 - procedure.cdf(u).mean())) < 4 * kept.stderr


def test_counting_the_calibrated_reward_biases_by_1_over_K():
    # The kept reward is smooth in C, and Ĉ has an error of order 1/√K: half the samples, twice the
    # bias. Compared on the same samples, whose uniform rewards are their own C.
    rng, procedure = np.random.default_rng(3), SoftBestOfN(4, 0.1)
    rewards = np.sort(rng.random((8_000, 4)), axis=1)
    exact = (selected_by_quantile(rewards, procedure) * rewards).sum(1)
    biases = []
    for K in (4, 8):
        known = rng.random((len(rewards), K))
        error = selected_reward(rewards, procedure, calibration=known).per_prompt - exact
        biases.append((error.mean(), error.std() / np.sqrt(error.size)))
    (few, few_error), (more, more_error) = biases
    assert abs(few) > 8 * few_error
    assert abs(few - 2 * more) < 4 * np.hypot(few_error, 2 * more_error)


def test_a_difference_is_calibrated_once():
    rng = np.random.default_rng(4)
    a, b, reference, known = (rng.random((20, size)) for size in (6, 7, 8, 9))
    procedure = SoftBestOfN(3, 0.1)
    found = win_rate_difference(a, b, reference, procedure, calibration=known).per_prompt
    of_a, of_b = (win_rate(x, reference, procedure, calibration=known).per_prompt for x in (a, b))
    np.testing.assert_array_equal(found, of_a - of_b)


THREE = [[1.0, 2.0, 3.0]]


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (None, r"`calibration` must be given with `Rewind\(.*\)`.* rewards of reference samples"),
        ([[1.0, np.nan]], "`calibration` must hold finite rewards; got nan at prompt 0, sample 1"),
        ([[1.0], [2.0]], "`calibration` must have one row per prompt; got 2 rows for 1 prompts"),
        (THREE, "`calibration` must hold other samples than those that are judged.* set some of"),
    ],
)
def test_a_calibration_that_does_not_serve_is_refused(calibration, message):
    with pytest.raises(ValueError, match=message):
        win_rate([[1.0, 4.0]], THREE, BestOfN(2), against=Rewind(0.5, 2), calibration=calibration)
    with pytest.raises(ValueError, match=message):
        selected_reward(THREE, Rewind(0.5, 2), calibration=calibration)


def test_rank_procedures_read_no_calibration():
    found = win_rate(THREE, THREE, BestOfN(2), calibration=THREE)
    assert found.value == pytest.approx(0.5)


def test_an_unknown_procedure_is_refused():
    class Softer(SoftBestOfN):
        pass

    class Other(type(Rewind(0.5, 2)).__mro__[1]):
        draws, spec = 2, "other"
        cdf = density = selected_cdf = gradient = None

    assert win_rate(THREE, [[0.0, 1.0]], Softer(2, 0.1), calibration=[[1.0]]).value > 0.5
    with pytest.raises(ValueError, match="must select by rank, or be SoftBestOfN or Rewind"):
        win_rate(THREE, [[0.0, 1.0]], Other(), calibration=[[1.0]])
