"""Simulated prompts: drawn from the hierarchy that was learned from the prompts of a store."""

from dataclasses import dataclass, field

import numpy as np

from .assessment import AbstractWorld, Truth, graded_edges
from .hierarchy import EDGES, Normal
from .pooled import FittedPooled

__all__ = ["SimulatedPrompts"]

LEAST = 1e-12
"""Minimum mass of a cell of a prompt's own law, as a share of its expected mass, so that the CDF
rises."""


@dataclass(frozen=True)
class SimulatedPrompts(AbstractWorld):
    """Prompts of a learned hierarchy: location and scale from their priors, the law of the reward
    from a Dirichlet process around the shared law."""

    learned: FittedPooled = field(repr=False)
    prompts: int

    def draw(self, samples, rng):
        edges, hierarchy = graded_edges(), self.learned.hierarchy
        location = self._prior(hierarchy.location, rng)
        scale = np.exp(self._prior(hierarchy.log_scale, rng))
        own = self._own_cdf(edges, rng)

        def quantile(u: np.ndarray) -> np.ndarray:
            # The prompt's CDF maps shared quantiles to its own: invert it, then the shared law.
            shared = np.array([np.interp(*row, edges) for row in zip(u, own, strict=True)])
            z = np.sinh(np.interp(shared, hierarchy.shape.cdf(EDGES), EDGES))
            return self.learned.center + self.learned.unit * (location + scale * z)

        middles = np.broadcast_to((edges[:-1] + edges[1:]) / 2, (self.prompts, edges.size - 1))
        rewards = quantile(rng.random((self.prompts, samples)))
        return rewards, Truth(np.sort(quantile(middles), axis=1), edges), None

    def _prior(self, prior: Normal, rng: np.random.Generator) -> np.ndarray:
        """One draw for each prompt, (prompts, 1)."""
        draws = prior.mean + np.sqrt(prior.variance) * rng.normal(size=self.prompts)
        return draws[:, None]

    def _own_cdf(self, edges: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Each prompt's own CDF at the quantiles `edges` of the shared law, (prompts, cells + 1).

        The masses of a Dirichlet process on cells are Gamma variables, divided by their sum.
        """
        widths, c = np.diff(edges), self.learned.concentration
        if c == np.inf:
            return np.broadcast_to(edges, (self.prompts, edges.size))
        mass = rng.standard_gamma(c * widths, size=(self.prompts, widths.size)) + LEAST * widths
        ends = np.cumsum(mass, axis=1)
        return np.hstack([np.zeros((self.prompts, 1)), ends / ends[:, -1:]])
