"""A training that is killed at a checkpoint, or moved, ends with the weights of one that is not."""

import itertools
import shutil
from pathlib import Path

import pytest
import torch
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from infalign import manifest
from infalign.manifest import Manifest, Stage
from infalign.training.loop import Checkpoints, last_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")

BEST, STEPS = 2, 10


class Killed(BaseException):
    pass


class Line(torch.nn.Module):
    """y = a x + b."""

    def __init__(self):
        super().__init__()
        self.line = torch.nn.Linear(1, 1)

    def forward(self, x, labels=None):
        y = self.line(x)
        return {"loss": ((y - labels) ** 2).mean(), "logits": y}


class Judged(Trainer):
    """Its checkpoint after step `BEST` is the best."""

    def evaluate(self, *_, **options):
        metrics = {"eval_objective": float(self.state.global_step == BEST)}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics


def trainer_in(out):
    rows = [{"x": torch.ones(1), "labels": torch.ones(1)} for _ in range(STEPS)]
    arguments = TrainingArguments(
        str(out),
        max_steps=STEPS,
        per_device_train_batch_size=1,
        save_steps=2,
        eval_steps=2,
        eval_strategy="steps",
        load_best_model_at_end=True,
        metric_for_best_model="eval_objective",
        greater_is_better=True,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        seed=0,
    )
    torch.manual_seed(0)
    made = Judged(Line(), arguments, train_dataset=rows, eval_dataset=rows)
    made.remove_callback(PrinterCallback)
    made.add_callback(Checkpoints(out, stage_of(out)))
    return made


def stage_of(out):
    return Stage(Manifest(out.parent), "train", {})


def trained(out):
    """The weights of a training in `out`, from its last checkpoint on."""
    made = trainer_in(out)
    made.train(resume_from_checkpoint=last_checkpoint(out, stage_of(out)))
    return made.model.line.weight.item()


def steps(out):
    return sorted(int(path.name.removeprefix("checkpoint-")) for path in out.glob("checkpoint-*"))


@pytest.fixture
def out(tmp_path):
    (tmp_path / "run" / "on_policy").mkdir(parents=True)
    return tmp_path / "run" / "on_policy"


def killed_at(monkeypatch, out, name, action):
    """Train until `action` is asked of the checkpoint `name`."""
    with monkeypatch.context() as patched:
        action(patched, name)
        with pytest.raises(Killed):
            trained(out)


def while_it_is_hashed(patched, name):
    checksums = manifest.checksums

    def hashed(path):
        if path.name == name:
            raise Killed
        return checksums(path)

    patched.setattr(manifest, "checksums", hashed)


def while_it_is_removed(patched, name):
    remove = shutil.rmtree

    def half(path, *arguments, **options):
        if Path(path).name == name:
            next(Path(path).glob("optimizer*")).unlink()
            raise Killed
        remove(path, *arguments, **options)

    patched.setattr(shutil, "rmtree", half)


def while_the_best_is_loaded(patched, name):
    def load(self):
        raise Killed

    patched.setattr(Trainer, "_load_best_model", load)


def test_the_best_and_the_last_checkpoint_stay(out):
    trained(out)
    assert steps(out) == [BEST, STEPS]


@pytest.mark.parametrize(
    ("name", "action", "resumed"),
    [
        ("checkpoint-8", while_it_is_hashed, 6),
        ("checkpoint-6", while_it_is_removed, 8),
        (None, while_the_best_is_loaded, 10),
    ],
)
@pytest.mark.parametrize("moved", [False, True])
def test_a_kill_costs_at_most_the_steps_since_the_last_checkpoint(
    monkeypatch, tmp_path, out, name, action, resumed, moved
):
    (tmp_path / "whole" / "on_policy").mkdir(parents=True)
    expected = trained(tmp_path / "whole" / "on_policy")
    killed_at(monkeypatch, out, name, action)
    if moved:
        out = Path(shutil.move(out.parent, tmp_path / "elsewhere")) / "on_policy"
    assert last_checkpoint(out, stage_of(out)) == str(out / f"checkpoint-{resumed}")
    assert trained(out) == expected


@pytest.mark.parametrize(("seconds", "interval"), [(0, 80), (6, 80), (30, 320)])
def test_checkpoints_that_take_long_are_made_less_often(monkeypatch, out, seconds, interval):
    now, made = [0.0], []

    def hashed(path):
        now[0] += seconds / 2
        return {}

    monkeypatch.setattr(manifest, "checksums", hashed)
    callback = Checkpoints(out, stage_of(out), clock=lambda: now[0])
    for step in range(1, 201):
        now[0] += 15
        state, control = TrainerState(global_step=step, max_steps=1000), TrainerControl()
        callback.on_step_end(None, state, control)
        now[0] += 5  # a validation is no part of a checkpoint
        callback.on_evaluate(None, state, control)
        if control.should_save:
            (out / f"checkpoint-{step}").mkdir()
            now[0] += seconds / 2
            callback.on_save(None, state, control)
            made.append(20 * step)
    assert {later - earlier for earlier, later in itertools.pairwise(made)} == {interval}
    assert len(made) * seconds < 0.1 * now[0]
