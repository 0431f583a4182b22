"""The pieces of training, against closed forms on enumerable policies."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_settings import setting_of
from scipy.special import ndtr

from infalign import (
    BestOfN,
    CalibrationStore,
    DataError,
    Exponential,
    Identity,
    Probit,
    Sampling,
    SolveError,
    WorstOfN,
    compare,
    storage,
)
from infalign.calibration import Counting, Pooled
from infalign.calibration.outlook import RankOutlook
from infalign.calibration.raw_reward import raw_beta, raw_rewards, raw_win_rate
from infalign.config import Training
from infalign.core import at_kl, log_weights
from infalign.manifest import Manifest, Stage
from infalign.methods import METHODS, training_design
from infalign.methods.losses import tilt_loss
from infalign.prompts import Prompt
from infalign.training import policy
from infalign.training.kl_control import KLController, RLOOSteps
from infalign.training.landing import FARTHEST, nearest, search
from infalign.training.loop import Checkpoints, drop_checkpoints, last_checkpoint, log_lines
from infalign.training.on_policy import _dataset


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_the_warm_start_descends_the_forward_kl_to_the_tilt(seed):
    # On an enumerable policy the expected loss under π_ref is KL(π* ‖ π) + constant, so their
    # gradients in the logits agree: π - π*.
    rng = np.random.default_rng(seed)
    reference = torch.tensor(rng.dirichlet(np.ones(6)))
    weight = torch.tensor(np.exp(rng.normal(size=6)))
    weight = weight / (reference * weight).sum()
    logits = torch.tensor(rng.normal(size=6), requires_grad=True)
    log_ratio = logits.log_softmax(0) - reference.log()
    losses = torch.stack(
        [tilt_loss(r[None], w[None], 1e9) for r, w in zip(log_ratio, weight, strict=True)]
    )
    (reference * losses).sum().backward()
    expected = logits.softmax(0).detach() - reference * weight
    np.testing.assert_allclose(logits.grad.numpy(), expected.numpy(), atol=1e-12)


def test_the_warm_start_loss_of_one_sample_is_least_where_ratio_and_weight_agree():
    weight = torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64)
    log_ratio = weight.log().clone().requires_grad_()
    tilt_loss(log_ratio, weight, 4.0).backward()
    assert log_ratio.grad.abs().max() < 1e-12


def test_beyond_the_largest_weight_the_warm_start_pushes_no_harder():
    log_ratio = torch.tensor([0.0, 1.0, 5.0, 50.0], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([1.0, 0.5, 2.0, 4.0], dtype=torch.float64)
    tilt_loss(log_ratio, weight, 4.0).backward()
    # (ρ − w)/4 for ρ = 1 and e, then (largest − w)/4: e⁵ and e⁵⁰ are no larger than that.
    expected = [0, (np.e - 0.5) / 4, (4 - 2) / 4, 0]
    np.testing.assert_allclose(log_ratio.grad.numpy(), expected, atol=1e-12)


def normal_store(prompts=40, samples=4000):
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.9, 1.1, (prompts, 1))
    rewards = rng.normal(size=(prompts, samples)) * scale
    return CalibrationStore.from_rewards([str(i) for i in range(prompts)], rewards / scale)


def test_the_raw_tilt_spends_the_kl_it_is_asked_for():
    store = normal_store(samples=64)
    for kl in (0.05, 0.5, 1.5):
        assert abs(raw_rewards(store).tilted(raw_beta(store, kl)).kl - kl) < 1e-8


@pytest.mark.parametrize("procedure", [Sampling(), BestOfN(4), WorstOfN(4)], ids=repr)
def test_raw_rewards_that_are_normal_are_the_probit_transform(procedure):
    # 40 × 4000 normal rewards: the finite-sample tilt is within a few thousandths of the limit.
    store = normal_store()
    ours = raw_win_rate(store, raw_beta(store, 0.5), procedure)
    theory = at_kl(Probit(), 0.5).win_rate(procedure)
    assert abs(ours - theory) < 0.004


def test_a_tilt_that_k_samples_cannot_express_is_refused():
    # log 4 = 1.386 nats is all that four samples can carry.
    with pytest.raises(SolveError, match=r"4 reference samples .* kl=2"):
        raw_beta(normal_store(samples=4), 2.0)


def test_log_weights_average_to_one_over_the_reference():
    rewards = np.random.default_rng(0).normal(size=(5, 32))
    np.testing.assert_allclose(np.exp(log_weights(rewards, 0.7)).mean(1), 1)


def test_both_objectives_imply_tilts_of_the_target_kl():
    store = normal_store(prompts=20, samples=256)
    rewards = np.stack(list(store.rewards.values()))
    setting = setting_of(len, rewards, procedure=WorstOfN(4))
    for method in ("rloo", "rlhf"):
        logs = METHODS[method].objective(setting).tilt(rewards)
        assert abs(np.mean(np.exp(logs)) - 1) < 0.01
        assert abs(np.mean(np.exp(logs) * logs) - 0.5) < 0.02


def test_pooled_quantiles_imply_a_tilt_of_the_target_kl_that_is_the_exact_one():
    rng = np.random.default_rng(5)
    place = rng.normal(size=(128, 1))
    rewards = place + rng.normal(size=(128, 8))
    pooled = setting_of(len, rewards, calibrator=Pooled())
    design = pooled.design
    counted = setting_of(len, rewards, calibrator=Counting(), design=design)
    tilts = [METHODS["rloo"].objective(s).tilt(rewards) for s in (pooled, counted)]
    assert np.exp(tilts[0]).mean() == pytest.approx(1) and design.target_kl == pytest.approx(0.5)
    assert (np.exp(tilts[0]) * tilts[0]).mean() == pytest.approx(0.5, abs=1e-6)
    # Ranks among eight samples know less about exact quantiles.
    exact = at_kl(design.transform, 0.5).density(ndtr(rewards - place))
    errors = [np.abs(np.exp(tilt) - exact).mean() for tilt in tilts]
    assert errors[0] < 0.8 * errors[1]


def test_pooling_needs_a_sharper_table_than_counting_and_wins_more():
    rng = np.random.default_rng(6)
    samples = 4
    rewards = rng.normal(size=(128, 1)) + rng.normal(size=(128, samples))
    pooled, counted = (
        setting_of(len, rewards, procedure=BestOfN(8), calibrator=calibrator).design
        for calibrator in (Pooled(), Counting())
    )
    assert len(pooled.transform.phi) > len(counted.transform.phi) == samples + 1
    assert pooled.win_rate > counted.win_rate + 0.02
    assert pooled.target_kl == pytest.approx(0.5)


@pytest.mark.parametrize("transform", ["optimal", "identity", "exponential:10"])
def test_a_design_says_what_its_number_of_samples_gives(transform):
    best, few = BestOfN(4), RankOutlook(16)
    design = training_design(best, best, transform, kl=0.5, beta=None, outlook=few)
    rows = {row.transform: row for row in compare(
        BestOfN(4), [Identity(), Exponential(10)], kl=0.5, samples=16
    )}  # fmt: skip
    row = rows[transform]
    assert design.target_kl == pytest.approx(0.5, abs=1e-6)
    assert design.beta == pytest.approx(row.beta)
    assert design.win_rate == pytest.approx(row.win_rate)
    again = training_design(best, best, transform, kl=None, beta=design.beta, outlook=few)
    # The search for the best table is as exact as its expected win rate.
    assert again.target_kl == pytest.approx(0.5, abs=0.01)


class Steps(RLOOSteps):
    def __init__(self):
        self.trainer = SimpleNamespace(beta=None)


class State:
    def __init__(self, global_step=0, max_steps=0):
        self.log_history = [{}]
        self.global_step, self.max_steps = global_step, max_steps


def test_the_controller_raises_beta_while_the_kl_is_too_large_and_lowers_it_below():
    for per_token, rises in ((0.1, True), (0.001, False)):
        steps = Steps()
        controller = KLController(0.5, 1.0, steps)
        logs = {"kl": per_token, "completions/mean_length": 20.0}
        state = State()
        for _ in range(5):
            controller.on_log(None, state, None, logs=logs)
        assert (steps.trainer.beta > 1) == rises
        assert state.log_history[-1]["infalign/sequence_kl"] == pytest.approx(20 * per_token)


@pytest.mark.parametrize("start", [0.0, 0.5, 2.8])
@pytest.mark.parametrize("delay", [3, 30])
@pytest.mark.parametrize("needed", [0.5, 1.0, 2.0])
def test_beta_does_not_wind_up_while_a_slow_policy_comes_to_the_target(start, delay, needed):
    # KL* = 0.5 (needed / β)² is that of a policy whose reward is normal; the policy comes nearer to
    # it by 1/delay of the distance in each step. Its KL is measured with an error of 10 %.
    rng, steps, kl, path = np.random.default_rng(0), Steps(), start, []
    controller = KLController(0.5, 1.0, steps)
    controller.on_train_begin(None, State(), None)
    for step in range(400):
        kl += (min(0.5 * (needed / steps.trainer.beta) ** 2, 5.0) - kl) / delay
        logs = {"kl": kl * np.exp(0.1 * rng.normal()) / 20, "completions/mean_length": 20.0}
        controller.on_log(None, State(step), None, logs=logs)
        path.append((kl, steps.trainer.beta / max(needed, 1.0)))
    kls, betas = np.transpose(path)
    assert abs(kls[-50:].mean() / 0.5 - 1) < 0.05
    assert kls[60:].min() > 0.3 and betas.max() < 4


def test_the_state_of_a_former_versions_controller_is_read():
    controller = KLController(0.5, 1.0, Steps())
    state = State(global_step=7)
    attributes = {"beta": 0.4, "average": 0.5}
    state.stateful_callbacks = {"KLController": {"args": {}, "attributes": attributes}}
    controller.on_train_begin(None, state, None)
    assert controller.beta == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("nats", "steps", "words"),
    [
        (0.1, 100, "Raise train.learning_rate, such as train.learning_rate=4e-05"),
        (2.5, 100, "Lower train.learning_rate, such as train.learning_rate=2.5e-06"),
        (0.4, 100, None),  # on its way
        (0.1, 30, "After 5 of 30 steps the KL is 0.1 nats"),  # a tenth would be too early to tell
    ],
)
def test_a_kl_that_is_far_from_the_target_after_a_tenth_of_the_steps_is_said_once(
    nats, steps, words, caplog
):
    controller = KLController(0.5, 1.0, Steps())
    arguments = SimpleNamespace(learning_rate=1e-5)
    logs = {"kl": nats / 20, "completions/mean_length": 20.0}
    first = max(5, steps // 10)
    for step in range(1, steps + 1):
        controller.on_log(arguments, State(step, steps), None, logs=dict(logs))
        assert len(caplog.records) == (words is not None and step >= first)
    kept = "the calibration and the warm start are kept"
    for record in caplog.records:
        assert words in record.getMessage() and kept in record.getMessage()


@pytest.mark.parametrize("power", [0.7, 1.7, 3.5])
@pytest.mark.parametrize("trained", [0.05, 0.5, 8.0])
def test_kl_targeting_meets_the_target_on_a_power_law(power, trained):
    # α = (0.5 / trained)^(1/power), which for 0.05 nats and power 0.7 is 26.8: out of reach.
    expected = (0.5 / trained) ** (1 / power)
    if expected > FARTHEST:
        with pytest.raises(DataError, match="moved the policy too little"):
            search(lambda alpha: trained * alpha**power, 0.5)
        return
    tried = search(lambda alpha: trained * alpha**power, 0.5, tolerance=1e-6)
    assert nearest(tried, 0.5) == pytest.approx((expected, 0.5), rel=1e-5)


def test_a_kl_that_is_close_enough_at_the_farthest_place_is_taken():
    tried = search(lambda alpha: 0.03 * alpha**2, 0.5)
    assert nearest(tried, 0.5) == (FARTHEST, 0.48)


def test_kl_targeting_meets_the_target_through_noise():
    # KLs measured with an error of 2 %, as 1024 responses give; twenty searches.
    for seed in range(20):
        rng = np.random.default_rng(seed)
        tried = search(lambda a, rng=rng: 0.2 * a**2 * np.exp(rng.normal(0, 0.02)), 0.5)
        alpha, kl = nearest(tried, 0.5)
        assert abs(kl / 0.5 - 1) <= 0.1 and abs(0.2 * alpha**2 / 0.5 - 1) < 0.1 + 4 * 0.02


def test_a_policy_that_hardly_moved_is_refused_at_the_farthest_place():
    seen = []

    def measure(alpha):
        seen.append(alpha)
        return 1e-4 * alpha**2

    with pytest.raises(DataError) as caught:
        search(measure, 0.5)
    assert seen == [1.0, FARTHEST]
    assert str(caught.value) == (
        "Training moved the policy too little: 4 times its change of weights gives a KL of 0.0016 "
        "nats, less than the 0.5 asked for. Scaling further would leave the policy that was "
        "trained. Train longer, or with other step sizes (`train.steps`, `train.warm_start`, "
        "`train.learning_rate`, `train.warm_start_learning_rate`), or ask for another `kl`."
    )


def test_a_policy_that_did_not_move_at_all_is_refused():
    with pytest.raises(DataError, match=r"a KL of 0 nats, less than the 0\.5 asked for"):
        search(lambda alpha: 0.0, 0.5)


def test_a_policy_that_misses_the_target_by_more_than_a_tenth_is_refused():
    # A step: 0.1 nats below α = 0.7, 2 nats above, and nothing at the 0.5 asked for.
    with pytest.raises(DataError, match=r"KL of 0\.5 nats: the nearest of 6 tries has 0\.1, at"):
        search(lambda alpha: 0.1 if alpha < 0.7 else 2.0, 0.5)


def test_a_policy_that_diverged_is_refused():
    with pytest.raises(DataError, match=r"KL is nan at 1 times .* diverged\. Use smaller steps"):
        search(lambda alpha: float("nan"), 0.5)


class Plain:
    chat_template = None


def test_training_on_a_conversation_needs_a_chat_template():
    question = {"role": "user", "content": "And then?"}
    one, three = Prompt("a", (question,)), Prompt("b", (question,) * 3)
    assert set(_dataset([one], Plain())["prompt"]) == {"And then?"}
    with pytest.raises(DataError, match=r"begins 'And then\?' has 3 messages\. Use prompts of one"):
        _dataset([three], Plain())


@pytest.fixture
def stage(tmp_path):
    """A stage with checkpoints at steps 2 and 10, the best one before step 10 being 2."""
    stage = Stage(Manifest(tmp_path), "train", {"design": "a"})
    for step, best in ((2, None), (10, "/moved/checkpoint-2")):
        folder = tmp_path / f"checkpoint-{step}"
        with stage.recording(folder):
            state = {"global_step": step, "best_model_checkpoint": best}
            storage.write_json(folder / "trainer_state.json", state)
    return stage


def test_the_newest_checkpoint_is_taken_and_other_folders_are_left_alone(stage, tmp_path):
    (tmp_path / "checkpoint-mine").mkdir()
    assert last_checkpoint(tmp_path, stage) == str(tmp_path / "checkpoint-10")
    drop_checkpoints(tmp_path, stage)
    assert {p.name for p in tmp_path.iterdir()} == {"manifest.json", "checkpoint-mine"}
    assert not stage.manifest.listed(tmp_path)
    assert last_checkpoint(tmp_path, stage) is None


def test_an_unfinished_checkpoint_is_removed_and_the_one_before_it_taken(stage, tmp_path):
    stage.manifest.forget(tmp_path / "checkpoint-10")
    assert last_checkpoint(tmp_path, stage) == str(tmp_path / "checkpoint-2")
    assert not (tmp_path / "checkpoint-10").exists()


@pytest.mark.parametrize("step", [2, 10])
def test_a_damaged_checkpoint_that_would_be_read_is_named(stage, tmp_path, step):
    file = tmp_path / f"checkpoint-{step}" / "trainer_state.json"
    file.write_text(file.read_text().replace("global", "globel"))
    with pytest.raises(DataError, match=f"checkpoint-{step}/trainer_state.json is not what was wr"):
        last_checkpoint(tmp_path, stage)


def test_checkpoints_of_another_design_are_not_continued(stage, tmp_path):
    other = Stage(stage.manifest, "train", {"design": "b"})
    with pytest.raises(DataError, match=r"made from other inputs: design 'a', not 'b'\. Restore"):
        last_checkpoint(tmp_path, other)


def test_the_log_has_neither_times_nor_the_summary_that_depends_on_interruptions():
    rows = [
        {
            "step": 1,
            "loss": 0.5,
            "step_time": 3.1,
            "eval_runtime": 1.0,
            "eval_samples_per_second": 2.0,
        },
        {"train_runtime": 9.0, "train_loss": 0.4, "step": 1},
    ]
    assert list(log_lines(rows)) == ['{"loss": 0.5, "step": 1}\n']


def test_a_checkpoint_is_made_when_a_minute_has_passed(tmp_path):
    now = [0.0]
    kept = Checkpoints(tmp_path, Stage(Manifest(tmp_path), "train", {}), lambda: now[0])
    state = SimpleNamespace(best_global_step=None, is_world_process_zero=False)
    kept.on_train_begin(None, state, None)
    made = []
    for minute in range(12):
        now[0] = 25.0 * minute
        control = SimpleNamespace(should_save=False)
        kept.on_step_end(None, state, control)
        if control.should_save:
            made.append(now[0])
            kept.on_save(None, state, control)
    assert made == [75, 150, 225]


@pytest.mark.parametrize("name", ["likelihood", "regression"])
def test_the_warm_start_has_the_loss_that_is_stated(tmp_path, monkeypatch, name):
    tilt = np.zeros((2, 3))
    asked = []
    monkeypatch.setattr(
        policy, "train_offline", lambda recipe, samples, task, **_: asked.append(task)
    )
    monkeypatch.setattr(policy, "is_done", lambda folder, stage: False)
    monkeypatch.setattr(policy, "TOWARD_TILT", {name: lambda given: (name, given)})
    train = Training(steps=0, warm_start=1, warm_start_loss=name)
    method = SimpleNamespace(objective=lambda setting: SimpleNamespace(tilt=lambda rewards: tilt))
    rest = (SimpleNamespace(rewards=tilt), method, None, (), None, tmp_path, None, print)
    assert policy._on_policy(SimpleNamespace(train=train), *rest) == tmp_path / "warm_start"
    assert asked == [(name, tilt)]
