"""On-policy training in a trainer of TRL, steered to a target KL."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from datasets import Dataset
from trl import GRPOConfig, RLOOConfig

from infalign.config import Config, Method
from infalign.errors import ConfigError
from infalign.models.loading import load_tokenizer, prompt_text
from infalign.prompts import Prompt

from .callbacks import BestObjective, FrontierGap, KLController, Progress
from .guards import CheckedReward, FiniteGradients
from .loop import common_arguments, finish
from .methods import Setting
from .objectives import Objective
from .sequence_kl import SequenceKL
from .trainers import AbstractSteps, GRPOSteps, RLOOSteps
from .weights import fresh_policy, load_policy, lora

JUDGED = 64
"""Prompts kept aside on which checkpoints are compared, at most."""


def check_options(options: Mapping[str, object], methods: Sequence[Method]) -> None:
    """Raise ConfigError for a key of `train.trl` that the trainers of `methods` do not know, or
    that a run sets."""
    kinds = [GRPOConfig] if "grpo" in methods else []
    kinds += [RLOOConfig] if set(methods) != {"grpo"} else []
    known = set.intersection(*({f.name for f in dataclasses.fields(k)} for k in kinds))
    known -= {"output_dir"}
    for key in options:
        if key in known:
            continue
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f"Did you mean `{near[0]}`?" if near else "TRL's documentation lists them."
        if key == "output_dir":
            hint = "The run folder decides it."
        names = " and ".join(kind.__name__ for kind in kinds)
        raise ConfigError(
            f"`train.trl.{key}` in the configuration is no option of TRL's {names} that can be "
            f"set here. {hint}"
        )


def on_policy(
    config: Config,
    model_path: str,
    prompts: Sequence[Prompt],
    validation: Sequence[Prompt],
    objective: Objective,
    setting: Setting,
    method: Method,
    start: Path | None,
    out: Path,
    report: Callable[[str, int, int], None],
) -> None:
    """Train into `out/model`, from the weights in `start` or from the reference.

    Of several checkpoints the one with the highest objective on `validation` is taken.
    """
    tokenizer = load_tokenizer(model_path, config.trust_remote_code)
    steps = _steps(config, model_path, tokenizer, method)
    reward = CheckedReward(objective.reward)
    rows = config.train.steps * config.train.batch_size // config.train.group
    options = {
        "learning_rate": config.train.learning_rate,
        "lr_scheduler_type": "cosine",
        "max_steps": config.train.steps,
        "per_device_train_batch_size": config.train.batch_size,
        "num_generations": config.train.group,
        "max_completion_length": config.sampling.max_new_tokens,
        "temperature": config.sampling.temperature,
        "shuffle_dataset": False,
        **common_arguments(config),
        **steps.options(objective.beta),
    }
    callbacks = [
        KLController(setting.kl, objective.beta, steps),
        FrontierGap(setting.procedure, setting.against),
        FiniteGradients(lambda: reward.prompt_ids),
        Progress(lambda done, total: report("on policy", done, total)),
    ]
    judged = None
    if validation and config.train.steps > config.train.save_steps:
        best = BestObjective(objective, steps, reward.__name__)
        judged = _dataset(validation[:JUDGED], tokenizer)
        options |= best.options(config)
        callbacks.insert(0, best)
    trainer = steps.trainer_type(
        # TRL loads the reference from the path of the model it is given, so the policy must be
        # given as the reference and take the warm start's weights afterwards.
        model=fresh_policy(config, model_path),
        reward_funcs=steps.rewards(reward),
        args=steps.arguments_type(str(out), **options | config.train.trl),
        train_dataset=_dataset(_in_order(prompts, rows, config.seed), tokenizer),
        eval_dataset=judged,
        processing_class=tokenizer,
        peft_config=lora(config),
        callbacks=callbacks,
    )
    steps.trainer = trainer
    if start is not None:
        load_policy(trainer.model, start)
    finish(trainer, out)


def _steps(config: Config, model_path: str, tokenizer, method: Method) -> AbstractSteps:
    if method != "grpo":
        return RLOOSteps()
    reference = None if config.train.lora else fresh_policy(config, model_path).eval()
    return GRPOSteps(SequenceKL(reference, tokenizer, config.sampling.temperature))


def _in_order(prompts: Sequence[Prompt], rows: int, seed: int) -> list[Prompt]:
    """The prompts of all steps in order: pass after pass, each shuffled.

    TRL's own sampler starts its shuffles over when a run is resumed after the first pass; rows in
    their final order make the whole training one pass, which resumes exactly.
    """
    rng = np.random.default_rng(seed)
    passes = [rng.permutation(len(prompts)) for _ in range(-(-rows // len(prompts)))]
    return [prompts[i] for i in np.concatenate(passes)[:rows]]


def _dataset(prompts: Sequence[Prompt], tokenizer) -> Dataset:
    read = list if tokenizer.chat_template else partial(prompt_text, tokenizer)
    return Dataset.from_list([{"prompt": read(p.messages), "prompt_id": p.id} for p in prompts])
