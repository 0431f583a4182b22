"""What every trainer of the package shares: arguments, resumption, and what is left at the end."""

import shutil
from pathlib import Path

from infalign import storage
from infalign.config import Config
from infalign.models.loading import device

from .callbacks import last_checkpoint, quiet
from .weights import save_policy


def common_arguments(config: Config) -> dict:
    """Arguments of transformers' `TrainingArguments` that are the same for all."""
    return {
        "logging_steps": 1,
        "save_steps": config.train.save_steps,
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": device() == "cpu",
        "bf16": True,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": device() != "cpu",
        "seed": config.seed,
    }


def finish(trainer, out: Path) -> None:
    """Train from the last checkpoint to the end; keep the model and the log.

    `done.json` is written last, so a folder that has it is finished.
    """
    quiet(trainer)
    trainer.train(resume_from_checkpoint=last_checkpoint(out) if out.exists() else None)
    lines = [storage.json_line(row) for row in trainer.state.log_history]
    storage.write_text(out / "metrics.jsonl", "".join(lines))
    save_policy(trainer.model, out / "model")
    storage.write_json(out / "done.json", {"steps": trainer.state.global_step})


def drop_checkpoints(out: Path) -> None:
    """Remove the checkpoints of a finished training, which nothing will resume."""
    for checkpoint in out.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
