"""An evaluation of a run's policy does not judge on training prompts without a word."""

import shutil

import pytest
import yaml

from infalign.config import EvaluationPrompts, parse_config
from infalign.demo import bundled
from infalign.pipeline.trained_on import other_sampling, trained_on
from infalign.prompts import CHECKSUM, Prompt, checksum, held_out, load_prompts, run_prompts
from infalign.stores import StoreWriter

MODEL = "bundled:language-model"
CONFIG = """
model: bundled:language-model
reward: bundled:harmless
prompts: {file: questions.csv, test_fraction: 0.3}
kl: 0.5
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run that was trained on a part of `questions.csv`, as far as its stores and policy go."""
    monkeypatch.chdir(tmp_path)
    lines = "".join(f"What is {n} and {n}?\n" for n in range(40))
    (tmp_path / "questions.csv").write_text(f"question\n{lines}")
    folder = tmp_path / "runs" / "one"
    model = folder / "train" / "rloo" / "model"
    shutil.copytree(bundled(MODEL, "model"), model)
    (folder / "provenance.json").write_text("{}")
    (folder / "config.yaml").write_text(CONFIG)
    config = parse_config({"model": MODEL, "reward": "r", "kl": 1, "procedure": "sampling",
                           "prompts": {"file": "questions.csv", "test_fraction": 0.3}})  # fmt: skip
    return folder, run_prompts(config)


def calibrated(folder, name, prompts):
    ids, marks = [p.id for p in prompts], [[checksum(p)] * 2 for p in prompts]
    with StoreWriter(folder / name, {}, len(ids)) as out:
        columns = {CHECKSUM: [mark for row in marks for mark in row]}
        out.add(ids, [["a", "b"]] * len(ids), [[0.0, 1.0]] * len(ids), columns)


def test_the_prompts_of_every_calibration_of_a_run_count_by_what_they_say(run, tmp_path):
    folder, prompts = run
    model = str(folder / "train" / "rloo" / "model")
    calibrated(folder, "calibration", prompts.train[:5])
    calibrated(folder, "calibration-2", prompts.train[3:9])
    renamed = [Prompt(f"x{i}", p.messages) for i, p in enumerate([*prompts.train, *prompts.test])]
    (known,) = trained_on({"mine": model, "other": MODEL, "far": "http://h/v1#m"}, renamed)
    assert (known.policy, known.run, known.count, known.total) == ("mine", folder, 9, 40)
    assert known.test_fraction == 0.3 and "9 of the 40 prompts" in known.words()
    assert trained_on({"mine": model}, prompts.test) == []


def test_sampling_settings_that_are_not_those_of_the_training_are_said(run):
    folder, _ = run
    policies = {"mine": str(folder / "train" / "rloo" / "model"), "other": MODEL}
    trained = parse_config(yaml.safe_load(CONFIG) | {"procedure": "sampling"}).sampling
    (folder / "config.yaml").write_text(f"{CONFIG}procedure: sampling\n")
    assert not list(other_sampling(policies, trained))
    other = trained.model_copy(update={"temperature": 0.5, "batch_size": 7})
    (said,) = other_sampling(policies, other)
    assert said.startswith("The policy mine was trained for responses with temperature 1.0 (by the")
    assert "; here they have temperature 0.5." in said
    (folder / "config.yaml").write_text("kl: [")
    assert not list(other_sampling(policies, other))


def test_the_held_out_part_is_that_of_a_run(run):
    _, prompts = run
    whole = load_prompts(EvaluationPrompts(file="questions.csv"))
    assert held_out(whole, 0.3) == prompts.test and held_out(whole, 1) == whole
    assert 0 < len(prompts.test) < 40


def test_the_command_refuses_training_prompts_and_offers_the_held_out_ones(run, cli, tmp_path):
    folder, prompts = run
    calibrated(folder, "calibration", prompts.train)

    def evaluate(*more):
        policy = f"mine={folder / 'train' / 'rloo' / 'model'}"
        code, out, errors = cli(
            *("evaluate", "--policy", policy, "--reference", MODEL, "--reward", "bundled:harmless"),
            *("--prompts", "questions.csv", "--samples", 4, "--max-new-tokens", 4, "--out", "out"),
            *("--dry-run", "--measure", 0, *more),
        )
        assert not (tmp_path / "out").exists()
        return code, " ".join(out.split()), " ".join(errors.split())

    trained, test = len(prompts.train), len(prompts.test)
    code, _, errors = evaluate()
    assert code == 1 and f"mine was trained on {trained} of the 40 prompts" in errors
    assert "--test-fraction 0.3" in errors and str(folder) in errors
    code, out, errors = evaluate("--test-fraction", 0.3)
    assert code == 0 and f"evaluate {8 * test} " in out and "was trained on" not in errors
    code, out, errors = evaluate("--test-fraction", 0.3, "--limit", 2)
    assert code == 0 and "evaluate 16 " in out
    code, out, errors = evaluate("--test-fraction", 1)
    assert code == 0 and "evaluate 320 " in out
    assert errors.count(f"mine was trained on {trained} of the 40 prompts") == 1
    code, _, errors = evaluate("--test-fraction", 1e-9)
    assert code == 1 and "holds none out" in errors
