"""The parts of `results.json` that figures need: frontier curves, quantile densities, examples."""

from collections.abc import Mapping, Sequence

import numpy as np

from infalign.core import (
    AbstractProcedure,
    Identity,
    Probit,
    TiltedPolicy,
    at_kl,
    design,
    quantiles,
    randomized_quantiles,
)
from infalign.decoding.selection import select

from .comparison import REFERENCE
from .measured import Measured

__all__ = ["figure_data"]

BINS = 20
"""Bins of a density of quantiles."""

EXAMPLES = 8
"""Number of prompts whose selected responses are shown."""

FRONTIER_LIMIT = 8.0
"""KL in nats up to which the best possible win rate is computed; beyond it, the win rate is 1 to
many digits."""

NO_TILT = 1e9
"""A KL strength at which the tilted policy is the reference."""


def figure_data(measured: Measured, policies: Sequence[Mapping], labels: Mapping[str, str]) -> dict:
    """The parts of `results.json` that figures and examples are drawn from.

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
        "examples": _examples(measured, labels),
    }


def _curves(procedure: AbstractProcedure, against: AbstractProcedure, largest: float) -> dict:
    """Theoretical win rates from KL 0 to beyond the largest KL of a policy."""
    kls = np.concatenate([[0.01], np.linspace(0.05, max(1.0, 1.3 * largest), 24)])
    curves = {
        "optimal": [design(procedure, kl=k, against=against).win_rate for k in kls],
        "identity": [at_kl(Identity(), k).win_rate(procedure, against) for k in kls],
        "probit": [at_kl(Probit(), k).win_rate(procedure, against) for k in kls],
    }
    start = TiltedPolicy(Identity(), NO_TILT).win_rate(procedure, against)
    return {"kl": [0.0, *kls.tolist()]} | {name: [start, *c] for name, c in curves.items()}


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


def _examples(measured: Measured, labels: Mapping[str, str]) -> list[dict]:
    """The responses that each policy selects on a few prompts."""
    comparison = measured.comparison
    rng = np.random.default_rng(comparison.sample_seed("examples"))
    count = len(comparison.prompts)
    chosen = np.sort(rng.choice(count, min(EXAMPLES, count), replace=False))
    decoded, against = next(iter(comparison.pairs.values()))
    names = {REFERENCE: "Reference"} | {p: labels.get(p, p) for p in comparison.policies}
    procedures = {name: against if name == REFERENCE else decoded for name in names}
    values = {name: measured.read_by(procedures[name], name) for name in names}
    texts = {name: measured.texts(name) for name in names}
    reference = measured.rewards(REFERENCE)
    examples = []
    for p in chosen:
        responses = []
        for name, label in names.items():
            at = select(procedures[name], values[name][p], rng=rng)
            q = quantiles([[measured.rewards(name)[p, at]]], reference[[p]])[0, 0]
            responses.append(
                {
                    "policy": name,
                    "label": label,
                    "text": texts[name][p, at],
                    "quantile": float(q),
                }
            )
        prompt = comparison.prompts[p]
        examples.append({"prompt_id": prompt.id, "prompt": prompt.text, "responses": responses})
    return examples
