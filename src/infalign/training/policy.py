"""Training of one policy: offline passes or on-policy steps, then KL targeting."""

import gc
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from infalign._launched import as_launched
from infalign.manifest import Stage
from infalign.methods import METHODS, Offline, OnPolicy, Setting
from infalign.methods.tasks import TOWARD_TILT
from infalign.prompts import Prompt

from .landing import land
from .loop import drop_checkpoints, is_done
from .offline import StoredSamples, train_offline
from .on_policy import train_on_policy
from .recipe import Recipe

__all__ = ["train_policy"]

PARTS = OFFLINE, WARM_START, ON_POLICY = "offline", "warm_start", "on_policy"
"""Folders of a policy's training stages."""

Report = Callable[[str, int, int], None]
"""Called with the name of a task, the units done and the total."""


def train_policy(
    recipe: Recipe,
    samples: StoredSamples,
    method: str,
    setting: Setting,
    *,
    landing_seed: int,
    out: Path,
    stage: Stage,
    report: Report,
    gold: Callable | None = None,
) -> None:
    """Train one policy; writes `out/model`. Work that an interrupted call finished is not repeated.

    The last prompts, a share of `train.validation`, are not trained on. A policy moves further on
    its training prompts, so its KL is brought to the target on the held-out ones.

    - `gold`: the reward that chooses checkpoints. Default: the objective.
    """
    trained = recipe.train.trained_prompts(len(samples.prompts))
    validation, samples = samples.prompts[trained:], samples.first(trained)
    _free()  # of a training of this process that failed
    row = METHODS[method]
    with as_launched():
        if isinstance(row, Offline):
            folder = _offline(recipe, samples, row, setting, out, stage, report)
        else:
            folder = _on_policy(recipe, samples, row, setting, validation, gold, out, stage, report)
    # Done here and not where training ends, so that a run killed in between leaves no checkpoints.
    for part in PARTS:
        drop_checkpoints(out / part, stage)
    _free()
    land(
        recipe,
        folder / "model",
        validation or samples.prompts,
        setting.design.target_kl,
        seed=landing_seed,
        out=out,
        stage=stage,
        report=partial(report, "KL targeting"),
    )


def _offline(
    recipe: Recipe,
    samples: StoredSamples,
    method: Offline,
    setting: Setting,
    out: Path,
    stage: Stage,
    report: Report,
) -> Path:
    """Passes over the stored samples; returns their folder."""
    folder = out / OFFLINE
    if not is_done(folder, stage):
        train_offline(
            recipe,
            samples,
            method.task(setting, samples.rewards),
            passes=recipe.train.passes,
            out=folder,
            stage=stage,
            report=partial(report, "offline"),
        )
    return folder


def _on_policy(
    recipe: Recipe,
    samples: StoredSamples,
    method: OnPolicy,
    setting: Setting,
    validation: Sequence[Prompt],
    gold: Callable | None,
    out: Path,
    stage: Stage,
    report: Report,
) -> Path:
    """A warm start toward the method's optimum, then on-policy steps; returns the last folder."""
    objective = method.objective(setting)
    passes, warm_start, folder = recipe.train.warm_start, out / WARM_START, out / ON_POLICY
    if recipe.train.steps and is_done(folder, stage):
        return folder
    if passes and not is_done(warm_start, stage):
        train_offline(
            recipe,
            samples,
            TOWARD_TILT[recipe.train.warm_start_loss](objective.tilt(samples.rewards)),
            passes=passes,
            out=warm_start,
            stage=stage,
            report=partial(report, "warm start"),
        )
    if not recipe.train.steps:
        return warm_start
    _free()
    train_on_policy(
        recipe,
        method,
        objective,
        setting,
        prompts=samples.prompts,
        validation=validation,
        start=warm_start / "model" if passes else None,
        out=folder,
        stage=stage,
        report=partial(report, "on policy"),
        gold=gold,
    )
    return folder


def _free() -> None:
    """Free the memory of trainers that have ended: weights, gradients and the optimizer's numbers.

    Trainers form reference cycles; without garbage collection each would stay in memory beside the
    next. What torch keeps on a GPU for later is given back, for engines such as vLLM.
    """
    gc.collect()
    torch.cuda.empty_cache()
