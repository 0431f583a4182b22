"""One trained policy: warm start and on-policy steps, or passes over stored samples; landing."""

import gc
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from infalign.config import Config, Method
from infalign.prompts import Prompt

from .landing import land
from .loop import drop_checkpoints
from .methods import Setting, objective
from .offline import StoredSamples, train_offline
from .on_policy import on_policy
from .tasks import TASKS, task, tilt_task

PARTS = OFFLINE, WARM_START, ON_POLICY = "offline", "warm_start", "on_policy"
"""Folders of the trainings that a policy may go through."""


def train_policy(
    config: Config,
    model_path: str,
    prompts: Sequence[Prompt],
    samples: StoredSamples,
    method: Method,
    setting: Setting,
    seed: int,
    out: Path,
    *,
    report: Callable[[str, int, int], None],
) -> None:
    """Train one policy into `out/model`; what an interrupted call finished is not done again.

    The last prompts, a share of `train.validation`, are not trained on: a policy moves further on
    prompts it has seen, and the KL that was asked for is that of prompts it has not.
    """
    kept = config.train.trained_prompts(len(prompts))
    validation = prompts[kept:]
    prompts, samples = prompts[:kept], samples.first(kept)
    if method in TASKS:
        trained = _offline(config, model_path, prompts, samples, method, setting, out, report)
    else:
        trained = _online(
            config, model_path, prompts, validation, samples, method, setting, out, report
        )
    # Here and not where training ends, so that a run killed in between leaves none behind.
    for part in PARTS:
        drop_checkpoints(out / part)
    # Trainers refer to themselves: each would stay in memory beside the next one.
    gc.collect()
    landing = validation or prompts
    land(config, model_path, trained / "model", landing, setting.kl, seed, out, report)


def _offline(config, model_path, prompts, samples, method, setting, out, report) -> Path:
    """Passes over the stored samples, and nothing else."""
    folder = out / OFFLINE
    if not (folder / "done.json").exists():
        todo, passes = task(method, setting, samples.rewards), config.train.passes
        told = partial(report, "offline")
        train_offline(config, model_path, prompts, samples, todo, passes, folder, told)
    return folder


def _online(config, model_path, prompts, validation, samples, method, setting, out, report) -> Path:
    """A warm start towards the method's optimum, then on-policy steps."""
    wanted, passes = objective(method, setting), config.train.warm_start
    first, start, trained = out / WARM_START, None, out / ON_POLICY
    if passes:
        start = first / "model"
        if not (first / "done.json").exists():
            todo, told = tilt_task(wanted.tilt(samples.rewards)), partial(report, "warm start")
            train_offline(config, model_path, prompts, samples, todo, passes, first, told)
    if not config.train.steps:
        return first
    if not (trained / "done.json").exists():
        on_policy(
            config, model_path, prompts, validation, wanted, setting, method, start, trained, report
        )
    return trained
