"""Processes that a launcher such as torchrun started together, by the variables that it sets."""

import os

from infalign.errors import ConfigError

__all__ = ["processes", "require_alone"]


def processes() -> int:
    """Number of processes that train together. Launchers and accelerate set the variable."""
    size = os.environ.get("WORLD_SIZE", "")
    return int(size) if size.isdecimal() else 1


def require_alone() -> None:
    """Raise ConfigError in a process that torchrun, accelerate or DeepSpeed started with others.

    Each would write the same files, and trainers would wait for the others and split every batch.
    """
    if "LOCAL_RANK" in os.environ and processes() > 1:
        raise ConfigError(
            f"infalign runs in one process, and this is one of {processes()} (WORLD_SIZE). Start "
            "it without torchrun or accelerate launch: it trains on one GPU, and `infalign compare "
            "STUDY engine=ray` uses all. For one training on several GPUs, use `infalign "
            "export-prompts` and the rewards for TRL, verl or OpenRLHF. If no launcher runs, "
            "unset WORLD_SIZE and LOCAL_RANK."
        )
