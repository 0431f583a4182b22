"""Win rates while training: what is measured, and that training does not notice."""

import random

import numpy as np
import pytest
import torch
from datasets import Dataset
from enumerable import EnumerableModel
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from trl import RLOOConfig, RLOOTrainer

from infalign import BestOfN, CalibrationStore, DataError, Rewind, Sampling, WorstOfN, win_rate
from infalign.models.hf import LanguageModel
from infalign.prompts import Prompt
from infalign.training.watch import WinRateCallback, undisturbed

WORDS = ["a", "ab", "cb"]
PROMPTS = [Prompt(f"p{i}", ({"role": "user", "content": w},)) for i, w in enumerate(WORDS)]


def letters(*, prompts, completions, **columns):
    """The number of b, and random numbers taken from everywhere, as a reward may do."""
    random.random(), np.random.rand(), torch.rand(3)
    return [float(c[-1]["content"].count("b")) for c in completions]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A reference, and a policy next to it."""
    folder = tmp_path_factory.mktemp("models")
    reference = EnumerableModel.make(folder / "reference", seed=0)
    policy = EnumerableModel.make(folder / "policy", seed=1, scale=0.1, near=reference)
    return reference, policy


def begin(callback, model, step=0, **states):
    """What a trainer does with a callback before its first step; returns the rows logged."""
    state = TrainerState(global_step=step, stateful_callbacks=states)
    tokenizer = AutoTokenizer.from_pretrained(model.path)
    tokenizer.pad_token = tokenizer.eos_token
    callback.on_train_begin(
        None, state, None, model=model.model(torch.float32), processing_class=tokenizer
    )
    return state.log_history


def law_of_rewards(model, word):
    """Chance of 0, 1, 2, … letters b in a response."""
    chances = np.zeros(model.max_new_tokens + 1)
    for text, p in model.law(word).items():
        chances[text.count("b")] += p
    return chances


@pytest.mark.parametrize("procedure", [Sampling(), BestOfN(2), WorstOfN(3)], ids=str)
def test_what_is_logged_is_the_policys_win_rate_length_and_kl(world, procedure):
    reference, policy = world
    rng, m = np.random.default_rng(0), 1500
    laws = [(law_of_rewards(policy, w), law_of_rewards(reference, w)) for w in WORDS]

    def draw(side, times=1):
        return np.concatenate([rng.choice(4, (times, m), p=p[side] / p[side].sum()) for p in laws])

    watch = WinRateCallback(
        letters,
        PROMPTS,
        procedure,
        every=1,
        samples=m,
        reference=draw(1),
        reference_model=reference.language_model(),
        max_new_tokens=3,
    )
    (row,) = begin(watch, policy)
    # By the laws of both: the selected ones' CDFs are H of these, and ties count one half.
    steps = [
        [np.diff(procedure.cdf(np.append(0, np.cumsum(x).clip(0, 1)))) for x in p] for p in laws
    ]
    truth = np.mean([a @ (np.cumsum(b) - b / 2) for a, b in steps])
    again = win_rate(draw(0, 100), draw(1, 100), procedure).per_prompt.reshape(3, 100).mean(0)
    assert abs(row["infalign/win_rate"] - truth) < 4 * again.std(ddof=1) < 0.05
    assert abs(again.mean() - truth) < 4 * again.std(ddof=1) / 10
    assert row["infalign/win_rate_low"] < row["infalign/win_rate"] < row["infalign/win_rate_high"]
    exact = [policy.law(w) for w in WORDS]
    tokens = np.mean([sum(p * len(policy.tokens(t)) for t, p in law.items()) for law in exact])
    assert row["infalign/mean_tokens"] == pytest.approx(tokens, abs=4 * 1.5 / np.sqrt(4500))
    q = [reference.law(w) for w in WORDS]
    kl = np.mean(
        [sum(p * np.log(p / b[t]) for t, p in a.items()) for a, b in zip(exact, q, strict=True)]
    )
    assert kl > 0.02 and row["infalign/kl"] == pytest.approx(kl, rel=0.15)
    assert row["step"] == 0


def test_a_policy_that_starts_as_the_reference_ties_with_what_is_drawn_from_it(world):
    watch = WinRateCallback(letters, PROMPTS, BestOfN(2), every=1, samples=800, max_new_tokens=3)
    (row,) = begin(watch, world[0])
    assert watch.reference.shape == (3, 800)
    assert 0.45 < row["infalign/win_rate"] < 0.55 and row["infalign/win_rate"] != 0.5
    assert "infalign/kl" not in row


def test_a_store_gives_the_reference_rewards_of_its_prompts(world):
    rewards = np.random.default_rng(1).integers(0, 4, (4, 6))
    store = CalibrationStore.from_rewards(["p2", "p0", "other", "p1"], rewards)
    watch = WinRateCallback(letters, PROMPTS, Sampling(), every=1, samples=2, reference=store)
    np.testing.assert_array_equal(watch.reference, np.sort(rewards[[1, 3, 0]], axis=1))
    with pytest.raises(DataError) as caught:
        unknown = [*PROMPTS, Prompt("new", PROMPTS[0].messages)]
        WinRateCallback(letters, unknown, Sampling(), every=1, samples=2, reference=store)
    assert str(caught.value) == (
        "The calibration store has no rewards for prompt 'new' (1 of 4 prompts are unknown). "
        "Calibrate these prompts too, or leave `reference` out to draw from the policy as it "
        "starts."
    )


# Training with it and without.


def dropping_out(tokenizer):
    """A small model whose training draws random numbers at every step."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=8, n_layer=2, n_head=2, n_positions=32, eos_token_id=0
    )
    return GPT2LMHeadModel(config)


def supervised(world, out, callbacks, *, resume=None, steps=4):
    tokenizer = AutoTokenizer.from_pretrained(world[0].path)
    tokenizer.pad_token = tokenizer.eos_token
    rows = [{"input_ids": ids, "labels": ids} for ids in ([1, 2, 0], [2, 2, 1], [3, 1, 2])]
    arguments = TrainingArguments(
        str(out),
        max_steps=steps,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        logging_steps=2,
        save_steps=2,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        seed=3,
    )
    trainer = Trainer(
        dropping_out(tokenizer),
        arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    for callback in callbacks:
        callback.trainer = trainer
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def watch(**options):
    return WinRateCallback(
        letters, PROMPTS, BestOfN(2), samples=4, max_new_tokens=3, **{"every": 1} | options
    )


def rows_of(trainer, ours=True):
    return [r for r in trainer.state.log_history if ("infalign/win_rate" in r) == ours]


def test_training_is_bit_for_bit_the_same_with_and_without(world, tmp_path, capsys):
    def result(callbacks, out):
        trainer = supervised(world, tmp_path / out, callbacks)
        after = torch.rand(3), np.random.rand(3), random.random()
        return trainer, trainer.model.state_dict(), after

    alone, weights, after = result([], "alone")
    watched, same, same_after = result([watch()], "watched")
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    for a, b in zip(after, same_after, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [r["step"] for r in rows_of(watched)] == [0, 1, 2, 3, 4]
    losses = [[r["loss"] for r in rows_of(t, ours=False) if "loss" in r] for t in (alone, watched)]
    assert losses[0] == losses[1] and len(losses[0]) == 2
    # The policy moved, and so did its win rate.
    assert len({r["infalign/mean_tokens"] for r in rows_of(watched)}) > 1


def test_a_resumed_training_goes_on_with_the_same_reference(world, tmp_path, capsys):
    whole = supervised(world, tmp_path / "whole", [watch(every=2)])
    checkpoint = str(tmp_path / "whole" / "checkpoint-2")
    resumed = supervised(world, tmp_path / "resumed", [watch(every=2)], resume=checkpoint)
    assert rows_of(resumed) == rows_of(whole)
    assert [r["step"] for r in rows_of(whole)] == [0, 2, 4]


def test_a_checkpoint_without_reference_rewards_is_refused(world):
    with pytest.raises(DataError, match=r"no reference rewards to go on with.*Pass `reference`"):
        begin(watch(), world[0], step=2)
    assert begin(watch(reference=np.ones((3, 2))), world[0], step=2) == []


def test_trackers_get_the_rows_and_other_logs_too(world, tmp_path, capsys):
    class Tracker(TrainerCallback):
        reported = ()

        def on_log(self, args, state, control, logs=None, **kwargs):
            self.reported = (*self.reported, logs)

    tracker = Tracker()
    supervised(world, tmp_path, [watch(every=4), tracker])
    ours = [logs for logs in tracker.reported if "infalign/win_rate" in logs]
    assert [logs["step"] for logs in ours] == [0, 4]
    assert sum("loss" in logs for logs in tracker.reported) == 2


def test_modes_and_random_numbers_are_as_before_also_after_an_error(world):
    model = dropping_out(AutoTokenizer.from_pretrained(world[0].path))
    model.train()
    model.transformer.h[0].eval()  # a part in another mode than the rest
    modes = [part.training for part in model.modules()]
    assert len(set(modes)) == 2
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with pytest.raises(KeyError), undisturbed(model):
        assert not any(part.training for part in model.modules())
        assert not torch.is_grad_enabled()
        random.random(), np.random.rand(), torch.rand(1)
        raise KeyError
    assert [part.training for part in model.modules()] == modes and torch.is_grad_enabled()
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected


def test_no_other_gpu_is_asked_for_its_random_numbers(world, monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: asked.append(device))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: None)
    with undisturbed(dropping_out(AutoTokenizer.from_pretrained(world[0].path))):
        pass
    assert not asked


@pytest.mark.pins
@pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL's settings and transformers disagree
def test_trls_on_policy_trainer_is_watched_and_not_disturbed(world, tmp_path, capsys):
    reference, _ = world

    def count(prompts, completions, **columns):
        return [float(c.count("b")) for c in completions]

    def train(out, callbacks):
        tokenizer = AutoTokenizer.from_pretrained(reference.path)
        tokenizer.pad_token = tokenizer.eos_token
        arguments = RLOOConfig(
            str(tmp_path / out),
            max_steps=2,
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=3,
            learning_rate=0.05,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
        )
        trainer = RLOOTrainer(
            model=str(reference.path),
            reward_funcs=count,
            args=arguments,
            train_dataset=Dataset.from_list([{"prompt": w} for w in WORDS]),
            processing_class=tokenizer,
            callbacks=callbacks,
        )
        for callback in callbacks:
            callback.reference_model = LanguageModel.of(
                trainer.ref_model or reference.model(torch.float32), tokenizer, max_new_tokens=3
            )
        trainer.train()
        return trainer

    alone, watched = train("alone", []), train("watched", [watch(every=1)])
    same = watched.model.state_dict()
    assert all(torch.equal(w, same[name]) for name, w in alone.model.state_dict().items())
    first, *_, last = rows_of(watched)
    assert first["infalign/kl"] == pytest.approx(0, abs=1e-6) and last["infalign/kl"] > 1e-3
    # TRL's own figures are those of a training that nobody watches.
    rewards = [
        [r["reward"] for r in t.state.log_history if "reward" in r] for t in (alone, watched)
    ]
    assert rewards[0] == rewards[1] and len(rewards[0]) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"every": 0}, r"`every` must be a whole number of at least 1; got 0"),
        ({"samples": 1}, r"BestOfN\(n=2\).* needs at least 2 samples per prompt in `samples`"),
        ({"against": BestOfN(8)}, r"BestOfN\(n=8\).* needs at least 8 .* in `samples`"),
        ({"prompts": PROMPTS[:1]}, r"`prompts` must be at least 2 for an interval; got 1"),
        (
            {"procedure": Rewind(0.5, 2)},
            r"`procedure` must be .* selects by rank.* got Rewind",
        ),
        ({"reference": np.ones((2, 4))}, r"`reference` must have one row for .*; got 2 rows for 3"),
        ({"reference": np.ones((3, 1))}, r"BestOfN\(n=2\).* in `reference`; prompt 0 has 1"),
        ({"temperature": 0}, r"`temperature` must be above 0"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_training(change, message):
    arguments = {"prompts": PROMPTS, "procedure": BestOfN(2), "every": 1, "samples": 4} | change
    with pytest.raises(ValueError, match=message):
        WinRateCallback(letters, **arguments)


def test_a_tokenizer_without_padding_is_refused(world):
    bare = AutoTokenizer.from_pretrained(world[0].path)
    assert bare.pad_token_id is None
    with pytest.raises(DataError, match=r"no padding token, .*tokenizer\.pad_token = "):
        LanguageModel.of(world[0].model(), bare)
