"""Raw rewards as a reward function gave them: checked, and beside their calibration in the log."""

import math
from collections.abc import Sequence
from numbers import Real

import numpy as np

from infalign.calibration.store import CalibrationStore
from infalign.errors import DataError


def checked_rewards(values, completions: Sequence, name: str) -> np.ndarray:
    """`values` as one finite float per completion; DataError names what is wrong and where."""
    values = values.tolist() if hasattr(values, "tolist") else values  # arrays and tensors
    if not isinstance(values, list | tuple):
        raise DataError(
            f"The reward function `{name}` must return a list of one number per completion; "
            f"got a {type(values).__name__}."
        )
    if len(values) != len(completions):
        raise DataError(
            f"The reward function `{name}` must return one number per completion; got "
            f"{len(values)} for {len(completions)} completions."
        )
    bad = [i for i, v in enumerate(values) if not (isinstance(v, Real) and math.isfinite(v))]
    if bad:
        raise DataError(
            f"The reward function `{name}` must return finite numbers; got {values[bad[0]]!r} for "
            f"completion {bad[0]} ({len(bad)} of {len(values)} are not): "
            f"{str(completions[bad[0]])[:80]!r}. Repair the reward, or filter such completions."
        )
    return np.array(values, dtype=float)


def raw_rewards(reward, prompts, completions, columns, key) -> tuple[np.ndarray, Sequence[str]]:
    """Checked raw rewards and the prompt ids they belong to."""
    if key not in columns:
        raise DataError(
            f"The data set has no column `{key}`, which names each prompt of the calibration "
            f"store; its columns are {sorted(columns)}. Add it, or pass `key=`."
        )
    raw = reward(prompts=prompts, completions=completions, **columns)
    return checked_rewards(raw, completions, reward_name(reward)), columns[key]


def log_calibration(
    store: CalibrationStore, ids, raw: np.ndarray, log_metric, calibration=None
) -> None:
    """Log the mean raw reward and quantile, and the share outside all reference samples."""
    if log_metric is not None:
        rank = store.quantiles(ids, raw)
        quantile = rank if calibration is None else calibration.quantiles(ids, raw)
        log_metric("infalign/raw_reward", float(raw.mean()))
        log_metric("infalign/quantile", float(quantile.mean()))
        log_metric("infalign/saturated", float(np.mean((rank == 0) | (rank == 1))))


def reward_name(reward) -> str:
    """The name a reward function goes by in logs and messages."""
    return getattr(reward, "__name__", type(reward).__name__)
