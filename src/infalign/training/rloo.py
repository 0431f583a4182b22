"""On-policy training with TRL's `RLOOTrainer`, steered to a target KL.

RLOO subtracts β Σ_t log π/π_ref, the k1 estimate of the sequence KL, from the reward before the
leave-one-out baseline: its expected gradient is that of E[R] − β KL, the objective itself
(arXiv:2512.21852; the k3 loss of GRPO is not).
"""

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from datasets import Dataset
from trl import RLOOConfig, RLOOTrainer

from infalign.config import Config
from infalign.errors import ConfigError
from infalign.models.loading import load_tokenizer, prompt_text
from infalign.prompts import Prompt

from .callbacks import KLController, Progress
from .loop import common_arguments, finish
from .objectives import Objective
from .weights import fresh_policy, load_policy, lora


def check_options(options: Mapping[str, object]) -> None:
    """Raise ConfigError for a key of `train.trl` that RLOOConfig does not know or a run sets."""
    known = {f.name for f in dataclasses.fields(RLOOConfig)} - {"output_dir"}
    for key in options:
        if key in known:
            continue
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f"Did you mean `{near[0]}`?" if near else "TRL's documentation lists them."
        if key == "output_dir":
            hint = "The run folder decides it."
        raise ConfigError(
            f"`train.trl.{key}` in the configuration is no option of TRL's RLOOConfig that can be "
            f"set here. {hint}"
        )


def on_policy(
    config: Config,
    model_path: str,
    prompts: Sequence[Prompt],
    objective: Objective,
    target_kl: float,
    start: Path | None,
    out: Path,
    report: Callable[[str, int, int], None],
) -> None:
    """Train into `out/model`, from the weights in `start` or from the reference."""
    controller = KLController(target_kl, objective.beta)
    tokenizer = load_tokenizer(model_path, config.trust_remote_code)
    options = {
        "learning_rate": config.train.learning_rate,
        "lr_scheduler_type": "cosine",
        "max_steps": config.train.steps,
        "per_device_train_batch_size": config.train.batch_size,
        "num_generations": config.train.group,
        "max_completion_length": config.sampling.max_new_tokens,
        "temperature": config.sampling.temperature,
        "beta": objective.beta,
        "shuffle_dataset": False,
        **common_arguments(config),
        **config.train.trl,
    }
    trainer = RLOOTrainer(
        # TRL loads the reference from the path of the model it is given, so the policy must be
        # given as the reference and take the warm start's weights afterwards.
        model=fresh_policy(config, model_path),
        reward_funcs=objective.reward,
        args=RLOOConfig(str(out), **options),
        train_dataset=_dataset(config, prompts, tokenizer),
        processing_class=tokenizer,
        peft_config=lora(config),
        callbacks=[controller, Progress(lambda done, total: report("RLOO", done, total))],
    )
    controller.trainer = trainer
    if start is not None:
        load_policy(trainer.model, start)
    finish(trainer, out)


def _dataset(config: Config, prompts: Sequence[Prompt], tokenizer) -> Dataset:
    """The prompts of all steps in order: pass after pass, each shuffled.

    TRL's own sampler starts its shuffles over when a run is resumed after the first pass; rows in
    their final order make the whole training one pass, which resumes exactly.
    """
    rng = np.random.default_rng(config.seed)
    rows = config.train.steps * config.train.batch_size // config.train.group
    passes = [rng.permutation(len(prompts)) for _ in range(-(-rows // len(prompts)))]
    order = [prompts[i] for i in np.concatenate(passes)[:rows]]
    read = list if tokenizer.chat_template else partial(prompt_text, tokenizer)
    return Dataset.from_list([{"prompt": read(p.messages), "prompt_id": p.id} for p in order])
