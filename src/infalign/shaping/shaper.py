"""Raw reward → quantile → training reward: the central step of the method, as an object.

A shaper turns the raw rewards of a batch into `Shaped`. A batch is placed only once among the
reference rewards of its prompts; training rewards, logs and other frameworks read that placement.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from infalign import _check
from infalign._look import Shown
from infalign.calibration import (
    AbstractCalibrator,
    AbstractFitted,
    AbstractPlacement,
    StoreCalibration,
)
from infalign.core import AbstractTransform, Smoothing
from infalign.errors import ArgumentError
from infalign.stores import CalibrationStore

__all__ = ["AbstractShaper", "Batch", "Shaped", "Shaper", "Unshaped", "calibrated"]

Calibrator = AbstractCalibrator | AbstractFitted | StoreCalibration
"""A calibrator, which is fitted to the store when the shaper is made; a fitted calibrator; or a
`StoreCalibration`."""


@dataclass(frozen=True, eq=False)
class Batch(Shown):
    """Raw rewards of a batch, placed once, when the placement is first read."""

    calibration: StoreCalibration
    prompt_ids: Sequence[str]
    raw: np.ndarray

    @cached_property
    def placement(self) -> AbstractPlacement:
        """The rewards' positions among the reference rewards of their prompts."""
        return self.calibration.place(self.prompt_ids, self.raw)

    @property
    def placed(self) -> bool:
        """Whether the placement has been read."""
        return "placement" in vars(self)


@dataclass(frozen=True, eq=False)
class Shaped(Shown):
    """A shaped batch of rewards; every array has one entry per response."""

    batch: Batch = field(repr=False)

    value: np.ndarray
    """Training rewards."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    """Metrics of the shaper's own objective, by the names under which they are logged."""

    @property
    def raw(self) -> np.ndarray:
        """Raw rewards."""
        return self.batch.raw

    @property
    def quantile(self) -> np.ndarray:
        """Quantiles of the raw rewards under the reference, in [0, 1]."""
        return self.batch.placement.quantile


class AbstractShaper(Shown, ABC):
    """Training rewards from raw rewards and the reference rewards of the same prompts."""

    def __init__(self, calibration: StoreCalibration):
        self.calibration = calibration

    @property
    def store(self) -> CalibrationStore:
        """The reference rewards."""
        return self.calibration.store

    def __call__(self, prompt_ids: Sequence[str], rewards) -> Shaped:
        """The shaped batch.

        - `prompt_ids`: the prompt of each response.
        - `rewards`: its raw reward, shape (n,).

        Raises ValueError for other shapes, and DataError for unknown prompts, rewards that are not
        finite, and incomplete groups where groups are needed.
        """
        raw = _check.numbers("rewards", rewards)
        try:
            listed = not isinstance(prompt_ids, str) and raw.shape == (len(prompt_ids),)
        except TypeError:  # a generator or a single value, which has no length
            listed = False
        if not listed:
            raise ValueError(
                "`prompt_ids` and `rewards` must be lists with one entry per response; got "
                f"{_check.short(prompt_ids)} and rewards of shape {raw.shape}."
            )
        return self._shaped(Batch(self.calibration, prompt_ids, raw))

    @abstractmethod
    def _shaped(self, batch: Batch) -> Shaped:
        """The batch with its training rewards."""


class Shaper(AbstractShaper):
    """Φ(C(x, y)), InfAlign-CTRL's training reward.

    Each reward becomes its quantile under the reference samples of its own prompt; the transform of
    that quantile is the training reward. A reward that ties with reference rewards gets the
    transform's average over their shared quantiles. Picklable.

    - `store`: reference rewards of the prompts.
    - `transform`: Φ; unbounded transforms (`Log`, `Probit`) need `smoothing="add-half"`.
    - `calibrator`: estimates quantiles from the store's rewards. It is a calibrator such as
      `Pooled()`, which is fitted to the store now; a fitted calibrator; or a `StoreCalibration`.
      Default: plain ranks.
    - `smoothing`: smoothing of plain ranks; `add-half` keeps quantiles inside (0, 1).

    >>> from infalign import CalibrationStore, Exponential
    >>> store = CalibrationStore.from_rewards(["a"], [[1.0, 2.0, 3.0, 4.0]])
    >>> shaped = Shaper(store, Exponential(2.0))(["a", "a"], [2.5, 9.0])
    >>> shaped.quantile.tolist(), shaped.value.round(3).tolist()
    ([0.5, 1.0], [0.269, 1.0])
    """

    def __init__(
        self,
        store: CalibrationStore,
        transform: AbstractTransform,
        calibrator: Calibrator | None = None,
        *,
        smoothing: Smoothing = "none",
    ):
        _check.instance(
            "transform",
            transform,
            AbstractTransform,
            "a transform such as Exponential(10.0)",
            "Text becomes one with `infalign.parse_transform`.",
        )
        super().__init__(_finite(calibrated(store, calibrator), transform, smoothing))
        self.transform = transform

    def _shaped(self, batch: Batch) -> Shaped:
        return Shaped(batch, batch.placement.expected(self.transform))


class Unshaped(AbstractShaper):
    """The unchanged raw reward, for baselines; the store is used for logging only."""

    def _shaped(self, batch: Batch) -> Shaped:
        return Shaped(batch, batch.raw)


def calibrated(store: CalibrationStore, calibrator: Calibrator | None = None) -> StoreCalibration:
    """The calibrator on the store, after a check of both."""
    _check.instance("store", store, CalibrationStore, "a CalibrationStore")
    return StoreCalibration.of(store, calibrator)


def _finite(
    calibration: StoreCalibration, transform: AbstractTransform, smoothing: Smoothing
) -> StoreCalibration:
    """The calibration with its ranks smoothed as requested.

    Raises ValueError if the transform is infinite at quantiles that the calibration can give.
    """
    if not transform.bounded and not calibration.plain:
        raise ArgumentError(
            "transform",
            f"must be bounded with this calibrator, which averages over quantiles from 0 to 1; got "
            f"{transform.spec}. Use a bounded transform, or leave `calibrator` out.",
        )
    if _check.one_of("smoothing", smoothing, ("none", "add-half")) != "none":
        calibration = calibration.smoothed(smoothing)
    if not transform.bounded and not calibration.interior:
        raise ArgumentError(
            "transform",
            f"must be finite at 0 and 1, where plain mid-ranks can fall; got {transform.spec}. Use "
            'smoothing="add-half", or a bounded transform.',
        )
    return calibration
