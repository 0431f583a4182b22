"""What the stages of a run will cost: their work at a measured speed."""

from dataclasses import dataclass

from infalign.config import Training

from .measure import Speed
from .workload import OPTIMIZER, ROW, SINGLE, Workload

__all__ = ["Cost", "cost"]

TOKEN = 4
"""Bytes of a stored token id."""


@dataclass(frozen=True)
class Cost:
    """What one stage costs on the measured device."""

    work: Workload
    tokens: float
    """Tokens of the responses that are written."""

    seconds: float
    disk: int
    """Bytes of its results, which remain."""

    memory: int | None
    """Bytes in use at the most; None if it cannot be known here."""

    at_least: bool = False
    """Whether more memory may be in use: what a training step needs beside the weights cannot be
    told on a CPU."""


def cost(
    work: Workload, speed: Speed, parameters: int | None = None, train: Training | None = None
) -> Cost:
    """The cost of a stage; nothing if it is reused.

    - `parameters`: number of weights of the policy, if it is known.
    - `train`: settings of the training, where policies are trained.
    """
    if work.reused:
        return Cost(work, 0, 0, 0, 0)
    length = speed.longest if speed.tokens is None else speed.tokens
    row = ROW + TOKEN * length + speed.text * speed.longest / speed.length
    weights = SINGLE * (parameters or 0) * work.models
    return Cost(
        work,
        tokens=work.generated * length,
        seconds=(
            work.loaded * speed.loading
            + work.generated * speed.generating
            + work.scored * speed.scoring
            + work.read * (speed.reading or 0)
            + work.learned * (speed.learning or 0)
        ),
        disk=round(weights + row * work.stored),
        memory=_memory(work, speed, parameters, train),
        at_least=work.learned > 0 and speed.activations is None,
    )


def _memory(
    work: Workload, speed: Speed, parameters: int | None, train: Training | None
) -> int | None:
    """Generation as measured; training from the number of weights: the policy, its gradients, the
    optimizer and the reference, and what a step takes beside them."""
    if train is None or not work.learned:
        return speed.memory
    if parameters is None:
        return None
    trained = 0 if train.lora else parameters
    size = max(
        train.warm_start_batch_size,
        train.trl.get("per_device_train_batch_size", train.batch_size) if train.steps else 0,
    )
    numbers = 2 * parameters + (1 + OPTIMIZER) * trained
    if speed.activations is None:
        return SINGLE * numbers + speed.memory  # of this process, with its libraries
    return SINGLE * numbers + size * speed.activations
