"""What accompanies a trainer: steering to the target KL, progress, and where to resume."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from transformers import PrinterCallback, TrainerCallback
from transformers.trainer_callback import ExportableState, ProgressCallback

PREFIX = "checkpoint-"


class KLController(TrainerCallback, ExportableState):
    """Dual control of β: raises it while the measured sequence KL is above the target.

    log β moves by `gain` times the relative excess of a running mean of the KL; theory's β is the
    start. Its state travels in checkpoints.
    """

    def __init__(self, target: float, beta: float, *, gain: float = 0.05, memory: float = 0.8):
        self.target, self.beta, self.gain, self.memory = target, beta, gain, memory
        self.average: float | None = None
        self.trainer = None

    def state(self):
        """What a checkpoint keeps of the controller."""
        return {"args": {}, "attributes": {"beta": self.beta, "average": self.average}}

    def on_train_begin(self, args, state, control, **kwargs):
        # The trainer would restore a callback by making a new one, which does not know the trainer.
        kept = state.stateful_callbacks.get("KLController") if state.global_step else None
        if kept:
            self.beta, self.average = (kept["attributes"][k] for k in ("beta", "average"))
        self.trainer.beta = self.beta

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not logs or "kl" not in logs:
            return
        # TRL logs the mean per token; the objective is per sequence.
        kl = logs["kl"] * logs["completions/mean_length"]
        # The trainer has filed its log by now; the file written from it should have these too.
        state.log_history[-1] |= {"infalign/sequence_kl": kl, "infalign/beta": self.beta}
        before = kl if self.average is None else self.average
        self.average = self.memory * before + (1 - self.memory) * kl
        excess = np.clip(self.average / self.target - 1, -1, 1)
        self.beta *= float(np.exp(self.gain * excess))
        self.trainer.beta = self.beta


class Progress(TrainerCallback):
    """Reports steps done to `report(done, total)`."""

    def __init__(self, report: Callable[[int, int], None]):
        self.report = report

    def on_train_begin(self, args, state, control, **kwargs):
        self.report(state.global_step, state.max_steps)

    def on_step_end(self, args, state, control, **kwargs):
        self.report(state.global_step, state.max_steps)


def quiet(trainer) -> None:
    """Keep the trainer off standard output, which belongs to results."""
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)


def last_checkpoint(folder: Path) -> str | None:
    """The newest complete checkpoint in `folder`; unfinished ones are removed.

    A checkpoint's `trainer_state.json` is written last, so one that reads back is whole.
    """
    found = sorted(folder.glob(f"{PREFIX}*"), key=lambda p: int(p.name.removeprefix(PREFIX)))
    for path in reversed(found):
        try:
            json.loads((path / "trainer_state.json").read_text())
            return str(path)
        except (OSError, ValueError):
            shutil.rmtree(path)
    return None
