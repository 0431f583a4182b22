"""The methods of `train.method`: each has a label, an objective, and a β of the right size."""

from functools import cache

import numpy as np
import pytest
from method_settings import setting_of

from infalign import BestOfN, Identity, Log, WorstOfN, compare
from infalign.calibration import Counting, Pooled
from infalign.calibration.outlook import RankOutlook
from infalign.config import parse_config
from infalign.core import SelectedReward, _utilities, coupled_tilt, design, first_tilt
from infalign.errors import ConfigError, SolveError
from infalign.methods import METHODS, OnPolicy, objectives

CONFIG = {
    "model": "none",
    "reward": "none",
    "kl": 0.5,
    "prompts": {"file": "none"},
    "train": {"group": 8, "batch_size": 64},
}


def length(prompts, completions, **columns):
    return [float(len(c)) for c in completions]


BEST, COUNTED = BestOfN(4), Counting()


@cache
def setting(procedure=BEST, calibrator=COUNTED, samples=64):
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(100, 1)) + rng.normal(size=(100, samples))
    return setting_of(length, rewards, procedure=procedure, calibrator=calibrator)


def objective(name, setting):
    return METHODS[name].objective(setting)


def test_every_method_has_a_name_a_label_and_a_summary_of_its_own():
    rows = list(METHODS.values())
    for words in ([m.name for m in rows], [m.label for m in rows], [m.summary for m in rows]):
        assert all(words) and len(set(words)) == len(words)
    assert list(METHODS) == [m.name for m in rows]


ON_POLICY = [m.name for m in METHODS.values() if isinstance(m, OnPolicy)]


@pytest.mark.parametrize("calibrator", [Counting(), Pooled()], ids=repr)
@pytest.mark.parametrize("method", ON_POLICY)
def test_every_method_makes_rewards_of_whole_groups_and_a_tilt_where_it_is_known(
    method, calibrator
):
    s = setting(calibrator=calibrator)
    made = objective(method, s)
    ids = ["3"] * 8 + ["7"] * 8
    words = ["a" * i for i in range(16)]
    rewards = made.reward(prompts=ids, completions=words, prompt_id=ids)
    assert np.isfinite(rewards).all() and len(rewards) == 16 and made.beta > 0
    assert (np.diff(rewards[:8]) >= -1e-12).all()  # of longer completions not less
    assert made.reward.__name__.endswith("length")
    logs = made.tilt(np.stack(list(s.store.rewards.values())))
    assert np.exp(logs).mean() == pytest.approx(1, abs=0.02)
    assert (np.exp(logs) * logs).mean() == pytest.approx(0.5, abs=0.06)


def test_betas_are_those_of_theory():
    s = setting()
    rows = {r.transform: r for r in compare(BestOfN(4), [Identity(), Log()], kl=0.5, samples=64)}
    assert objective("identity", s).beta == pytest.approx(rows["identity"].beta)
    assert objective("vbon", s).beta == pytest.approx(rows["log"].beta)
    assert objective("group", s).beta == pytest.approx(design(BestOfN(4), kl=0.5).beta, rel=1e-9)
    assert s.outlook == RankOutlook(64)


def test_risk_is_sought_for_the_best_of_many_and_avoided_for_the_worst():
    for procedure, sign in ((BestOfN(4), 1), (WorstOfN(4), -1)):
        made = objective("rs-grpo", setting(procedure))
        assert np.sign(made.reward.shaper.strength) == sign
        assert abs(made.reward.shaper.strength) == pytest.approx(2.0, rel=0.1)  # spread 1


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"method": "group", "group": 4}, "group needs more responses per prompt than the 4"),
        ({"method": "pkpo", "group": 4}, "pkpo needs more responses"),
        ({"method": "rloo", "baselines": ["pkpo"], "group": 4}, "pkpo needs more"),
        ({"method": "nonsense"}, r"`train\.method` .* must be one of rloo, grpo, .*got 'nonsense'"),
    ],
)
def test_what_a_method_cannot_do_is_said_before_anything_runs(changed, words):
    with pytest.raises(ConfigError, match=words):
        parse_config(CONFIG | {"train": CONFIG["train"] | changed})


def test_a_utility_without_an_optimum_takes_the_first_step_toward_it(monkeypatch, caplog):
    rewards = -np.random.default_rng(0).exponential(size=(30, 32))
    utility = SelectedReward(WorstOfN(8))
    beta, logs = objectives._toward(rewards, utility, 0.5)
    assert (beta, logs[0, 0]) == pytest.approx(
        [x if np.isscalar(x) else x[0, 0] for x in coupled_tilt(rewards, utility, 0.5, close=0.01)]
    )
    assert not caplog.records
    monkeypatch.setattr(_utilities, "ROUNDS", 300)
    beta, logs = objectives._toward(rewards, utility, 0.5)
    first = first_tilt(rewards, utility, 0.5)
    assert beta == first[0] and np.array_equal(logs, first[1])
    assert "No policy at 0.5 nats was found that is its own optimum" in caplog.text
    with pytest.raises(SolveError, match="32 samples per prompt reach at most"):
        objectives._toward(rewards, utility, 5.0)
