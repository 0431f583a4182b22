"""What accompanies a trainer: steering to the target KL, judging checkpoints, progress."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from transformers import PrinterCallback, TrainerCallback
from transformers.trainer_callback import ExportableState, ProgressCallback

from infalign.config import Config
from infalign.core import RankProcedure, design
from infalign.errors import SolveError

from .objectives import Objective
from .trainers import AbstractSteps

PREFIX = "checkpoint-"


class KLController(TrainerCallback, ExportableState):
    """Dual control of β: raises it while the measured sequence KL is above the target.

    log β moves by `gain` times the relative excess of a running mean of the KL; theory's β is the
    start. Its state travels in checkpoints.
    """

    def __init__(
        self,
        target: float,
        beta: float,
        steps: AbstractSteps,
        *,
        gain: float = 0.05,
        memory: float = 0.8,
    ):
        self.target, self.beta, self.gain, self.memory = target, beta, gain, memory
        self.average: float | None = None
        self.steps = steps

    def state(self):
        """What a checkpoint keeps of the controller."""
        return {"args": {}, "attributes": {"beta": self.beta, "average": self.average}}

    def on_train_begin(self, args, state, control, **kwargs):
        # The trainer would restore a callback by making a new one, which does not know the trainer.
        kept = state.stateful_callbacks.get("KLController") if state.global_step else None
        if kept:
            self.beta, self.average = (kept["attributes"][k] for k in ("beta", "average"))
        self.steps.steer(self.beta)

    def on_log(self, args, state, control, logs=None, **kwargs):
        kl = self.steps.sequence_kl(logs or {})
        if kl is None:
            return
        before = kl if self.average is None else self.average
        self.average = self.memory * before + (1 - self.memory) * kl
        # The trainer has filed its log by now; the file written from it should have these too.
        logs |= {"infalign/sequence_kl": kl, "infalign/average_kl": self.average}
        state.log_history[-1] |= {
            "infalign/sequence_kl": kl,
            "infalign/average_kl": self.average,
            "infalign/beta": self.beta,
        }
        excess = np.clip(self.average / self.target - 1, -1, 1)
        self.beta *= float(np.exp(self.gain * excess))
        self.steps.steer(self.beta)


class FrontierGap(TrainerCallback):
    """Logs how far the win rate of a step is below the best that its KL allows, as
    `infalign/frontier_gap`; runs after the controller, whose running mean of the KL it reads."""

    def __init__(self, procedure: RankProcedure, against: RankProcedure):
        self.procedure, self.against = procedure, against

    def on_log(self, args, state, control, logs=None, **kwargs):
        kl, won = ((logs or {}).get(f"infalign/{name}") for name in ("average_kl", "win_rate"))
        if won is None or kl is None or kl <= 0:
            return
        try:
            best = design(self.procedure, kl=kl, against=self.against).win_rate
        except SolveError:  # farther than numbers reach
            return
        state.log_history[-1]["infalign/frontier_gap"] = best - won


class BestObjective(TrainerCallback):
    """Judges checkpoints by the objective on prompts kept aside, E[R] − β KL at theory's β; at the
    end the trainer takes the weights of the best."""

    def __init__(self, objective: Objective, steps: AbstractSteps, reward: str):
        self.objective, self.steps = objective, steps
        self.estimate = objective.estimate or f"rewards/{reward}/mean"

    def options(self, config: Config) -> dict:
        """The trainer's arguments for it."""
        return {
            "eval_strategy": "steps",
            "eval_steps": config.train.save_steps,
            "per_device_eval_batch_size": config.train.batch_size,
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_objective",
            "greater_is_better": True,
        }

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps:  # the last is saved, and so must be judged
            control.should_evaluate = True

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        kl = self.steps.sequence_kl(metrics, "eval_")
        found = metrics[f"eval_{self.estimate}"] - self.objective.beta * kl
        metrics["eval_objective"] = found
        state.log_history[-1] |= {"eval_objective": found, "eval_sequence_kl": kl}


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
