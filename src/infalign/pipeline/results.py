"""The results of a run: its comparison on held-out prompts, the theoretical values, and its
training log."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from infalign import storage
from infalign._look import Shown
from infalign.calibration.diagnostics import resolution
from infalign.calibration.outlook import AbstractOutlook, RankOutlook
from infalign.calibration.raw_reward import raw_beta, raw_win_rate
from infalign.comparison.comparison import REFERENCE
from infalign.comparison.figure_data import BINS
from infalign.comparison.measured import Measured
from infalign.comparison.summary import summarize
from infalign.core import (
    AbstractProcedure,
    AbstractTransform,
    RankProcedure,
    at_kl,
    quantiles,
    randomized_quantiles,
)
from infalign.core import design as exact_design
from infalign.errors import SolveError
from infalign.json_lines import read_rows
from infalign.methods import DESIGN, METHODS, OTHER, RAW, TrainingDesign, labels
from infalign.stores import CalibrationStore

from .doubts import doubts
from .folder import Run
from .read import open_store, read_calibrator, read_design, read_outlook, run_samples

__all__ = ["Theory", "has_metrics", "metrics_file", "summarize_run"]

LOGGED = {
    "step": "step",
    "kl": "infalign/sequence_kl",
    "reward": "reward",
    "quantile": "infalign/quantile",
    "saturated": "infalign/saturated",
    "beta": "infalign/beta",
    "win_rate": "infalign/win_rate",
    "frontier_gap": "infalign/frontier_gap",
}
"""Names, in the results, of the metrics that on-policy steps log."""


def summarize_run(run: Run, measured: Measured, selected: pa.Table) -> dict:
    """The results of a run whose policies have been sampled: the comparison, and the theoretical
    values and the training of the run's own methods.

    - `selected`: the responses that the policies select.
    """
    results = summarize(measured, selected, labels())
    store, design = open_store(run), read_design(run)
    theory = Theory(run, store, design, read_outlook(run, store))
    for policy in results["policies"]:
        policy |= theory.of(policy["method"], policy["kl"] and policy["kl"]["value"])
    edges = np.linspace(0, 1, BINS + 1)
    optimum = exact_design(run.procedure, kl=design.target_kl, against=run.against).policy
    results["quantile_density"]["optimal"] = (np.diff(optimum.cdf(edges)) * BINS).tolist()
    return {
        **results,
        "evidence": run.config.evidence,
        "target_kl": design.target_kl,
        "calibration": _calibration(run, measured, theory),
        "transform": _transform_curves(design.transform, store),
        "training": {m: _training(run, m) for m in run.config.methods if has_metrics(run, m)},
        "landing": {m: _landing(run, m) for m in run.config.methods},
    }


@dataclass(frozen=True)
class Theory(Shown):
    """The theoretical result of exact training on each method's own transform."""

    run: Run
    store: CalibrationStore
    design: TrainingDesign
    outlook: AbstractOutlook

    def of(self, name: str, kl: float | None) -> dict:
        """The transform that a policy was trained on, and its win rates in theory at its KL, of
        which there are none without a KL."""
        if name not in self.run.config.methods:
            return {"transform": "trained elsewhere", "theory": {}}
        # The path is relative to the run folder, which may be moved.
        trained = self.run.attempt(name).name
        own = {"model": f"train/{trained}/model", "trained": trained}
        trained_on = METHODS[name].trained_on
        if trained_on == OTHER:
            return own | {"transform": "none", "theory": {}}
        if trained_on == RAW:
            transform, win_rates = "raw reward", self._raw(kl)
        elif trained_on == DESIGN:
            transform, win_rates = self.run.config.transform, self._of(self.design.transform, kl)
        else:
            transform, win_rates = trained_on.spec, self._of(trained_on, kl)
        return own | {"transform": transform, "theory": win_rates}

    def _raw(self, kl: float | None) -> dict[str, float | None]:
        if kl is None:
            return {}
        beta = raw_beta(self.store, kl)
        return {
            spec: raw_win_rate(self.store, beta, procedure, against)
            for spec, (procedure, against) in self.run.comparison.theory_pairs.items()
            if isinstance(procedure, RankProcedure) and isinstance(against, RankProcedure)
        }

    def _of(self, transform: AbstractTransform, kl: float | None) -> dict[str, float | None]:
        if kl is None:
            return {}
        outlook = self.outlook if transform.bounded else RankOutlook(self.store.samples)
        return {
            spec: _win_rate(outlook, transform, kl, *pair)
            for spec, pair in self.run.comparison.theory_pairs.items()
        }


def _win_rate(
    outlook: AbstractOutlook,
    transform: AbstractTransform,
    kl: float,
    procedure: AbstractProcedure,
    against: AbstractProcedure,
) -> float | None:
    """Theoretical win rate with the run's calibrator and number of samples; for procedures that
    read quantiles, with exact quantiles. None if the samples are too few to express the KL."""
    if not isinstance(procedure, RankProcedure):
        return at_kl(transform, kl).win_rate(procedure, against)
    try:
        return outlook.achieved(transform, procedure, against, kl=kl).win_rate
    except SolveError:
        return None


def _calibration(run: Run, measured: Measured, theory: Theory) -> dict:
    """How well the calibration resolves quantiles.

    Quantiles of fresh reference samples must be uniform: half of each prompt's samples are ranked
    among the other half.
    """
    rows = run_samples(run, ["reward"]).matrix("reward")
    half = rows.shape[1] // 2
    rng = np.random.default_rng(run.seed("uniformity"))
    u = np.sort(randomized_quantiles(rows[:, half:], rows[:, :half], rng=rng), axis=None)
    saturated = {}
    for method in run.config.methods:
        q = quantiles(measured.rewards(method), measured.rewards(REFERENCE))
        saturated[method] = float(np.mean((q == 0) | (q == 1)))
    calibrator = read_calibrator(run)
    resolved = resolution(
        run.procedure,
        theory.design.target_kl,
        rows.shape[1],
        against=run.against,
        outlook=theory.outlook,
        calibrator=calibrator["name"],
    )
    return {
        "prompts": len(rows),
        "samples": rows.shape[1],
        "calibrator": calibrator,
        "advice": resolved.advice,
        "warnings": list(doubts(run, theory.store, theory.design)),
        "uniformity": np.histogram(u, BINS, (0, 1))[0].tolist(),
        # Kolmogorov-Smirnov distance of u from uniform, at the midpoints of the steps.
        "uniformity_deviation": float(np.abs(u - (np.arange(u.size) + 0.5) / u.size).max()),
        "saturated": saturated,
    }


def _transform_curves(transform: AbstractTransform, store: CalibrationStore) -> dict:
    """The transform and the raw reward over quantiles, both scaled to run from 0 to 1."""
    u = np.linspace(0, 1, 101)
    inside = u if transform.bounded else np.clip(u, 0.005, 0.995)
    grid = (np.arange(store.samples) + 0.5) / store.samples
    rows = [np.interp(u, grid, r[: store.samples]) for r in store.rewards.values()]
    return {
        "u": u.tolist(),
        "phi": _scaled(transform(inside)),
        "raw": _scaled(np.mean(rows, axis=0)),
    }


def _scaled(values: np.ndarray) -> list[float]:
    return ((values - values[0]) / (values[-1] - values[0])).tolist()


def metrics_file(run: Run, method: str) -> Path:
    """The log of on-policy steps; absent for offline methods."""
    return run.attempt(method) / "on_policy" / "metrics.jsonl"


def has_metrics(run: Run, method: str) -> bool:
    """Whether on-policy steps of the method have finished."""
    return metrics_file(run, method) in run.manifest


def _training(run: Run, method: str) -> dict:
    run.manifest.require(metrics_file(run, method))
    rows = read_rows(metrics_file(run, method))
    steps = [row for _, row in rows if LOGGED["kl"] in row]
    return {short: [row.get(name) for row in steps] for short, name in LOGGED.items()}


def _landing(run: Run, method: str) -> dict:
    """How the policy's KL was brought to the target: α, the KL there, and what was tried."""
    path = run.attempt(method) / "landing.json"
    run.manifest.require(path)
    return storage.read_json(path)
