"""On-policy training with a TRL trainer, steered to a target KL."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import TrainerCallback

from infalign.core import RankProcedure, design
from infalign.errors import DataError, SolveError
from infalign.manifest import Stage
from infalign.methods import Objective, OnPolicy, Setting
from infalign.models.loading import load_tokenizer, prompt_text
from infalign.prompts import Prompt
from infalign.shaping import AsCalibrated, reward_name

from .choice import BestObjective, GoldOfSelected
from .kl_control import AbstractSteps, GRPOSteps, KLController, LogRatioReward, RLOOSteps
from .loop import FiniteGradients, Progress, finish
from .recipe import Recipe
from .trl_options import arguments
from .weights import fresh_policy, load_policy, lora

__all__ = ["CheckedReward", "FrontierGap", "train_on_policy"]

VALIDATION_PROMPTS = 64
"""Maximum number of validation prompts on which checkpoints are compared."""

LARGEST_REWARD = 1e30
"""Trainers sum rewards in single precision; larger rewards overflow and silently become zeros."""


def train_on_policy(
    recipe: Recipe,
    method: OnPolicy,
    objective: Objective,
    setting: Setting,
    *,
    prompts: Sequence[Prompt],
    validation: Sequence[Prompt],
    start: Path | None,
    out: Path,
    stage: Stage,
    report: Callable[[int, int], None],
    gold: Callable | None = None,
) -> None:
    """Train from the weights in `start`, or from the reference; writes `out/model`.

    The best checkpoint on `validation` is chosen: that of the highest objective or, with `gold`, a
    reward function, that of the highest mean of `gold` over the responses that the procedure
    selects.
    """
    train, tokenizer = recipe.train, load_tokenizer(recipe.model_path, recipe.trust_remote_code)
    steps = _steps(recipe, tokenizer, method)
    known = {p.id: p for p in (*prompts, *validation)}
    selecting = bool(validation) and train.selects
    own = objective.reward
    if selecting and gold is not None:
        own = GoldOfSelected(own, setting.reward, gold, setting.procedure, steps)
    reward = CheckedReward(
        AsCalibrated(
            own,
            {name: prompt.value for name, prompt in known.items()},
            columns={name: prompt.columns for name, prompt in known.items()},
            strip=recipe.sampling.strip,
            tokenizer=tokenizer,
        )
    )
    rows = train.steps * train.batch_size // train.group
    callbacks: list[TrainerCallback] = [
        KLController(setting.design.target_kl, objective.beta, steps),
        FrontierGap(setting.procedure, setting.against),
        FiniteGradients(lambda: reward.prompt_ids),
    ]
    args = arguments(recipe, steps, objective.beta, out, selects=selecting)
    eval_dataset, batches = None, 0
    if selecting:
        best = BestObjective(objective, steps, reward.__name__)
        eval_dataset = _dataset(validation[:VALIDATION_PROMPTS], tokenizer)
        drawn = len(eval_dataset) * (args.num_generations_eval or train.group)
        batches = math.ceil(drawn / args.per_device_eval_batch_size)
        callbacks.insert(0, best)
    callbacks.append(Progress(report, batches))
    trainer = steps.trainer_type(
        # TRL loads the reference from the path of the given model. The policy is therefore created
        # from the reference's path and gets the warm start's weights afterward.
        model=fresh_policy(recipe, tokenizer.pad_token_id),
        reward_funcs=steps.rewards(reward),
        args=args,
        train_dataset=_dataset(_in_order(prompts, rows, recipe.seed), tokenizer),
        eval_dataset=eval_dataset,
        processing_class=tokenizer,
        peft_config=lora(train.lora),
        callbacks=callbacks,
    )
    steps.trainer = trainer
    if start is not None:
        load_policy(trainer.model, start)
    finish(trainer, out, stage)


def _steps(recipe: Recipe, tokenizer, method: OnPolicy) -> AbstractSteps:
    if method.trainer == "rloo":
        return RLOOSteps()
    reference = None if recipe.train.lora else fresh_policy(recipe).eval()
    return GRPOSteps(LogRatioReward(reference, tokenizer, recipe.sampling.temperature))


def _in_order(prompts: Sequence[Prompt], rows: int, seed: int) -> list[Prompt]:
    """The prompts of all steps in order: pass after pass, each shuffled.

    TRL's own sampler restarts its shuffles when a run is resumed after the first pass. With the
    rows in their final order, the whole training is one pass, which resumes exactly.
    """
    rng = np.random.default_rng(seed)
    passes = [rng.permutation(len(prompts)) for _ in range(-(-rows // len(prompts)))]
    return [prompts[i] for i in np.concatenate(passes)[:rows]]


def _dataset(prompts: Sequence[Prompt], tokenizer) -> Dataset:
    read = list if tokenizer.chat_template else partial(prompt_text, tokenizer)
    return Dataset.from_list([{"prompt": read(p.messages), "prompt_id": p.id} for p in prompts])


class CheckedReward:
    """A reward function whose rewards must be finite; it remembers the prompts of the last call."""

    def __init__(self, reward: Callable, *, key: str = "prompt_id"):
        self.reward, self.key = reward, key
        self.prompt_ids: list[str] = []
        self.__name__ = reward_name(reward)

    def __call__(self, prompts, completions, **columns) -> list[float]:
        """The unchanged rewards. Raises a DataError that names the prompt of the first bad one."""
        self.prompt_ids = list(columns[self.key])
        rewards = self.reward(prompts=prompts, completions=completions, **columns)
        bad = [
            i for i, r in enumerate(rewards) if not (math.isfinite(r) and abs(r) < LARGEST_REWARD)
        ]
        if bad:
            raise DataError(
                f"The training reward `{self.__name__}` is {rewards[bad[0]]} for a completion of "
                f"prompt {self.prompt_ids[bad[0]]!r} ({len(bad)} of {len(rewards)} are infinite, "
                f"nan or beyond {LARGEST_REWARD:g}): {str(completions[bad[0]])[:80]!r}. No step "
                "was taken. Use a bounded transform."
            )
        return rewards


class FrontierGap(TrainerCallback):
    """Logs `infalign/frontier_gap`: the highest possible win rate at a step's KL, minus the step's
    win rate. Runs after the controller, because it reads the controller's running mean of the
    KL."""

    def __init__(self, procedure: RankProcedure, against: RankProcedure):
        self.procedure, self.against = procedure, against

    def on_log(self, args, state, control, logs=None, **kwargs):
        kl, win_rate = ((logs or {}).get(f"infalign/{name}") for name in ("average_kl", "win_rate"))
        if win_rate is None or kl is None or kl <= 0:
            return
        try:
            optimum = design(self.procedure, kl=kl, against=self.against).win_rate
        except SolveError:  # a KL beyond the solver's reach
            return
        state.log_history[-1]["infalign/frontier_gap"] = optimum - win_rate
