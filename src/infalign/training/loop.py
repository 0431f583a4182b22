"""The parts that all trainers share: arguments, progress, resumption, guards and saved results."""

import logging
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import ProgressCallback

from infalign import _progress, disk, storage
from infalign.config import Training
from infalign.errors import DataError
from infalign.manifest import Stage
from infalign.models.loading import device
from infalign.models.precision import trains_in

from .recipe import Recipe
from .weights import save_policy

__all__ = [
    "Checkpoints",
    "FiniteGradients",
    "Progress",
    "StepLog",
    "common_arguments",
    "drop_checkpoints",
    "finish",
    "is_done",
    "last_checkpoint",
    "live_metrics",
    "log_lines",
    "on_one_device",
    "trackers",
]

METRICS_LOG = logging.getLogger("infalign.metrics")
"""Where each step says its metrics in one line."""

KEPT = 60.0
"""Longest time in seconds between two checkpoints, unless a step or `SHARE` asks for more."""

SHARE = 0.1
"""Largest share of the time that these checkpoints take. Those of large models, which are written
and then read for their checksums, are made less often."""

CHECKPOINT = "checkpoint-"
"""Prefix that transformers gives to checkpoint folders."""

METRICS, DONE = "metrics.jsonl", "done.json"
"""The log of a training, and its last file."""

UNNAMED = "huggingface"
"""The project of transformers' trackers that was not named."""

Args = TypeVar("Args", bound=TrainingArguments)

TIMES = re.compile("step_time$|_runtime$|_per_second$")
"""Metrics that measure the wall clock."""

SHOWN = 5
"""Maximum number of prompt ids in a message."""


def common_arguments(recipe: Recipe) -> dict:
    """Arguments of transformers' `TrainingArguments` that all trainers share."""
    return {
        "logging_steps": 1,
        "save_steps": recipe.train.save_steps,
        "report_to": list(trackers(recipe.train)) or "none",
        "disable_tqdm": True,
        "use_cpu": device() == "cpu",
        "bf16": trains_in(recipe.dtype) == "bfloat16",  # on weights in float32
        "gradient_checkpointing": False,
        "dataloader_pin_memory": device() != "cpu",
        "seed": recipe.seed,
    }


def on_one_device(args: Args) -> Args:
    """The arguments for one device, also where a process sees several GPUs.

    transformers would split each batch over all of them, after multiplying it by their number,
    and TRL refuses to. A step has the batch that the configuration states.
    """
    args._n_gpu = min(args.n_gpu, 1)  # as transformers itself sets it for a model in parts
    return args


def finish(trainer: Trainer, out: Path, stage: Stage) -> None:
    """Train from the last checkpoint to the end; save the model and the log.

    `done.json` is written last.
    """
    for callback in (PrinterCallback, ProgressCallback):  # standard output is for results only
        trainer.remove_callback(callback)
    trainer.add_callback(Checkpoints(out, stage))
    trainer.add_callback(StepLog(out / METRICS))
    _name_failed_saves(trainer, out)
    _write_no_card(trainer)
    _name_run(trainer, out)
    try:
        with redirect_stdout(sys.stderr):  # trackers print there
            trainer.train(resume_from_checkpoint=last_checkpoint(out, stage))
    finally:
        _end_runs()
    with stage.recording(out / METRICS):
        storage.write_text(out / METRICS, "".join(log_lines(trainer.state.log_history)))
    model: Any = trainer.model  # the trainer accepts any module; ours was made by `fresh_policy`
    with stage.recording(out / "model"):
        save_policy(model, out / "model")
    with stage.recording(out / DONE):
        storage.write_json(out / DONE, {"steps": trainer.state.global_step})


def trackers(train: Training) -> tuple[str, ...]:
    """The experiment trackers that a training reports to, by TRL's names."""
    stated = train.report_to or ()
    return (stated,) if isinstance(stated, str) else stated


def _name_run(trainer: Trainer, out: Path) -> None:
    """Name project and run in trackers, so that methods can be told apart."""
    if not trainer.args.run_name:
        trainer.args.run_name = out.as_posix()
    if trainer.args.project == UNNAMED:
        trainer.args.project = "infalign"


def _end_runs() -> None:
    """End the runs of trackers that would go on in the next training of this process."""
    for name in ("wandb", "trackio"):
        module: Any = sys.modules.get(name)
        if module is not None:
            with suppress(RuntimeError):  # trackio's, where its run has ended already
                module.finish()


def is_done(out: Path, stage: Stage) -> bool:
    """Whether a training has finished; DataError if its model or log is damaged."""
    return all(stage.has(out / name) for name in (DONE, "model", METRICS))


def log_lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The trainer's log as JSON Lines, without all that depends on interruptions.

    These are the times; the summary that ends the log, which averages over the steps since the last
    resumption; and the order of names, since checkpoints sort them.
    """
    for row in rows:
        if "train_runtime" not in row:
            yield storage.json_line({k: row[k] for k in sorted(row) if not TIMES.search(k)})


SHOWN_METRICS = {
    "infalign/sequence_kl": "KL {:.3g} nats",
    "infalign/quantile": "quantile {:.3f}",
    "infalign/win_rate": "win rate {:.1%}",
    "infalign/saturated": "saturated {:.0%}",
    "loss": "loss {:.3g}",
}
"""Metrics of a step that the line about it shows, and how; the loss where there are no others."""


def live_metrics(row: Mapping[str, Any]) -> str:
    """A row of the log in one line; empty if it has none of the metrics that are shown."""
    words = [form.format(row[k]) for k, form in SHOWN_METRICS.items() if row.get(k) is not None]
    return ", ".join(words[:-1] if len(words) > 1 and "loss" in row else words)


class StepLog(TrainerCallback):
    """Writes the log while it grows, so that others can read it, and logs a line about each step.

    Until the training ends, the file is not listed: a killed training writes it again from its last
    checkpoint.
    """

    def __init__(self, path: Path):
        self.path, self.written = path, 0

    def on_train_begin(self, args, state, control, **kwargs):
        self._rewrite(state)

    def on_log(self, args, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        rows = state.log_history[self.written :]
        with disk.writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.writelines(log_lines(rows))
        self.written = len(state.log_history)
        words = live_metrics(rows[-1]) if rows else ""
        if words:
            METRICS_LOG.info("step %d: %s", state.global_step, words)

    def on_evaluate(self, args, state, control, **kwargs):
        self._rewrite(state)  # the objective of a checkpoint is added to a row that was written

    def _rewrite(self, state) -> None:
        if state.is_world_process_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            storage.write_text(self.path, "".join(log_lines(state.log_history)))
            self.written = len(state.log_history)


def _name_failed_saves(trainer: Any, out: Path) -> None:
    """Checkpoints that the disk refuses raise a DataError that names `out`."""
    save = trainer._save_checkpoint

    def named(*arguments, **options):
        with disk.writing(out):
            return save(*arguments, **options)

    trainer._save_checkpoint = named


def _write_no_card(trainer: Any) -> None:
    """TRL's card beside the checkpoints would call the model a fine-tuned version of `None`, and
    stand beside weights that are not the policy at the requested KL."""
    trainer.create_model_card = lambda *arguments, **options: None


def last_checkpoint(folder: Path, stage: Stage) -> str | None:
    """The newest complete checkpoint in `folder`; incomplete ones, which a kill leaves, are
    removed.

    Raises DataError if it is damaged, or the best one before it, whose weights the trainer loads at
    the end.
    """
    for path in reversed(_checkpoints(folder)):
        if not stage.has(path):
            shutil.rmtree(path)
            continue
        best = storage.read_json(path / "trainer_state.json")["best_model_checkpoint"]
        if best is not None:
            stage.manifest.require(folder / Path(best).name)
        return str(path)
    return None


def drop_checkpoints(out: Path, stage: Stage) -> None:
    """Remove the checkpoints of a finished training, which will not be resumed."""
    for checkpoint in _checkpoints(out):
        shutil.rmtree(checkpoint)
    stage.forget_removed(out)


def _checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, in the order of their steps."""
    named = {p: p.name.removeprefix(CHECKPOINT) for p in folder.glob(f"{CHECKPOINT}*")}
    return sorted((p for p, n in named.items() if n.isdecimal()), key=lambda p: int(named[p]))


class Checkpoints(TrainerCallback):
    """Makes a checkpoint at least every minute, or less often where one takes many seconds; lists
    every checkpoint with its checksums once it is complete, and verifies the best one before the
    trainer loads it.

    Checkpoints change nothing in training, so their times may depend on the machine.
    """

    def __init__(self, out: Path, stage: Stage, clock: Callable[[], float] = time.monotonic):
        self.out, self.stage, self.clock = out, stage, clock
        self.saved_at = self.began_at = clock()
        self.took = 0.0

    def on_step_end(self, args, state, control, **kwargs):
        self.began_at = self.clock()
        if self.began_at - self.saved_at > max(KEPT, self.took / SHARE):
            control.should_save = True

    def on_evaluate(self, args, state, control, **kwargs):
        self.began_at = self.clock()  # the trainer saves after this

    def on_train_begin(self, args, state, control, **kwargs):
        self.saved_at = self.clock()
        # If the run folder was moved, the trainer forgets where the best checkpoint is, and would
        # end with the last weights.
        if state.best_global_step:
            best = self.out / f"{CHECKPOINT}{state.best_global_step}"
            state.best_model_checkpoint = str(best)

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self._list(state)
        self.saved_at = self.clock()
        self.took = self.saved_at - self.began_at

    def _list(self, state) -> None:
        with self.stage.recording(self.out / f"{CHECKPOINT}{state.global_step}"):
            pass  # the trainer has written it already
        self._drop_others(state)
        if state.global_step >= state.max_steps and state.best_model_checkpoint is not None:
            self.stage.manifest.require(self.out / Path(state.best_model_checkpoint).name)

    def _drop_others(self, state) -> None:
        """Remove all checkpoints but the best and the last, or the last two if these are the same.

        Only now, when the last one is listed: before, a kill would cost what the one before has.
        """
        *earlier, last = _checkpoints(self.out)
        best = state.best_model_checkpoint and Path(state.best_model_checkpoint).name
        staying = {last.name, best} if best not in (None, last.name) else {last.name}
        if len(staying) == 1 and earlier:
            staying.add(earlier[-1].name)
        dropped = [path for path in earlier if path.name not in staying]
        self.stage.manifest.forget(*dropped)
        for path in dropped:
            shutil.rmtree(path)


NEARLY = 0.95
"""Largest share of a step that is called done before the step ends."""


class Progress(TrainerCallback):
    """Reports steps as `report(done, total)`, and says how far a step is.

    A step calls every layer once for every token that it draws, and a few times more, forward and
    backward. How often is known from the step before, and of the first from the largest length of a
    response. The validation after a step is a part of it.

    - `batches`: batches of a validation, each of about as many calls as a step.
    """

    def __init__(self, report: Callable[[int, int], None], batches: int = 0):
        self.report, self.batches = report, batches
        self.calls = 0
        self.expected = {False: 1, True: 1}
        """Calls of a step without and with validation."""
        self.validating = False
        self.hooks: list[Any] = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.report(state.global_step, state.max_steps)
        layers = _layers(model)
        calls = (getattr(args, "max_completion_length", None) or 1) * len(layers)
        self.expected = {False: calls, True: calls * (1 + self.batches)}

        def forward(_module, _inputs, output) -> None:
            self._called(state)
            hidden = output[0] if isinstance(output, tuple) else output
            if isinstance(hidden, torch.Tensor) and hidden.requires_grad:
                hidden.register_hook(lambda _gradient: self._called(state))

        self.hooks = [layer.register_forward_hook(forward) for layer in layers]

    def _called(self, state) -> None:
        self.calls += 1
        before = state.global_step - self.validating
        share = min(self.calls / (self.expected[self._is_validated(before + 1, state)] + 1), NEARLY)
        _progress.at(before + share, state.max_steps)

    def _is_validated(self, step: int, state) -> bool:
        """Whether a step ends with a validation, as the last one does."""
        return self.batches > 0 and (step % state.eval_steps == 0 or step >= state.max_steps)

    def on_step_end(self, args, state, control, **kwargs):
        self.validating = self._is_validated(state.global_step, state)
        if not self.validating:
            self._end(state, validated=False)

    def on_evaluate(self, args, state, control, **kwargs):
        if self.validating:
            self._end(state, validated=True)

    def _end(self, state, *, validated: bool) -> None:
        self.calls, self.expected[validated], self.validating = 0, max(self.calls, 1), False
        self.report(state.global_step, state.max_steps)

    def on_train_end(self, args, state, control, **kwargs):
        for hook in self.hooks:
            hook.remove()


def _layers(model: Any) -> list[torch.nn.Module]:
    """The layers of a model that follow one another; the model itself if it has none."""
    stacks = (x for x in model.modules() if isinstance(x, torch.nn.ModuleList) and len(x) > 1)
    return list(next(stacks, [model]))


class FiniteGradients(TrainerCallback):
    """Raises DataError before a step whose gradient is not finite.

    In float16, gradients are those of a loss that is scaled up. The scaler leaves out a step that
    overflows and halves its scale, as it does in the first steps; it is an error once the scale is
    1.

    - `prompt_ids`: returns the prompt ids of the step.
    """

    def __init__(self, prompt_ids: Callable[[], list[str]]):
        self.prompt_ids = prompt_ids

    def on_pre_optimizer_step(self, args, state, control, model=None, optimizer=None, **kwargs):
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        # Clipping by an infinite norm turns finite gradients into 0 and infinite ones into nan, so
        # the norm detects both cases.
        if torch.isfinite(torch.nn.utils.get_total_norm(gradients)):
            return
        scaler = getattr(optimizer, "scaler", None)
        if scaler is not None and scaler.get_scale() > 1:
            return
        ids = list(dict.fromkeys(self.prompt_ids()))
        names = ", ".join(map(repr, ids[:SHOWN])) + (" …" if len(ids) > SHOWN else "")
        raise DataError(
            f"The gradient of step {state.global_step + 1} is not finite, from prompts {names} "
            f"({len(ids)} in all). It changed no weight; the last checkpoint remains. Use a "
            "smaller step size, or inspect these prompts."
        )
