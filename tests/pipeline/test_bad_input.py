"""Bad input gets one clear message, exit 1, and nothing half-written."""

import json
import shutil

import pytest
import yaml

from infalign.demo import bundled

BASE = {
    "model": "bundled:language-model",
    "reward": "bundled:harmless",
    "prompts": {"file": "bundled:harmless", "limit": 4},
    "procedure": "best-of-n:2",
    "kl": 0.3,
    "sampling": {"max_new_tokens": 4, "batch_size": 16},
    "calibration": {"samples": 4},
    "train": {"batch_size": 8, "group": 4, "steps": 1},
    "evaluate": {"prompts": {"limit": 4}, "samples": 4},
}


def nan_reward(prompts, completions, **columns):
    return [float("nan")] + [1.0] * (len(completions) - 1)


def short_reward(prompts, completions, **columns):
    return [1.0] * (len(completions) - 1)


def broken_reward(prompts, completions, **columns):
    raise RuntimeError("out of luck\n  in two lines")


def constant_reward(prompts, completions, **columns):
    return [1.0] * len(completions)


@pytest.fixture
def run(cli, tmp_path, monkeypatch):
    """Run a configuration that differs from BASE; returns the exit code and the message."""
    monkeypatch.syspath_prepend(str(__import__("pathlib").Path(__file__).parent))

    def call(*arguments, out="run", **changes):
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(BASE | changes))
        code, _, errors = cli("run", path, "--out", tmp_path / out, *arguments)
        return code, errors

    return call


def message(errors: str) -> str:
    """The last lines of stderr, unwrapped, after the progress bars."""
    return errors[errors.rindex("infalign: ") :]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "nowhere/model"}, ["The model 'nowhere/model'", "can load"]),
        ({"reward": "nowhere/reward"}, ["The reward 'nowhere/reward'", "can load"]),
        ({"reward": "python:nowhere:f"}, ["python:nowhere:f", "No module named"]),
        ({"reward": "python:test_bad_input:nan_reward"}, ["nan_reward", "finite", "completion 0"]),
        ({"reward": "python:test_bad_input:short_reward"}, ["short_reward", "1 for 2 completions"]),
        ({"reward": "bundled:kind"}, ["no bundled reward 'kind'", "helpful"]),
        ({"prompts": {"file": "none.jsonl"}}, ["none.jsonl does not exist"]),
        ({"procedure": "best-of-n:8"}, ["evaluate.samples", "4", "8", "smaller n"]),
        ({"procedure": "best-of-8"}, ["procedure", "best-of-8"]),
        ({"sampelling": {}}, ["Unknown key `sampelling`", "`sampling`"]),
        ({"train": {"step": 3}}, ["Unknown key `train.step`", "`steps`"]),
        ({"kl": -1}, ["`kl`", "-1"]),
        ({"kl": float("inf")}, ["`kl`", "finite"]),
        ({"kl": float("nan")}, ["`kl`", "finite"]),
        ({"kl": 1e-17}, ["`kl`", "0.000001"]),
        ({"kl": 99.0, "transform": "identity"}, ["does not reach kl=99 nats"]),
        (
            {"train": {"batch_size": 8, "group": 4, "steps": 0, "validation": 0.9}},
            ["at least 1 prompts;", "are 0 (4 less a share of 0.9 for validation)"],
        ),
        (
            {"train": {"batch_size": 64}},
            ["`train.batch_size` 64", "at least 8 prompts", "there are 3"],
        ),
        ({"beta": 1.0}, ["exactly one of `kl`"]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_one_clear_message_and_exit_1(run, changes, words):
    code, errors = run(**changes)
    assert code == 1
    assert "Traceback" not in errors
    for word in words:
        assert word in message(errors)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"policies": {"mine": "nowhere/model"}}, ["'mine'", "'nowhere/model'"]),
        ({"policies": {"mine": "bundled:kind"}}, ["'kind'"]),
        ({"gold": {"true": "nowhere/reward"}}, ["'true'", "'nowhere/reward'"]),
        ({"gold": {"true": "python:nowhere:f"}}, ["'true'", "python:nowhere:f"]),
        ({"judge": "nowhere"}, ["The judge 'nowhere'"]),
        ({"judge": "reward:nowhere/reward"}, ["'nowhere/reward'"]),
    ],
    ids=str,
)
def test_what_only_the_evaluation_needs_is_checked_before_anything_runs(
    run, tmp_path, section, words
):
    code, errors = run(evaluate=BASE["evaluate"] | section)
    assert code == 1 and "Traceback" not in errors
    for word in words:
        assert word in message(errors)
    assert not (tmp_path / "run").exists()


def test_what_fails_at_once_prints_one_line_below_its_progress(run):
    code, errors = run(prompts={"file": "none.jsonl"})
    *progress, line = errors.splitlines()
    assert (code, line) == (1, "infalign: Prompts file none.jsonl does not exist.")
    assert all(own.startswith("checks") for own in progress)


def test_an_empty_prompts_file_is_named(run, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    code, errors = run(prompts={"file": str(tmp_path / "empty.jsonl")})
    assert code == 1 and "empty.jsonl holds no prompts" in message(errors)
    assert not (tmp_path / "run").exists()


def test_a_line_that_is_not_json_is_named(run, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"prompt": "one"}\nnot json\n')
    code, errors = run(prompts={"file": str(tmp_path / "bad.jsonl")})
    assert code == 1 and "bad.jsonl, line 2" in message(errors)


def test_ids_that_repeat_are_counted(run, tmp_path):
    row = json.dumps({"prompt": "one", "prompt_id": "a"})
    (tmp_path / "twice.jsonl").write_text(f"{row}\n{row}\n")
    code, errors = run(prompts={"file": str(tmp_path / "twice.jsonl")})
    assert code == 1 and "'a' more than once (1 of 2" in message(errors)


def test_evaluating_on_training_prompts_is_refused(run, tmp_path):
    rows = [json.dumps({"prompt": "one", "split": split}) for split in ("train", "test")]
    (tmp_path / "same.jsonl").write_text("\n".join(rows))
    code, errors = run(prompts={"file": str(tmp_path / "same.jsonl")})
    assert code == 1 and "1 of 1 evaluation prompts are training prompts" in message(errors)


def test_a_configuration_that_cannot_run_leaves_the_folder_alone(run, tmp_path):
    assert run("--until", "calibrate")[0] == 0
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    for changed in ({"kl": -1}, {"reward": "python:nowhere:f"}, {"kl": 99.0, "transform": "log"}):
        assert run(**changed)[0] == 1
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before


def test_a_mistake_can_be_corrected_in_the_same_folder(run):
    assert run(reward="python:test_bad_input:nan_reward")[0] == 1
    assert run("--until", "calibrate")[0] == 0


@pytest.mark.parametrize("name", ["thesis.tex", "config.yaml", "film.part"])
def test_a_folder_of_something_else_is_refused(run, tmp_path, name):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("years of work")
    code, errors = run()
    assert code == 1 and "holds no run (no provenance.json)" in message(errors)
    assert [p.name for p in (tmp_path / "run").iterdir()] == [name]
    assert (tmp_path / "run" / name).read_text() == "years of work"


def test_a_folder_that_was_killed_at_its_first_file_is_taken_and_swept(run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".provenance.json.0123abcd.part").write_text("{")
    assert run("--until", "calibrate")[0] == 0
    assert not list((tmp_path / "run").rglob("*.part"))


def test_a_reward_that_never_differs_is_refused_before_training(run):
    code, errors = run(reward="python:test_bad_input:constant_reward")
    assert code == 1 and "constant on each of the 4 prompts" in message(errors)
    code, errors = run("--until", "calibrate", reward="python:test_bad_input:constant_reward")
    assert code == 0 and "constant on each of 4 prompts, such as 1 on" in " ".join(errors.split())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_grad_nrm": 1}, ["`train.trl.max_grad_nrm`", "RLOOConfig", "mean `max_grad_norm`?"]),
        ({"qqqqqq": 1}, ["`train.trl.qqqqqq`", "TRL's documentation lists them."]),
        ({"lr_schedular_type": "linear"}, ["Did you mean `lr_scheduler_type`?", "as a cosine"]),
        ({"max_grad_norm": "1e-3"}, ["`train.trl.max_grad_norm` is '1e-3'", "valid number"]),
        ({"optim": "nothing"}, ["RLOOConfig refuses", "(optim)", "nothing"]),
        ({"temperature": 5.0}, ["`train.trl.temperature`", "`sampling.temperature` decides it."]),
        ({"per_device_train_batch_size": 4}, ["4 times", "1 is 4, not `train.batch_size` 8"]),
        ({"output_dir": "x"}, ["`train.trl.output_dir`", "The run folder decides it."]),
        ({"chat_template_kwargs": {"x": 1}}, ["`train.trl.chat_template_kwargs`", "own chat"]),
        ({"num_iterations": 2}, ["`train.trl.num_iterations`", "draws its own responses"]),
        ({"disable_dropout": False}, ["`train.trl.disable_dropout`", "is without dropout"]),
    ],
    ids=lambda value: str(value)[:30],
)
def test_options_that_trl_does_not_know_are_named_before_anything_runs(
    run, tmp_path, options, words
):
    code, errors = run(train=BASE["train"] | {"trl": options})
    assert code == 1
    for word in words:
        assert word in message(errors)
    assert not (tmp_path / "run").exists()


def test_an_error_inside_a_reward_is_one_line(run):
    code, errors = run(reward="python:test_bad_input:broken_reward")
    assert code == 1 and "Traceback" not in errors
    assert errors.splitlines()[-1].startswith(
        "infalign: The reward `broken_reward` (python:test_bad_input:broken_reward) failed: "
        "RuntimeError: out of luck in two lines (test_bad_input.py, line "
    )


@pytest.mark.parametrize("place", ["before", "after"])
def test_debug_shows_the_traceback_wherever_it_stands(cli, tmp_path, place):
    command = ["run", tmp_path / "none.yaml"]
    arguments = ["--debug", *command] if place == "before" else [*command, "--debug"]
    code, _, errors = cli(*arguments)
    assert code == 1 and "Traceback" in errors and "none.yaml does not exist" in errors
    code, _, errors = cli(*command)
    assert code == 1 and "Traceback" not in errors


def test_debug_is_in_the_help(cli):
    code, out, _ = cli("--help")
    assert code == 0 and "--debug" in out and "arXiv:2412.19792" in out


def test_wrong_usage_exits_2(cli):
    assert cli("run")[0] == 2
    assert cli("nonsense")[0] == 2


def test_policies_of_other_tokens_are_refused_unless_the_kl_is_not_measured(run, tmp_path):
    other = shutil.copytree(bundled("bundled:language-model", "model"), tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    ids = tokenizer["model"]["vocab"]
    ids["a"], ids["b"] = ids["b"], ids["a"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    evaluated = BASE["evaluate"] | {"policies": {"other": str(other)}}
    code, errors = run(evaluate=evaluated)
    assert code == 1 and "write with different tokens, so they have no KL" in errors
    assert "`evaluate.kl_samples: 0`" in errors and not (tmp_path / "run").exists()
    code, errors = run("--until", "calibrate", evaluate=evaluated | {"kl_samples": 0})
    assert code == 0
