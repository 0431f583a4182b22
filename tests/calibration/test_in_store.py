"""Every calibrator on a store: used as documented, or refused by name with the remedy."""

import inspect
import pickle

import numpy as np
import pytest

from infalign import CalibrationStore, Exponential, GroupShapedReward, OrderStatistic, ShapedReward
from infalign import calibration as package
from infalign.calibration import (
    AbstractCalibrator,
    Counting,
    NormalScores,
    Pooled,
    QuantileRegression,
    Refined,
    StoreCalibration,
    TailExtrapolation,
)

PROMPTS, K = 300, 8
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(PROMPTS, 2))
REWARDS = FEATURES @ [3.0, 0.0] + RNG.normal(size=(K, PROMPTS)) / 3
REWARDS = REWARDS.T
IDS = [f"p{i}" for i in range(PROMPTS)]
STORE = CalibrationStore.from_rewards(IDS, REWARDS)
DESCRIBED = dict(zip(IDS, FEATURES.tolist(), strict=True))
TRANSFORM = Exponential(4.0)
ASKED = [5, 0, 5, 299]

REFINED = Refined(np.zeros((PROMPTS, K)), REWARDS, np.zeros((PROMPTS, K)))
ON_REWARDS = [Counting(), Pooled(), NormalScores(Pooled()), TailExtrapolation()]
ON_FEATURES = [QuantileRegression(), NormalScores(QuantileRegression())]


def length(prompts, completions, **columns):
    return [float(len(c)) / 4 - 4 for c in completions]


def values(**options):
    """Training rewards of four completions, and the raw ones they come from."""
    shaped = ShapedReward(length, STORE, TRANSFORM, **options)
    completions, ids = ["a" * (7 * i) for i in range(1, 5)], [IDS[i] for i in ASKED]
    found = shaped(prompts=[""] * 4, completions=completions, prompt_id=ids)
    again = pickle.loads(pickle.dumps(shaped))
    assert again(prompts=[""] * 4, completions=completions, prompt_id=ids) == found
    return found, np.array(length(None, completions))


def test_every_public_calibrator_is_tested_here():
    public = {
        value
        for value in vars(package).values()
        if inspect.isclass(value) and issubclass(value, AbstractCalibrator)
    }
    tested = {type(c) for c in (*ON_REWARDS, *ON_FEATURES, REFINED)}
    assert public - {AbstractCalibrator} == tested


@pytest.mark.parametrize("calibrator", ON_REWARDS, ids=repr)
def test_what_reads_rewards_alone_gives_what_it_gives_on_arrays(calibrator):
    found, raw = values(calibrator=calibrator)
    expected = calibrator.fit(REWARDS).shaped(ASKED, raw, TRANSFORM)
    assert found == pytest.approx(expected.tolist(), abs=1e-12)
    assert values(calibrator=calibrator.fit(REWARDS))[0] == pytest.approx(found, abs=1e-12)


@pytest.mark.parametrize("calibrator", ON_FEATURES, ids=repr)
def test_features_are_given_by_prompt_id(calibrator):
    fitted = StoreCalibration.fit(STORE, calibrator, features=DESCRIBED)
    found, raw = values(calibrator=fitted)
    learned = calibrator.fit(REWARDS, FEATURES)
    own = learned.on(REWARDS[ASKED], FEATURES[ASKED])  # as of a prompt that it did not learn from
    assert found == pytest.approx(own.shaped(np.arange(4), raw, TRANSFORM).tolist(), abs=1e-12)
    assert found != pytest.approx(values()[0], abs=1e-3)
    turned = dict(zip(IDS, FEATURES[::-1].tolist(), strict=True))
    other = StoreCalibration.fit(STORE, calibrator, features=turned)
    assert values(calibrator=other)[0] != pytest.approx(found, abs=1e-3)


@pytest.mark.parametrize("calibrator", ON_FEATURES, ids=repr)
@pytest.mark.parametrize("learned", [False, True])
def test_what_reads_features_is_refused_without_them(calibrator, learned):
    name = type(calibrator).__name__.removeprefix("Quantile")
    given = calibrator.fit(REWARDS, FEATURES) if learned else calibrator
    told = rf"^`features` must describe each prompt for \w*{name.replace('Normal', '')}; got None"
    for make in (lambda c: values(calibrator=c), lambda c: group(calibrator=c)):
        with pytest.raises(ValueError, match=told + r".*StoreCalibration\.fit\(.*features="):
            make(given)


@pytest.mark.parametrize("calibrator", [REFINED, REFINED.fit(REWARDS)], ids=["given", "learned"])
def test_what_reads_policy_samples_is_refused_by_name(calibrator):
    for make in (lambda c: values(calibrator=c), lambda c: group(calibrator=c)):
        with pytest.raises(ValueError, match=r"^`calibrator` .*Refined also reads .*Pooled\(\)\.$"):
            make(calibrator)
    with pytest.raises(ValueError, match=r"normal scores; got Refined.*Use it alone"):
        NormalScores(REFINED)
    with pytest.raises(ValueError, match="Refined applies to the prompts it was fitted to"):
        REFINED.fit(REWARDS).on(REWARDS)


def group(**options):
    return GroupShapedReward(length, STORE, OrderStatistic(2, 1), **options)


def test_features_that_are_missing_or_not_read_are_named():
    with pytest.raises(ValueError, match=r"`features` are not read by Pooled\. Leave them out"):
        StoreCalibration.fit(STORE, Pooled(), features=DESCRIBED)
    some = {k: v for k, v in DESCRIBED.items() if k not in ("p7", "p9")}
    with pytest.raises(ValueError, match=r"prompt_id 'p7' has none \(2 of 300 looked up\)"):
        StoreCalibration.fit(STORE, QuantileRegression(), features=some)


def test_a_calibration_of_another_store_is_refused():
    other = CalibrationStore.from_rewards(IDS, REWARDS)
    with pytest.raises(ValueError, match="`calibrator` must be fitted to `store`"):
        values(calibrator=StoreCalibration.fit(other, Pooled()))
