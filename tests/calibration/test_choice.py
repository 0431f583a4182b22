"""The choice of a calibrator, calibrators on stores, and what they promise beforehand."""

import pickle

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from infalign import BestOfN, CalibrationStore, Exponential, ShapedReward, WorstOfN
from infalign.calibration import Counting, Pooled, StoreCalibration, choose
from infalign.calibration.assessment import KnownWorld, assess
from infalign.calibration.choice import _error
from infalign.calibration.interface import AbstractCalibrator
from infalign.calibration.outlook import RankOutlook, SimulatedOutlook, outlook_of
from infalign.calibration.simulated import SimulatedPrompts
from infalign.errors import DataError

TRANSFORM = Exponential(20.0)


def alike(prompts=96, samples=8, seed=0, spread=1.0):
    """Normal rewards, of one scale around each prompt's own place."""
    rng = np.random.default_rng(seed)
    place = spread * rng.normal(size=(prompts, 1))
    return place, place + rng.normal(size=(prompts, samples))


@pytest.mark.parametrize("samples", [2, 3, 4, 16])
def test_prompts_that_share_a_shape_are_pooled(samples):
    chosen = choose(alike(samples=samples)[1])
    found = chosen.held_out[chosen.name]
    # On normal rewards the two are one, but for chance.
    assert chosen.name in ("pooled", "pooled-ranks")
    assert found.better > 2 * found.stderr > 0 and min(found.tails) > 0
    assert f"{100 * found.better:.1f}" in chosen.reason and "96 prompts" in chosen.reason


def test_the_choice_does_not_depend_on_the_order_of_samples():
    rewards = alike(prompts=32)[1]
    rng = np.random.default_rng(1)
    assert choose(rewards).held_out == choose(rng.permuted(rewards, axis=1)).held_out


@pytest.mark.parametrize(
    ("rewards", "reason"),
    [
        ((np.random.default_rng(2).random((96, 8)) < 0.5) * 1.0, "the same error"),
        (np.random.default_rng(3).normal(size=(96, 1)), "no prompt has two samples"),
        (np.random.default_rng(3).normal(size=(3, 8)), "the same error"),
    ],
    ids=["pass or fail", "one sample", "three prompts"],
)
def test_counting_stays_where_nothing_is_surely_better(rewards, reason):
    chosen = choose(rewards)
    assert chosen.name == "ecdf" and chosen.calibrator == Counting() and reason in chosen.reason


class Wrong(AbstractCalibrator):
    """Sure of what is not so: everything is as it is in a shifted population."""

    def __init__(self, shift):
        self.shift = shift

    def fit(self, rewards, features=None):
        found = Pooled().fit(rewards)

        class Shifted(type(found)):
            shift = self.shift

            def _belief(self, row, rewards):
                return super()._belief(row, rewards + self.shift)

        return Shifted(**vars(found))


def test_a_calibrator_that_is_wrong_is_not_chosen():
    rewards = alike(samples=8)[1]
    chosen = choose(rewards, candidates={"right": Wrong(0.0), "wrong": Wrong(1.0)})
    assert chosen.name == "right"
    alone = choose(rewards, candidates={"wrong": Wrong(1.0)})
    assert alone.name == "ecdf" and "no less error" in alone.reason
    assert min(alone.held_out["wrong"].tails) < 0


def test_the_error_of_a_prediction_is_least_for_the_truth():
    # E[(told − hit)²] − E[(truth − hit)²] = (told − truth)²: on fresh samples of known laws.
    class Told:
        def __init__(self, shift):
            self.shift = shift

        def quantiles(self, rows, points):
            return ndtr(points + self.shift)

    rng = np.random.default_rng(4)
    drawn = [(rng.normal(), np.sort(rng.normal(size=6))) for _ in range(3000)]
    errors = {
        shift: np.array([_error(held, rest, Told(shift), 0) for held, rest in drawn])
        for shift in (-0.3, 0.0, 0.3)
    }
    for shift in (-0.3, 0.3):
        more = errors[shift] - errors[0.0]
        assert (more.mean(0) > 4 * more.std(0) / np.sqrt(len(drawn)))[0]
        assert (more.mean(0)[1:] > 0).all()


def test_a_calibrator_on_a_store_is_that_on_its_rewards(tmp_path):
    rewards = alike(samples=6)[1]
    ids = [f"p{i}" for i in range(len(rewards))]
    store = CalibrationStore.from_rewards(ids, rewards)
    calibration = StoreCalibration.fit(store, Pooled())
    direct = Pooled().fit(rewards)
    rows = np.array([5, 90, 5, 0])
    asked = rewards[rows, :2] + 0.3
    names = [ids[row] for row in rows]
    assert np.allclose(calibration.quantiles(names, asked), direct.quantiles(rows, asked))
    shaped = direct.shaped(rows, asked[:, 0], TRANSFORM)
    assert np.allclose(calibration.shaped(names, asked[:, 0], TRANSFORM), shaped)
    with pytest.raises(DataError, match=r"prompt_id 'q' is not in the calibration store"):
        calibration.quantiles(["q"], [0.0])

    def reward(prompts, completions, **columns):
        return [float(c) for c in completions]

    texts = [str(x) for x in asked[:, 0]]
    for calibrator in (Pooled(), direct):
        function = ShapedReward(reward, store, TRANSFORM, calibrator=calibrator)
        assert np.allclose(function(prompts=[""] * 4, completions=texts, prompt_id=names), shaped)
    again = pickle.loads(pickle.dumps(calibration))
    assert np.array_equal(again.quantiles(names, asked), calibration.quantiles(names, asked))


@pytest.mark.parametrize("calibrator", [None, Counting(), Counting("add-half"), Pooled()])
def test_one_placement_of_rewards_answers_everything(calibrator):
    rewards = alike(samples=6)[1]
    store = CalibrationStore.from_rewards([str(i) for i in range(len(rewards))], rewards)
    direct = (calibrator or Counting()).fit(rewards)
    rows = np.array([5, 90, 5])
    asked = np.stack([rewards[rows, 2], rewards[rows].min(1) - 1, rewards[rows].max(1) + 1], 1)
    placement = StoreCalibration.of(store, calibrator).place([str(row) for row in rows], asked)
    assert np.allclose(placement.quantile, direct.quantiles(rows, asked))
    assert np.allclose(placement.expected(TRANSFORM), direct.shaped(rows, asked, TRANSFORM))
    assert placement.outside.tolist() == [[False, True, True]] * 3
    chances = placement.win_chance(BestOfN(6))
    if isinstance(calibrator, Pooled):
        assert (np.diff(chances[:, [1, 0, 2]], axis=1) > 0).all()
        assert ((chances > 0) & (chances < 1)).all()
    else:
        assert placement.unsmoothed.quantile[:, 1:].tolist() == [[0, 1]] * 3
        # The best of all six reference rewards is beaten by a reward above all of them only.
        assert chances.tolist() == [[0, 0, 1]] * 3


def test_what_is_no_calibrator_is_refused():
    store = CalibrationStore.from_rewards(["a"], [[1.0]])
    with pytest.raises(ValueError, match="`calibrator` must be a calibrator, such as Pooled"):
        StoreCalibration.of(store, "pooled")


def test_what_is_learned_from_some_prompts_serves_others():
    place, rewards = alike(prompts=200, samples=4)
    learned = Pooled().fit(rewards[:100]).on(rewards[100:])
    exact = ndtr(0.5 - place[100:, 0] + rewards[100:].mean(1))
    errors = [
        np.abs(fitted.quantiles(np.arange(100), rewards[100:].mean(1) + 0.5) - exact).mean()
        for fitted in (learned, Counting().fit(rewards[100:]))
    ]
    assert errors[0] < 0.8 * errors[1]


def test_a_plain_rank_in_a_shaped_reward_is_that_of_the_store():
    rewards = alike(samples=6)[1]
    store = CalibrationStore.from_rewards([str(i) for i in range(96)], rewards)

    def reward(prompts, completions, **columns):
        return [0.1 * i for i in range(len(completions))]

    told = [
        ShapedReward(reward, store, TRANSFORM, **options)(
            prompts=["", ""], completions=["a", "b"], prompt_id=["3", "4"]
        )
        for options in (
            {"calibrator": Counting("add-half")},
            {"smoothing": "add-half"},
            {"calibrator": Counting()},
            {},
        )
    ]
    assert told[0] == told[1] != told[2] == told[3]


@pytest.mark.parametrize(("procedure", "samples"), [(BestOfN(8), 4), (WorstOfN(8), 16)], ids=repr)
def test_what_is_expected_is_what_comes(procedure, samples):
    # A world with known quantiles, and one simulated from what its few samples teach.
    rng = np.random.default_rng(7)
    place = 0.7 * rng.normal(size=(128, 1))
    world = KnownWorld(lambda u: place + ndtri(u), 128)
    rewards, _, _ = world.draw(samples, rng)
    learned = Pooled().fit(rewards)
    transform = TRANSFORM if isinstance(procedure, BestOfN) else Exponential(-20.0)
    found = outlook_of(learned, rewards).achieved(transform, procedure, procedure, kl=0.5)
    real = assess(world, {"": Pooled()}, transform, procedure, kl=0.5, samples=samples,
                 rounds=2, rng=rng)[""]  # fmt: skip
    assert found.kl == pytest.approx(0.5, abs=1e-6)
    assert found.win_rate == pytest.approx(real.win_rate, abs=0.02 + 3 * real.stderr)
    assert found.beta == pytest.approx(real.beta, rel=0.15)
    again = outlook_of(learned, rewards).achieved(transform, procedure, procedure, beta=found.beta)
    assert again.kl == pytest.approx(0.5) and again.win_rate == pytest.approx(found.win_rate)


def test_prompts_alike_have_the_place_and_shape_of_those_learned_from():
    # Skewed: their third moment must come back, too.
    rng = np.random.default_rng(8)
    rewards = 5 + 2 * (rng.normal(size=(400, 1)) + rng.exponential(size=(400, 32)))
    learned = Pooled(np.inf).fit(rewards)
    drawn, truth, _ = SimulatedPrompts(learned, 400).draw(32, rng)
    assert drawn.mean() == pytest.approx(rewards.mean(), abs=4 * 2 / 20)
    assert drawn.mean(1).std() == pytest.approx(rewards.mean(1).std(), rel=0.15)
    within = [(r - r.mean(1, keepdims=True)) for r in (drawn, rewards)]
    assert within[0].std() == pytest.approx(within[1].std(), rel=0.08)
    assert (within[0] ** 3).mean() == pytest.approx((within[1] ** 3).mean(), rel=0.3)
    # Samples fall uniformly on the truth's own quantile axis.
    cells = np.array([np.searchsorted(t, r) for t, r in zip(truth.rewards, drawn, strict=True)])
    u = truth.edges[np.minimum(cells, truth.edges.size - 1)]
    assert abs(u.mean() - 0.5) < 4 / np.sqrt(12 * u.size) + 0.003


def test_rewards_that_cannot_be_pooled_are_expected_as_counted():
    rewards = (np.random.default_rng(9).random((64, 6)) < 0.3) * 1.0
    assert outlook_of(Pooled().fit(rewards), rewards) == RankOutlook(6)
    continuous = alike(samples=5)[1]
    continuous[0, 3:] = np.nan  # the prompt with the fewest
    theory = outlook_of(Pooled().fit(continuous), continuous)
    assert isinstance(theory, SimulatedOutlook) and theory.samples == 3


def test_calibrators_that_all_fall_back_to_plain_ranks_are_said_to_have_the_same_error():
    rewards = np.random.default_rng(3).integers(0, 60, size=(40, 64)) * 0.05  # 1.7 % of pairs tie
    choice = choose(rewards)
    assert choice.name == "ecdf"
    same = "has the same error on held-out samples of"
    assert choice.reason.startswith(("ecdf: pooled-ranks " + same, "ecdf: pooled " + same))
