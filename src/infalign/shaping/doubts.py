"""Warnings about batches from which no policy can learn, each given once."""

import logging
from dataclasses import dataclass, field

import numpy as np

from infalign._look import Shown
from infalign.calibration.constant import MESSAGES
from infalign.core import AbstractProcedure

from .monitor import Monitor
from .shaper import Shaped

__all__ = ["Doubts", "few_samples"]

LOG = logging.getLogger(__name__)

FEWEST = 4
"""Smallest number of responses in a batch that is judged."""

PATIENCE = 5
"""Number of batches in a row without a difference between the rewards of any prompt after which a
warning is due. Verifiable rewards may be equal in some."""


def few_samples(samples: int, procedure: AbstractProcedure) -> str:
    """A warning about fewer reference samples per prompt than a procedure draws responses."""
    return (
        f"K = {samples} reference samples per prompt are fewer than the {procedure.draws} "
        f"responses that {procedure.spec} draws: the quantiles that decide are not resolved. "
        f"Calibrate with {4 * procedure.draws} or more (`calibration.samples`)."
    )


@dataclass
class Doubts(Shown):
    """What the batches so far say about the training."""

    given: set[str] = field(default_factory=set)
    """Warnings that were given."""

    equal: int = 0
    """Number of batches in a row in which the rewards of each prompt were equal."""

    def consider(self, shaped: Shaped, monitor: Monitor) -> None:
        """Warn if nothing can be learned from a batch, or too little."""
        self._samples(shaped, monitor)
        if len(shaped.raw) >= FEWEST:
            if shaped.batch.placed:
                self._range(shaped)
            self._spread(shaped)

    def _warn(self, kind: str, message: str) -> None:
        if kind not in self.given:
            self.given.add(kind)
            LOG.warning(message)

    def _samples(self, shaped: Shaped, monitor: Monitor) -> None:
        """Warn of fewer reference samples than the procedure draws responses."""
        samples, procedure = shaped.batch.calibration.store.samples, monitor.procedure
        if procedure is not None and samples < procedure.draws:
            self._warn("samples", few_samples(samples, procedure))

    def _range(self, shaped: Shaped) -> None:
        """Warn of rewards that all lie on one side of the reference's."""
        placement = shaped.batch.placement
        quantile = placement.unsmoothed.quantile
        above = bool((quantile > 0.5).all())
        if not placement.outside.all() or not (above or (quantile < 0.5).all()):
            return
        raw, side = shaped.raw, "above" if above else "below"
        first = shaped.batch.calibration.store.rewards[shaped.batch.prompt_ids[0]]
        samples = shaped.batch.calibration.store.samples
        self._warn(
            side,
            f"All {len(raw)} rewards of a batch, {raw.min():g} to {raw.max():g}, lie {side} all "
            f"reference rewards of their prompts (those of the first are {np.nanmin(first):g} to "
            f"{np.nanmax(first):g}), so they all have the same quantile and the policy cannot "
            "learn which response is better. In the first steps this means that the store was made "
            "with another reward, scale, prompt format or model: calibrate again with this reward. "
            f"Later it means that the policy has left what K = {samples} samples resolve: use more "
            "samples, or a smaller KL.",
        )

    def _spread(self, shaped: Shaped) -> None:
        """Warn of rewards that do not differ within any prompt."""
        groups: dict[str, list[float]] = {}
        for prompt, value in zip(shaped.batch.prompt_ids, shaped.value, strict=True):
            groups.setdefault(prompt, []).append(value)
        several = [values for values in groups.values() if len(values) > 1]
        if not several:
            return
        self.equal = self.equal + 1 if all(max(v) == min(v) for v in several) else 0
        if self.equal == PATIENCE:
            raw = shaped.raw
            self._warn(
                "spread",
                f"In {PATIENCE} batches in a row all responses to a prompt had the same training "
                f"reward (raw rewards of the last: {raw.min():g} to {raw.max():g}): their "
                "advantages are 0 and the policy does not change. Check that the reward tells "
                f"responses apart ({MESSAGES}), raise the sampling temperature, or choose "
                "prompts that are neither always solved nor never.",
            )
