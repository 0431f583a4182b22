"""Settings of other frameworks that keep a run's objective: E[shaped reward] − β KL.

Each function returns command-line arguments, as a list of words. They set RLOO's leave-one-out
baseline, no division by a group's standard deviation, and the log-ratio of the whole sequence (k1)
inside the reward, with β fixed at the value in `design.json`.
"""

from pathlib import Path

from infalign.pipeline.folder import Run
from infalign.pipeline.read import read_design

from .openrlhf import clip_range

__all__ = ["openrlhf", "trl", "verl"]


def verl(run: Run, train: Path, validation: Path | None) -> list[str]:
    """Overrides of `python -m verl.trainer.main_ppo`."""
    config = run.config
    words = {
        "data.train_files": train,
        "data.val_files": validation or train,
        "data.max_response_length": config.sampling.max_new_tokens,
        "actor_rollout_ref.model.path": _absolute(run.model_path),
        "actor_rollout_ref.rollout.n": config.train.group,
        "actor_rollout_ref.rollout.temperature": config.sampling.temperature,
        "actor_rollout_ref.actor.loss_agg_mode": "seq-mean-token-sum",
        "actor_rollout_ref.actor.use_kl_loss": False,
        "algorithm.adv_estimator": "rloo",
        "algorithm.norm_adv_by_std_in_grpo": False,
        "algorithm.use_kl_in_reward": True,
        "algorithm.kl_penalty": "kl",
        "algorithm.kl_ctrl.type": "fixed",
        "algorithm.kl_ctrl.kl_coef": read_design(run).beta,
        "reward.reward_manager.name": "naive",
        "reward.custom_reward_function.path": "pkg://infalign.frameworks.verl",
        "reward.custom_reward_function.name": "compute_score",
        "+reward.custom_reward_function.reward_kwargs.run": run.folder.resolve(),
        "+reward.custom_reward_function.reward_kwargs.directory": Path.cwd(),
    }
    if run.config.trust_remote_code:
        words["+reward.custom_reward_function.reward_kwargs.trust_remote_code"] = True
    return [f"{name}={value}" for name, value in words.items()]


def openrlhf(run: Run, train: Path, reward_file: Path, template: bool) -> list[str]:
    """Arguments of `python -m openrlhf.cli.train_ppo_ray`."""
    config, design = run.config, read_design(run)
    clip = clip_range(design.transform, config.calibration.samples)
    return [
        *("--data.prompt_dataset", str(train)),
        *("--data.input_key", "prompt"),
        *("--data.label_key", "prompt_id"),
        *(["--data.apply_chat_template"] if template else []),
        *("--actor.model_name_or_path", _absolute(run.model_path)),
        *("--rollout.n_samples_per_prompt", str(config.train.group)),
        *("--rollout.temperature", str(config.sampling.temperature)),
        *("--rollout.max_new_tokens", str(config.sampling.max_new_tokens)),
        *("--algo.advantage.estimator", "rloo"),
        *("--algo.kl.init_coef", repr(design.beta)),
        *("--algo.kl.estimator", "k1"),
        *("--reward.clip_range", f"{-clip:g}", f"{clip:g}"),
        *("--reward.remote_url", str(reward_file)),
    ]


def trl(run: Run) -> list[str]:
    """Arguments of a script that reads an RLOOConfig, such as `examples/trl/train.py`."""
    config = run.config
    return [
        *("--beta", repr(read_design(run).beta)),
        *("--num_generations", str(config.train.group)),
        *("--temperature", str(config.sampling.temperature)),
        *("--max_completion_length", str(config.sampling.max_new_tokens)),
    ]


def _absolute(model: str) -> str:
    """A folder's absolute path, since the framework's processes run elsewhere."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model
