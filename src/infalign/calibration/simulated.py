"""Prompts like those of a calibration, simulated from the hierarchy that was learned from them."""

from dataclasses import dataclass, field

import numpy as np

from .hierarchy import EDGES
from .judge import AbstractWorld, Truth, graded_edges
from .pooled import FittedPooled


@dataclass(frozen=True)
class Alike(AbstractWorld):
    """Prompts drawn from a learned hierarchy: location and scale from the priors, the law around
    the shared one as a Dirichlet process."""

    learned: FittedPooled = field(repr=False)
    prompts: int

    def draw(self, samples, rng):
        edges, found = graded_edges(), self.learned.found
        place, log_scale = (
            (prior.mean + np.sqrt(prior.variance) * rng.normal(size=self.prompts))[:, None]
            for prior in (found.location, found.log_scale)
        )
        own = self._own(edges, rng)

        def quantile(u):
            v = np.array([np.interp(*row, edges) for row in zip(u, own, strict=True)])
            z = np.sinh(np.interp(v, found.shape.cdf(EDGES), EDGES))
            return self.learned.center + self.learned.unit * (place + np.exp(log_scale) * z)

        middles = np.broadcast_to((edges[:-1] + edges[1:]) / 2, (self.prompts, edges.size - 1))
        rewards = quantile(rng.random((self.prompts, samples)))
        return rewards, Truth(np.sort(quantile(middles), axis=1), edges), None

    def _own(self, edges, rng) -> np.ndarray:
        """Each prompt's own CDF at the shared law's quantiles `edges`: (prompts, cells + 1)."""
        widths, c = np.diff(edges), self.learned.concentration
        if c == np.inf:
            return np.broadcast_to(edges, (self.prompts, edges.size))
        mass = rng.standard_gamma(c * widths, size=(self.prompts, widths.size)) + 1e-12 * widths
        ends = np.cumsum(mass, axis=1)
        return np.hstack([np.zeros((self.prompts, 1)), ends / ends[:, -1:]])
