"""The arguments of TRL's trainers: what a run decides, and what `train.trl` may add."""

import dataclasses
import difflib
import math
import re
import typing
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from trl import GRPOConfig, RLOOConfig

from infalign import _check
from infalign.config import Config
from infalign.errors import ConfigError
from infalign.methods import METHODS, OnPolicy

from .choice import metric
from .kl_control import AbstractSteps, GRPOSteps, LogRatioReward, RLOOSteps
from .loop import common_arguments, on_one_device, trackers
from .recipe import Recipe

__all__ = ["arguments", "check_options"]

_REASONS = {
    "The run folder decides it": "output_dir",
    "The key `train.report_to` decides it": "report_to",
    "The key `seed` decides it": "seed data_seed",
    "The key `sampling.temperature` decides it": "temperature",
    "The key `sampling.max_new_tokens` decides it": "max_completion_length",
    "The key `train.steps` decides it": "max_steps num_train_epochs",
    "The key `train.learning_rate` decides it": "learning_rate",
    "The step size falls as a cosine over `train.steps`": "lr_scheduler_type lr_scheduler_kwargs",
    "The key `kl` or `beta` decides it": "beta",
    "The key `model` decides it": "model_init_kwargs",
    "Calibration, evaluation and training have the prompts of the model's own chat template": (
        "chat_template_kwargs"
    ),
    "The key `trust_remote_code` decides it": "trust_remote_code",
    "The keys `train.batch_size` and `train.group` decide it": (
        "num_generations generation_batch_size steps_per_generation auto_find_batch_size"
    ),
    "The KL is that of the whole distribution at `sampling.temperature`": (
        "top_p top_k min_p repetition_penalty generation_kwargs vllm_structured_outputs_regex"
    ),
    "It would change the objective E[R] − β KL, which `train.method` decides": (
        "reward_weights scale_rewards loss_type normalize_advantages reward_clip_range "
        "multi_objective_aggregation mask_truncated_completions entropy_coef "
        "use_adaptive_entropy top_entropy_quantile sync_ref_model ref_model_sync_steps "
        "ref_model_mixup_alpha use_bias_correction_kl router_aux_loss_coef "
        "label_smoothing_factor neftune_noise_alpha off_policy_mask_threshold"
    ),
    "Each step draws its own responses, whose KL the controller steers": "num_iterations",
    "Every training is without dropout, so that the policy is the one that samples": (
        "disable_dropout"
    ),
    "The run resumes from its own checkpoints, made every `train.save_steps`": (
        "save_steps save_strategy save_total_limit save_only_model save_on_each_node "
        "resume_from_checkpoint ignore_data_skip restore_callback_states_from_checkpoint"
    ),
    "The best checkpoint on the share `train.validation` is selected": (
        "eval_strategy eval_steps eval_delay eval_on_start load_best_model_at_end "
        "metric_for_best_model greater_is_better do_eval do_train do_predict prediction_loss_only"
    ),
    "The run's seed decides the order of prompts, so that it can resume": (
        "shuffle_dataset train_sampling_strategy dataloader_drop_last dataloader_in_order"
    ),
    "The report reads every step of the log": (
        "logging_steps logging_strategy logging_first_step logging_nan_inf_filter"
    ),
    "The reward reads the column prompt_id": "remove_unused_columns",
}

DECIDED = {name: reason for reason, names in _REASONS.items() for name in names.split()}
"""Options that `train.trl` must not set, since the run would not do what its folder says; and what
decides them."""


def _steps(trainer: str) -> AbstractSteps:
    """The steps of a trainer, for their arguments only."""
    return RLOOSteps() if trainer == "rloo" else GRPOSteps(LogRatioReward(None, None, 1.0))


def arguments(
    recipe: Recipe, steps: AbstractSteps, beta: float, out: Path, *, selects: bool
) -> RLOOConfig | GRPOConfig:
    """The trainer's arguments.

    - `selects`: whether checkpoints are compared on validation prompts.
    """
    train = recipe.train
    options = {
        "learning_rate": train.learning_rate,
        "lr_scheduler_type": "cosine",
        "max_steps": train.steps,
        "per_device_train_batch_size": train.batch_size,
        "num_generations": train.group,
        "max_completion_length": recipe.sampling.max_new_tokens,
        "temperature": recipe.sampling.temperature,
        "shuffle_dataset": False,
        "trust_remote_code": recipe.trust_remote_code,  # for the reference, which TRL loads
        **common_arguments(recipe),
        **steps.options(beta),
    }
    if selects:
        options |= {
            "eval_strategy": "steps",
            "eval_steps": train.save_steps,
            "per_device_eval_batch_size": train.batch_size,
            "load_best_model_at_end": True,
            "metric_for_best_model": f"eval_{metric(train)}",
            "greater_is_better": True,
        }
    return on_one_device(steps.arguments_type(str(out), **options | train.trl))


def check_options(config: Config, model_path: str) -> None:
    """Raise ConfigError for an option of `train.trl` that the trainers of the run's methods do not
    have, that the run decides itself, or whose value they refuse."""
    options, on_policy = config.train.trl, [METHODS[name] for name in config.methods]
    trainers = {m.trainer for m in on_policy if isinstance(m, OnPolicy)} or {"rloo"}
    kinds = [_steps(name) for name in sorted(trainers)]
    types = [kind.arguments_type for kind in kinds]
    problems = [p for p in (_problem(key, v, types) for key, v in options.items()) if p]
    problems += [p for p in (_missing(key, v) for key, v in options.items()) if p]
    problems += [p for p in map(_tracker_problem, trackers(config.train)) if p]
    if problems:
        raise ConfigError("\n".join(problems))
    _require_whole_batch(config)
    if not config.train.steps:
        return
    for kind in kinds:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                recipe = Recipe.of(config, model_path)
                arguments(recipe, kind, 1.0, Path("unused"), selects=config.train.selects)
        except Exception as error:
            stated = f"'s `train.trl` ({', '.join(options)})" if options else ""
            raise ConfigError(
                f"TRL's {kind.arguments_type.__name__} refuses the configuration{stated}: "
                f"{' '.join(str(error).split())[:300]}"
            ) from error


PACKAGES = {"azure_ml": "azureml-core", "comet_ml": "comet-ml", "dagshub": "dagshub mlflow"}
"""Packages of trackers that are called otherwise."""


def _missing(key: str, value: object) -> str:
    """The package that an option needs and that is not installed, which trainers ask for when they
    begin; empty if there is none."""
    name = {"use_vllm": "vllm", "use_liger_kernel": "liger-kernel"}.get(key, "")
    needed = value is True
    if key == "optim":
        name, needed = "bitsandbytes", re.search("bnb|8bit", str(value)) is not None
    if not (name and needed) or find_spec(name.replace("-", "_")) is not None:
        return ""
    return (
        f"`train.trl.{key}` is {_check.short(value)}, which needs a package that is not installed. "
        f"Install it with: pip install {name}"
    )


def _tracker_problem(name: str) -> str:
    """Why a tracker cannot be reported to; empty if it can."""
    from transformers.integrations import integration_utils

    known = integration_utils.INTEGRATION_TO_CALLBACK
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"Did you mean `{near[0]}`?" if near else f"It knows {', '.join(known)}."
        return f"`train.report_to` is {_check.short(name)}, which TRL does not know. {hint}"
    if name not in integration_utils.get_available_reporting_integrations():
        return (
            f"`train.report_to` is {name}, which is not installed. Install it with: "
            f"pip install {PACKAGES.get(name, name)}"
        )
    return ""


def _problem(key: str, value: object, types: Sequence[type]) -> str:
    """What is wrong with an option; empty if nothing is."""
    known = set.intersection(*({f.name for f in dataclasses.fields(t)} for t in types))
    if key in DECIDED:
        return f"`train.trl.{key}` cannot be set: the run decides it. {DECIDED[key]}."
    if key not in known:
        names = " and ".join(kind.__name__ for kind in types)
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f"Did you mean `{near[0]}`?" if near else "TRL's documentation lists them."
        if near and near[0] in DECIDED:
            hint += f" The run decides it: {DECIDED[near[0]]}."
        return f"`train.trl.{key}` in the configuration is not an option of TRL's {names}. {hint}"
    return next((p for p in (_type_problem(kind, key, value) for kind in types) if p), "")


def _type_problem(kind: type, key: str, value: object) -> str:
    """What is wrong with the type of a value; TRL itself would fail with it during training."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"`train.trl.{key}` must be finite; got {value}."
    try:
        hint = typing.get_type_hints(kind)[key]
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except (NameError, TypeError, PydanticUserError):  # a type that pydantic does not know
        return ""
    try:
        adapter.validate_python(value, strict=True)
    except ValidationError as error:
        words = "; or ".join(dict.fromkeys(e["msg"] for e in error.errors()[:3]))
        return (
            f"`train.trl.{key}` is {_check.short(value)}, which TRL's {kind.__name__} does not "
            f"accept: {words}."
        )
    return ""


def _require_whole_batch(config: Config) -> None:
    """Raise ConfigError unless smaller batches on the device add up to `train.batch_size`."""
    train = config.train
    size = train.trl.get("per_device_train_batch_size", train.batch_size)
    parts = train.trl.get("gradient_accumulation_steps", 1)
    if isinstance(size, int) and isinstance(parts, int) and size * parts != train.batch_size:
        raise ConfigError(
            f"`train.trl.per_device_train_batch_size` {size} times `gradient_accumulation_steps` "
            f"{parts} is {size * parts}, not `train.batch_size` {train.batch_size}, which decides "
            "the responses of a step. Set both so that they multiply to it."
        )
