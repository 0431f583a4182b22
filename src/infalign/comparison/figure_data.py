"""The parts of `results.json` that figures need: frontier curves and quantile densities."""

from collections.abc import Mapping, Sequence

import numpy as np

from infalign.core import (
    AbstractProcedure,
    Identity,
    Probit,
    TiltedPolicy,
    at_kl,
    design,
    randomized_quantiles,
)

from .comparison import REFERENCE
from .measured import Measured

__all__ = ["figure_data", "untrained"]

BINS = 20
"""Bins of a density of quantiles."""

FRONTIER_LIMIT = 8.0
"""KL in nats up to which the best possible win rate is computed; beyond it, the win rate is 1 to
many digits."""

NO_TILT = 1e9
"""A KL strength at which the tilted policy is the reference."""


def figure_data(measured: Measured, policies: Sequence[Mapping]) -> dict:
    """The parts of `results.json` that figures are drawn from.

    - `policies`: the policies' entries in the results, for their KL.
    """
    kls = [p["kl"]["value"] for p in policies if p["kl"] and p["kl"]["value"] > 0]
    return {
        "frontier": {
            spec: _curves(procedure, against, min(max(kls), FRONTIER_LIMIT))
            for spec, (procedure, against) in measured.comparison.theory_pairs.items()
        }
        if kls
        else {},
        "quantile_density": _densities(measured),
    }


def _curves(procedure: AbstractProcedure, against: AbstractProcedure, largest: float) -> dict:
    """Theoretical win rates from KL 0 to beyond the largest KL of a policy."""
    kls = np.concatenate([[0.01], np.linspace(0.05, max(1.0, 1.3 * largest), 24)])
    curves = {
        "optimal": [design(procedure, kl=k, against=against).win_rate for k in kls],
        "identity": [at_kl(Identity(), k).win_rate(procedure, against) for k in kls],
        "probit": [at_kl(Probit(), k).win_rate(procedure, against) for k in kls],
    }
    start = untrained(procedure, against)
    return {"kl": [0.0, *kls.tolist()]} | {name: [start, *c] for name, c in curves.items()}


def untrained(procedure: AbstractProcedure, against: AbstractProcedure) -> float:
    """Win rate of the reference itself, in theory: ½ unless the two procedures differ."""
    return TiltedPolicy(Identity(), NO_TILT).win_rate(procedure, against)


def _densities(measured: Measured) -> dict:
    """Density of each policy's quantiles under the reference; the reference itself has density 1
    everywhere."""
    edges = np.linspace(0, 1, BINS + 1)
    rng = np.random.default_rng(measured.comparison.sample_seed("density"))
    densities: dict[str, list[float]] = {"edges": edges.tolist()}
    for name in measured.comparison.policies:
        u = randomized_quantiles(measured.rewards(name), measured.rewards(REFERENCE), rng=rng)
        counts = np.histogram(u, edges)[0]
        densities[name] = (counts / counts.mean()).tolist()
    return densities
