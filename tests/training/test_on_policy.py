"""On-policy training of a policy whose responses can be listed: what is logged, judged, stopped."""

import json
import sys
import warnings
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from enumerable import EnumerableModel, fits
from method_settings import design_of, setting_of
from transformers import AutoTokenizer, TrainerCallback
from transformers.integrations import integration_utils

from infalign import BestOfN, DataError, Identity, _progress, design
from infalign.config import parse_config
from infalign.manifest import Manifest, Stage
from infalign.methods import METHODS, Objective
from infalign.prompts import Prompt
from infalign.text import decoded, text_of
from infalign.training.kl_control import GRPOSteps, RLOOSteps
from infalign.training.on_policy import train_on_policy
from infalign.training.recipe import Recipe
from infalign.training.weights import saved_state

WORDS = ["ab", "c", "ba", "bc", "a", "cc"]
PROMPTS = [Prompt(w, ({"role": "user", "content": w},)) for w in WORDS]
BEST = BestOfN(2)


def value(prompts, completions, **columns):
    """All responses have different rewards."""
    texts = map(text_of, completions)
    return [sum(("\n abc".index(c) - 1) * 4.0**-i for i, c in enumerate(text)) for text in texts]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return EnumerableModel.make(tmp_path_factory.mktemp("reference"), seed=1)


def settled(reference, sampling=None, **changed):
    train = {
        "steps": 6,
        "save_steps": 2,
        "batch_size": 16,
        "group": 4,
        "learning_rate": 1e-3,
        "trl": {"bf16": False, "num_generations_eval": 4},
    }
    config = parse_config({
        "model": str(reference.path),
        "reward": "python:a.b:c",
        "prompts": {"file": "f"},
        "kl": 0.3,
        "sampling": {"max_new_tokens": reference.max_new_tokens, **(sampling or {})},
        "train": train | changed,
        "procedure": "best-of-n:2",
        "evaluate": {"gold": {"opposed": "python:d.e:f"}},
    })  # fmt: skip
    design = design_of(Identity(), 0.2, 0.3)
    rows = rewards_of(reference)
    return config, setting_of(value, rows, ids=WORDS, procedure=BEST, design=design, group=4)


def rewards_of(reference):
    rng, rows = np.random.default_rng(0), []
    for word in WORDS:
        texts, chances = zip(*reference.law(word).items(), strict=True)
        chances = np.array(chances) / np.sum(chances)
        rows.append(value(None, rng.choice(texts, size=64, p=chances)))
    return rows


def train(
    reference,
    out,
    objective=None,
    method="rloo",
    prompts=PROMPTS,
    gold=None,
    report=lambda done, total: None,
    **changed,
):
    config, setting = settled(reference, **changed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TRL's and torch's own
        train_on_policy(
            Recipe.of(config, str(reference.path)),
            METHODS[method],
            objective or METHODS[method].objective(setting),
            setting,
            prompts=prompts[:4],
            validation=prompts[4:],
            start=None,
            out=out,
            stage=Stage(Manifest(out), "train", {}),
            report=report,
            gold=gold,
        )
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", ["rloo", "grpo"])
@pytest.mark.parametrize("strip", [False, True])
def test_a_reward_gets_the_messages_and_texts_of_calibration(tmp_path, method, strip):
    # A model without a chat template, for which TRL passes strings; some responses end in spaces.
    spaced = EnumerableModel.make(tmp_path / "spaced", seed=1, letters="abc \n")
    tokenizer, seen = AutoTokenizer.from_pretrained(spaced.path), []

    def noted(prompts, completions, *, prompt_id, completion_ids, **columns):
        seen.extend(zip(prompts, completions, prompt_id, completion_ids, strict=True))
        return [0.0] * len(completions)

    asked = [Prompt(w, ({"role": "user", "content": w},)) for w in (" a", "b\n", "ab", "ba", "a")]
    objective = Objective(noted, 0.2, lambda rewards: rewards)
    run = {"steps": 2, "save_steps": 1, "prompts": asked, "sampling": {"strip": strip}}
    train(spaced, tmp_path / "out", objective, method, **run)
    assert {name for *_, name, _ in seen} >= {" a", "b\n", "a"}  # of validation too
    texts = [completion[0]["content"] for _, completion, *_ in seen]
    assert [prompt for prompt, *_ in seen] == [
        [{"role": "user", "content": n}] for *_, n, _ in seen
    ]
    assert [c for _, c, *_ in seen] == [[{"role": "assistant", "content": t}] for t in texts]
    # The text that sampling gives to the same tokens.
    assert texts == decoded(tokenizer, [ids for *_, ids in seen], strip=strip)
    assert any(t != t.strip() for t in texts) is not strip


OWN_SETTINGS = {"min_p": 0.2, "min_new_tokens": 2, "no_repeat_ngram_size": 2}
"""Settings of generation that TRL leaves to the model."""


@pytest.mark.parametrize(
    ("method", "lora", "options"),
    [
        ("rloo", 0, {}),
        ("grpo", 2, {}),
        ("rloo", 2, {"gradient_checkpointing": True}),  # TRL's own way of generation
        ("grpo", 0, {"gradient_checkpointing": True}),
    ],
)
def test_the_models_own_generation_settings_are_not_trained_with(tmp_path, method, lora, options):
    made = EnumerableModel.make(tmp_path / "made", seed=1)
    path = made.path / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | OWN_SETTINGS | {"do_sample": True}))
    seen = {word: Counter() for word in WORDS}

    def noted(prompts, completions, *, prompt_id, **columns):
        for word, text in zip(prompt_id, map(text_of, completions), strict=True):
            seen[word][text] += 1
        return [0.0] * len(completions)

    train(
        made,
        tmp_path / "out",
        Objective(noted, 0.2, lambda rewards: rewards),
        method,
        steps=2,
        save_steps=1,
        batch_size=1024,
        group=512,
        learning_rate=1e-12,  # the policy stays the reference, whose law is known
        lora=lora,
        trl={"bf16": False, "num_generations_eval": 512, **options},
    )
    for word, counts in seen.items():  # those of validation too
        assert sum(counts.values()) >= 512 and fits(counts, made.law(word)), word
    saved = json.loads((tmp_path / "out" / "model" / path.name).read_text())
    assert OWN_SETTINGS.items() <= saved.items()


@pytest.mark.parametrize("lora", [0, 2])
@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_a_model_with_dropout_has_no_kl_to_itself(tmp_path, method, lora):
    made = EnumerableModel.make(tmp_path / "made", seed=1, family="gpt2-dropout")
    objective = Objective(lambda completions, **columns: [0.0] * len(completions), 0.2, None)
    options = {"steps": 3, "learning_rate": 1e-12, "lora": lora}
    rows = train(made, tmp_path / "out", objective, method, **options)
    steps = [row for row in rows if "infalign/sequence_kl" in row]
    assert len(steps) == 3
    for row in steps:
        assert abs(row["infalign/sequence_kl"]) < 1e-6
        assert row["clip_ratio/region_mean"] == 0


@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_the_checkpoint_with_the_best_objective_on_validation_prompts_is_taken(
    reference, tmp_path, method
):
    # Steps far too large: later checkpoints are farther away, and worse.
    out = tmp_path / "out"
    rows = train(reference, out, method=method, learning_rate=0.1, save_steps=3)
    judged = {row["step"]: row["eval_objective"] for row in rows if "eval_objective" in row}
    assert list(judged) == [3, 6]
    assert not (out / "README.md").exists()  # TRL's card, which names no model
    best = max(judged, key=judged.get)
    expected, taken = saved_state(out / f"checkpoint-{best}"), saved_state(out / "model")
    assert all(torch.equal(expected[name], taken[name]) for name in expected)
    other = saved_state(out / f"checkpoint-{9 - best}")
    assert any(not torch.equal(other[name], taken[name]) for name in other)
    row = next(r for r in rows if r["step"] == best and "eval_objective" in r)
    objective = row["eval_rewards/shaped_value/mean"] - 0.2 * row["eval_sequence_kl"]
    assert row["eval_objective"] == pytest.approx(objective)


@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_a_gold_reward_chooses_the_checkpoint_whose_selected_responses_it_likes_best(
    reference, tmp_path, method
):
    seen = []

    def opposed(prompts, completions, prompt_id, **columns):
        seen.append((list(prompt_id), value(prompts, completions)))
        return [-x for x in seen[-1][1]]

    out = tmp_path / "out"
    choice = {"gold": opposed, "select": "gold:opposed", "learning_rate": 0.01, "save_steps": 3}
    rows = train(reference, out, method=method, **choice)
    judged = {row["step"]: row["eval_gold"] for row in rows if "eval_gold" in row}
    objectives = {row["step"]: row["eval_objective"] for row in rows if "eval_gold" in row}
    assert list(judged) == [3, 6]
    assert not (out / "README.md").exists()  # TRL's card, which names no model
    best = max(judged, key=judged.get)
    assert best != max(objectives, key=objectives.get)  # the policy moves to what gold dislikes
    expected, taken = saved_state(out / f"checkpoint-{best}"), saved_state(out / "model")
    assert all(torch.equal(expected[name], taken[name]) for name in expected)
    # Only the validation prompts are judged; of 4 responses, best-of-2 selects by the raw reward.
    chances = np.array([0, 1, 2, 3]) / 6
    means = [-(np.sort(np.reshape(x, (-1, 4)), axis=1) @ chances).mean() for _, x in seen]
    assert list(judged.values()) == pytest.approx(means)
    assert {name for names, _ in seen for name in names} == set(WORDS[4:])
    assert not any("gold" in row for row in rows)


@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_a_step_is_done_when_its_validation_is(reference, tmp_path, method):
    heard = []
    with _progress.listening(lambda done, total: heard.append((done, total))):
        train(
            reference,
            tmp_path / "out",
            method=method,
            save_steps=4,
            report=lambda done, total: heard.append((done, total)),
            trl={"bf16": False, "num_generations_eval": 16},
        )
    done = [d for d, _ in heard]
    assert done == sorted(done) and {total for _, total in heard} == {6} and done[-1] == 6
    # Steps 4 and 6 end with a validation of 2 prompts × 16 responses: two batches of 16.
    counts = [sum(step - 1 < d < step for d in done) for step in range(1, 7)]
    assert min(counts[3], counts[5]) > 1.5 * max(counts[1], counts[2], counts[4])
    # The last one was expected to take as long as the one before it.
    assert 5.3 < np.median([d for d in done if 5 < d < 6]) < 5.7


def test_what_is_logged(reference, tmp_path):
    rows = [r for r in train(reference, tmp_path / "out") if "infalign/sequence_kl" in r]
    assert len(rows) == 6
    for row in rows:
        assert 0 <= row["infalign/quantile"] <= 1 and 0 <= row["infalign/saturated"] <= 1
        assert {"infalign/raw_reward", "rewards/shaped_value/mean", "infalign/beta"} <= set(row)
    gaps = [r for r in rows if "infalign/frontier_gap" in r]
    assert gaps
    for row in gaps:
        best = design(BEST, kl=row["infalign/average_kl"]).win_rate
        gap = best - row["infalign/win_rate"]
        assert row["infalign/frontier_gap"] == pytest.approx(gap, abs=1e-9)
    # Groups of 4 of the reference itself win half the time, on average.
    still = train(reference, tmp_path / "still", learning_rate=1e-12, steps=30, save_steps=50)
    wins = np.array([r["infalign/win_rate"] for r in still if "infalign/win_rate" in r])
    assert abs(wins.mean() - 0.5) < 4 * wins.std(ddof=1) / np.sqrt(len(wins))


@pytest.mark.parametrize("wrong", [float("inf"), float("nan"), 3e38])
def test_a_training_reward_that_is_no_number_stops_before_the_step(reference, tmp_path, wrong):
    # 3e38 is finite, but TRL's sums are not, and it makes zeros of them.
    def bad(prompts, completions, *, prompt_id, **columns):
        return [wrong if p == "ba" else 0.0 for p in prompt_id]

    with pytest.raises(DataError, match=r"`bad` is .* for a completion of prompt 'ba' \(4 of 16"):
        train(reference, tmp_path / "out", Objective(bad, 0.2, None))
    assert not (tmp_path / "out/model").exists()


@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_a_gradient_that_is_not_finite_stops_before_the_step(
    reference, tmp_path, method, monkeypatch
):
    kind = {"rloo": RLOOSteps, "grpo": GRPOSteps}[method].trainer_type
    loss = kind.compute_loss

    def poisoned(self, *args, **options):
        value = loss(self, *args, **options)
        return value * float("inf") if self.state.global_step == 2 else value

    monkeypatch.setattr(kind, "compute_loss", poisoned)
    with pytest.raises(DataError, match=r"gradient of step 3 is not finite, from prompts .*4 in"):
        train(reference, tmp_path / "out", method=method)
    assert not (tmp_path / "out/model").exists()
    saved = saved_state(tmp_path / "out/checkpoint-2")
    assert all(torch.isfinite(weight).all() for weight in saved.values())


@pytest.mark.parametrize("overflows", [3, 9])
def test_steps_that_overflow_in_float16_are_left_out_until_the_scale_is_1(
    reference, tmp_path, monkeypatch, overflows
):
    kind = RLOOSteps.trainer_type
    begin, loss = kind.__init__, kind.compute_loss

    def scaled(self, *args, **options):  # as with float16 on a GPU
        begin(self, *args, **options)
        self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4)

    def overflowing(self, *args, **options):
        value = loss(self, *args, **options)
        return value * float("inf") if self.state.global_step < overflows else value

    monkeypatch.setattr(kind, "__init__", scaled)
    monkeypatch.setattr(kind, "compute_loss", overflowing)
    if overflows > 4:
        with pytest.raises(DataError, match="gradient of step 5 is not finite"):
            train(reference, tmp_path / "out", steps=9, save_steps=9)
        return
    train(reference, tmp_path / "out", steps=9, save_steps=9)
    before, after = saved_state(reference.path), saved_state(tmp_path / "out/model")
    assert all(torch.isfinite(weight).all() for weight in after.values())
    assert any(not torch.equal(before[name], weight) for name, weight in after.items())


def test_the_log_grows_with_every_step_and_each_step_is_said_in_a_line(reference, tmp_path, caplog):
    out, seen = tmp_path / "out", []

    def watching(prompts, completions, **columns):
        log = out / "metrics.jsonl"
        seen.append(log.read_text() if log.exists() else "")
        return value(prompts, completions, **columns)

    objective = Objective(watching, 0.2, lambda rewards: rewards)
    caplog.set_level("INFO", "infalign.metrics")
    train(reference, out, objective, steps=4, save_steps=4)
    log = (out / "metrics.jsonl").read_text()
    assert seen[:2] == ["", log.splitlines(keepends=True)[0]]
    assert all(log.startswith(text) for text in seen)
    assert len(seen[-1].splitlines()) == 3 and len(log.splitlines()) == 4
    said = [r.getMessage() for r in caplog.records if r.name == "infalign.metrics"]
    assert [line.split(":")[0] for line in said] == [f"step {n}" for n in range(1, 5)]
    assert all("KL " in line and " nats" in line for line in said)


def test_a_tracker_gets_every_step_in_a_run_with_a_name(reference, tmp_path, monkeypatch, capsys):
    rows, names, ended = [], [], []

    class Recorder(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            names.extend([args.project, args.run_name])
            print("See the dashboard.")  # as trackers do

        def on_train_end(self, args, state, control, **kwargs):
            monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(finish=finish))

        def on_log(self, args, state, control, logs=None, **kwargs):
            rows.append((state.global_step, dict(logs)))

    def finish():
        ended.append("trackio")
        raise RuntimeError("Call trackio.init() before trackio.finish().")  # it is installed only

    known = integration_utils.INTEGRATION_TO_CALLBACK
    monkeypatch.setitem(known, "recorder", Recorder)
    train(reference, tmp_path / "out", steps=2, save_steps=2, report_to=["recorder"])
    assert [step for step, logs in rows if "infalign/quantile" in logs] == [1, 2]
    assert names == ["infalign", (tmp_path / "out").as_posix()] and ended == ["trackio"]
    shown = capsys.readouterr()
    assert not shown.out and "See the dashboard." in shown.err
