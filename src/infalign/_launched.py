"""Processes that a launcher such as torchrun started together, by the variables that it sets."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from infalign.errors import ConfigError

__all__ = ["as_launched", "processes", "require_alone"]

VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher sets for each process."""


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


@contextmanager
def as_launched() -> Iterator[None]:
    """After the block, the variables of a launcher are what they were before it.

    TRL sets them for a vLLM in its process. Accelerate would take a process that has them for one
    of a distributed training, in which prompts are not shared.
    """
    before = {name: os.environ.get(name) for name in VARIABLES}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
