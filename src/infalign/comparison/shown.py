"""What a page shows beside the table: the frontier's curves, densities of quantiles, examples."""

from collections.abc import Mapping

import numpy as np

from infalign.core import (
    Identity,
    Probit,
    TiltedPolicy,
    at_kl,
    design,
    quantiles,
    randomized_quantiles,
)
from infalign.decoding.selection import select

from .measured import FRONTIER_LIMIT, Measured, in_theory
from .plan import REFERENCE

BINS = 20
EXAMPLES = 8


def shown(measured: Measured, policies: list[dict], labels: Mapping[str, str]) -> dict:
    """The parts of `results.json` that figures and examples are drawn from.

    - `policies`: their entries in the results, for their KL.
    """
    reached = [p["kl"]["value"] for p in policies if p["kl"] and p["kl"]["value"] > 0]
    return {
        "frontier": {
            spec: _curves(procedure, against, min(max(reached), FRONTIER_LIMIT))
            for spec, (procedure, against) in measured.comparison.pairs.items()
            if in_theory(procedure, against)
        }
        if reached
        else {},
        "quantile_density": _densities(measured),
        "examples": _examples(measured, labels),
    }


def _curves(procedure, against, reached: float) -> dict:
    kls = np.concatenate([[0.01], np.linspace(0.05, max(1.0, 1.3 * reached), 24)])
    curves = {
        "optimal": [design(procedure, kl=k, against=against).win_rate for k in kls],
        "identity": [at_kl(Identity(), k).win_rate(procedure, against) for k in kls],
        "probit": [at_kl(Probit(), k).win_rate(procedure, against) for k in kls],
    }
    start = TiltedPolicy(Identity(), 1e9).win_rate(procedure, against)
    return {"kl": [0.0, *kls.tolist()]} | {name: [start, *c] for name, c in curves.items()}


def _densities(measured: Measured) -> dict:
    """Where the replies of each policy fall among the reference's: 1 everywhere is the same."""
    edges = np.linspace(0, 1, BINS + 1)
    rng = np.random.default_rng(measured.comparison.sample_seed("density"))
    found: dict = {"edges": edges.tolist()}
    for name in measured.comparison.policies:
        u = randomized_quantiles(measured.rewards(name), measured.rewards(REFERENCE), rng=rng)
        counts = np.histogram(u, edges)[0]
        found[name] = (counts / counts.mean()).tolist()
    return found


def _examples(measured: Measured, labels: Mapping[str, str]) -> list[dict]:
    """What decoding kept of some of each policy's draws, on a few prompts."""
    comparison = measured.comparison
    rng = np.random.default_rng(comparison.sample_seed("examples"))
    count = len(comparison.prompts)
    chosen = np.sort(rng.choice(count, min(EXAMPLES, count), replace=False))
    decoded, against = next(iter(comparison.pairs.values()))
    names = {REFERENCE: "Reference"} | {p: labels.get(p, p) for p in comparison.policies}
    texts = {name: measured.texts(name) for name in names}
    reference = measured.rewards(REFERENCE)
    examples = []
    for p in chosen:
        responses = []
        for name, label in names.items():
            procedure = against if name == REFERENCE else decoded
            at = select(procedure, measured.read_by(procedure, name)[p], rng=rng)
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
