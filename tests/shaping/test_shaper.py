"""One object shapes a batch: placed once, whatever reads it, and whatever is wrong is named."""

import pickle

import numpy as np
import pytest

from infalign import BestOfN, CalibrationStore, Exponential, Identity, Log, Shaper, SoftBestOfN
from infalign.calibration import Counting, Pooled, StoreCalibration
from infalign.errors import DataError
from infalign.shaping import (
    GroupShapedReward,
    GroupShaper,
    MaxAtKReward,
    MonitoredReward,
    RiskSensitiveReward,
    ShapedReward,
)

RNG = np.random.default_rng(0)
IDS = [f"p{i}" for i in range(12)]
STORE = CalibrationStore.from_rewards(
    IDS, RNG.normal(size=(12, 1)) + RNG.normal(size=(12, 16)).round(2)
)
BATCH = ["p3"] * 4 + ["p0"] * 4
COMPLETIONS = [str(r) for r in RNG.normal(size=8)]
BEST = BestOfN(3)


def number(prompts, completions, **columns):
    return [float(c) for c in completions]


REWARDS = {
    "shaped": lambda **o: ShapedReward(number, STORE, Exponential(3.0), procedure=BEST, **o),
    "smoothed": lambda **o: ShapedReward(number, STORE, Log(), smoothing="add-half", **o),
    "group": lambda **o: GroupShapedReward(number, STORE, BEST, **o),
    "raw": lambda: MonitoredReward(number, STORE, procedure=BEST),
    "max@k": lambda: MaxAtKReward(number, STORE, BEST),
    "risk": lambda: RiskSensitiveReward(number, STORE, 0.5, BEST),
}
CASES = [(name, None) for name in REWARDS] + [("shaped", Pooled()), ("group", Pooled())]


@pytest.fixture
def lookups(monkeypatch):
    """Sizes of the batches placed: every road to the reference rewards leads through `find`."""
    sizes = []
    find = type(STORE.rewards).find

    def counted(self, prompt_ids):
        sizes.append(len(prompt_ids))
        return find(self, prompt_ids)

    monkeypatch.setattr(type(STORE.rewards), "find", counted)
    return sizes


@pytest.mark.parametrize(("name", "calibrator"), CASES)
@pytest.mark.parametrize("logs", [True, False])
def test_a_batch_is_placed_once_whatever_is_logged(name, calibrator, logs, lookups):
    reward = REWARDS[name](**({"calibrator": calibrator} if calibrator else {}))
    metrics = {}
    options = {"log_metric": metrics.__setitem__} if logs else {}
    lookups.clear()
    reward([""] * 8, COMPLETIONS, prompt_id=BATCH, **options)
    reads = logs or name in ("shaped", "smoothed", "group")
    assert lookups == ([8] if reads else [])  # rivals read the store for their logs only
    assert len(metrics) >= 3 * logs
    assert ("infalign/win_rate" in metrics) == (logs and name != "smoothed")


@pytest.mark.parametrize("calibrator", [None, Counting("add-half"), Pooled()])
def test_a_shaper_gives_what_its_reward_function_gives(calibrator):
    shaper = Shaper(STORE, Exponential(3.0), calibrator)
    shaped = shaper(BATCH, number([], COMPLETIONS))
    reward = ShapedReward(number, STORE, Exponential(3.0), calibrator=calibrator)
    assert shaped.value.tolist() == reward([], COMPLETIONS, prompt_id=BATCH)
    assert shaped.raw.tolist() == number([], COMPLETIONS)
    calibration = StoreCalibration.of(STORE, calibrator)
    assert np.array_equal(shaped.quantile, calibration.quantiles(BATCH, shaped.raw))
    again = pickle.loads(pickle.dumps(shaper))(BATCH, shaped.raw)
    assert np.array_equal(again.value, shaped.value)


def test_the_quantile_of_a_shaper_is_the_one_its_transform_reads():
    shaped = Shaper(STORE, Log(), smoothing="add-half")(["p1", "p1"], [-99.0, 99.0])
    assert shaped.quantile.tolist() == [0.5 / 17, 16.5 / 17]
    assert shaped.value == pytest.approx(np.log(shaped.quantile))


@pytest.mark.parametrize(
    ("ids", "rewards", "words"),
    [
        ("p1", [1.0, 2.0], "`prompt_ids` and `rewards` must be lists"),
        (["p1"], [1.0, 2.0], "`prompt_ids` and `rewards` must be lists"),
        (["p1"], 1.0, "`prompt_ids` and `rewards` must be lists"),
        (["p1"], [[1.0]], "`prompt_ids` and `rewards` must be lists"),
        (3, [1.0], "`prompt_ids` and `rewards` must be lists"),
        (["p1"], ["good"], "`rewards` must be an array of numbers"),
    ],
)
def test_a_batch_of_another_form_is_refused(ids, rewards, words):
    for shaper in (Shaper(STORE, Identity()), GroupShaper(STORE, BestOfN(2))):
        with pytest.raises(ValueError, match=words):
            shaper(ids, rewards)


def test_rewards_that_are_not_finite_are_refused():
    for calibrator in (None, Pooled()):
        with pytest.raises((ValueError, DataError), match="`rewards` must be finite; got nan"):
            Shaper(STORE, Identity(), calibrator)(["p1"], [np.nan])


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("reward", [None, 3, "length"]),
        ("store", [None, 3, "runs/demo/calibration", {"p": [1.0]}]),
        ("transform", [None, 3, "identity", Identity]),
        ("calibrator", [3, "pooled", Pooled]),
        ("smoothing", [None, 3, "half"]),
        ("procedure", [3, "best-of-n:2", BestOfN, SoftBestOfN(4, 0.1)]),
        ("against", [3, "best-of-n:2", BestOfN, SoftBestOfN(4, 0.1)]),
        ("group", [0, 2.5, "8", True]),
        ("strength", [None, "1", 0, np.inf]),
        ("key", [None, 3]),
    ],
)
def test_arguments_of_other_kinds_are_named(argument, values):
    right = {
        ShapedReward: {
            "reward": number,
            "store": STORE,
            "transform": Identity(),
            "calibrator": None,
            "smoothing": "none",
            "procedure": BEST,
            "against": BEST,
            "key": "prompt_id",
        },
        GroupShapedReward: {
            "reward": number,
            "store": STORE,
            "procedure": BEST,
            "against": BEST,
            "group": 8,
            "calibrator": None,
            "key": "prompt_id",
        },
        Shaper: {"store": STORE, "transform": Identity(), "calibrator": None, "smoothing": "none"},
        MonitoredReward: {"reward": number, "store": STORE, "procedure": BEST, "against": BEST},
        MaxAtKReward: {
            "reward": number,
            "store": STORE,
            "procedure": BEST,
            "against": BEST,
            "group": 8,
        },
        RiskSensitiveReward: {"reward": number, "store": STORE, "strength": 1.0, "group": 8},
    }
    for kind, arguments in right.items():
        kind(**arguments)
        for value in values if argument in arguments else ():
            with pytest.raises(ValueError, match=f"`{argument}`"):
                kind(**{**arguments, argument: value})


def test_smoothing_of_a_calibrator_that_counts_no_ranks_is_refused():
    with pytest.raises(ValueError, match="`smoothing` applies to plain ranks"):
        Shaper(STORE, Identity(), Pooled(), smoothing="add-half")
    with pytest.raises(ValueError, match="`transform` must be bounded with this calibrator"):
        Shaper(STORE, Log(), Pooled(), smoothing="add-half")


def test_an_opponent_without_a_procedure_is_refused():
    with pytest.raises(ValueError, match="`against` must come with `procedure`"):
        ShapedReward(number, STORE, Identity(), against=BEST)
