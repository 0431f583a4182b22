"""The results of a run: its comparison on held-out prompts, beside theory and how it got there."""

from pathlib import Path

import numpy as np

from infalign import storage
from infalign.calibration.diagnostics import resolution
from infalign.calibration.expected import Counted
from infalign.calibration.raw_reward import raw_beta, raw_win_rate
from infalign.comparison.comparison import REFERENCE
from infalign.comparison.figure_data import BINS
from infalign.comparison.measured import Measured
from infalign.comparison.summary import summarize
from infalign.core import (
    Identity,
    Log,
    RankProcedure,
    at_kl,
    design,
    quantiles,
    randomized_quantiles,
)
from infalign.errors import SolveError
from infalign.stores import samples_of
from infalign.training.labels import LABELS

from .folder import Run
from .read import open_store, read_design, read_expected


def summarize_run(run: Run, measured: Measured) -> dict:
    """`evaluation/results.json` of a run whose policies have been sampled: the comparison, and
    beside it what theory says of the run's own transform."""
    results = summarize(measured, LABELS)
    store = open_store(run)
    transform, _, target = read_design(run)
    expected = read_expected(run, store)
    for policy in results["policies"]:
        policy |= _theory(run, store, transform, expected, policy)
    edges = np.linspace(0, 1, BINS + 1)
    best = design(run.procedure, kl=target, against=run.against).policy
    optimal = np.diff(best.cdf(edges)) * BINS
    results["quantile_density"]["optimal"] = optimal.tolist()
    return {
        **results,
        "evidence": run.config.evidence,
        "target_kl": target,
        "calibration": _calibration(run, measured, expected, target),
        "transform": _transform_curves(transform, store),
        "training": {m: _training(run, m) for m in run.config.methods if _metrics(run, m).exists()},
    }


def _theory(run: Run, store, transform, expected, policy: dict) -> dict:
    """What training without loss gives at the policy's own KL, where this run trained it."""
    method = policy["method"]
    if method not in run.config.methods:
        return {"transform": "trained elsewhere", "theory": {}}
    own = {"model": f"train/{method}/model"}  # wherever the run folder is moved
    kl = policy["kl"]["value"]
    pairs = list(run.comparison.theory_pairs.items())
    if method == "rlhf":
        beta = raw_beta(store, kl)
        theory = {
            spec: raw_win_rate(store, beta, p, a)
            for spec, (p, a) in pairs
            if isinstance(p, RankProcedure) and isinstance(a, RankProcedure)
        }
        return own | {"transform": "raw reward", "theory": theory}
    trained_on = {
        **dict.fromkeys(("rloo", "grpo", "likelihood", "regression"), transform),
        **dict.fromkeys(("identity", "qrpo", "ipo"), Identity()),
        "vbon": Log(),
    }.get(method)
    if trained_on is None:
        return own | {"transform": "none", "theory": {}}
    if not trained_on.bounded:
        expected = Counted(store.samples)
    theory = {spec: _with_samples(expected, trained_on, kl, *pair) for spec, pair in pairs}
    name = run.config.transform if trained_on is transform else trained_on.spec
    return own | {"transform": name, "theory": theory}


def _with_samples(expected, transform, kl: float, procedure, against) -> float | None:
    """Win rate by theory with the run's calibrator and number of samples; of procedures that read
    quantiles with exact ones. None where so few samples cannot express the KL."""
    if not isinstance(procedure, RankProcedure):
        return at_kl(transform, kl).win_rate(procedure, against)
    try:
        return expected.achieved(transform, procedure, against, kl=kl).win_rate
    except SolveError:
        return None


def _calibration(run: Run, measured: Measured, expected, kl: float) -> dict:
    """Quantiles of held-out reference samples must be uniform: half of each prompt's samples are
    ranked among the other half."""
    ids = [p.id for p in run.prompts]
    rows = samples_of(run.folder / "calibration", ids, ["reward"]).matrix("reward")
    half = rows.shape[1] // 2
    rng = np.random.default_rng(run.seed("uniformity"))
    u = np.sort(randomized_quantiles(rows[:, half:], rows[:, :half], rng=rng), axis=None)
    saturated = {}
    for method in run.config.methods:
        q = quantiles(measured.rewards(method), measured.rewards(REFERENCE))
        saturated[method] = float(np.mean((q == 0) | (q == 1)))
    calibrator = storage.read_json(run.folder / "design.json")["calibrator"]
    outlook = resolution(
        run.procedure,
        kl,
        rows.shape[1],
        against=run.against,
        outlook=expected,
        calibrator=calibrator["name"],
    )
    return {
        "prompts": len(rows),
        "samples": rows.shape[1],
        "calibrator": calibrator,
        "advice": outlook.advice,
        "uniformity": np.histogram(u, BINS, (0, 1))[0].tolist(),
        "uniformity_deviation": float(np.abs(u - (np.arange(u.size) + 0.5) / u.size).max()),
        "saturated": saturated,
    }


def _transform_curves(transform, store) -> dict:
    u = np.linspace(0, 1, 101)
    inside = np.clip(u, 0.005, 0.995) if not transform.bounded else u
    phi = transform(inside)
    grid = (np.arange(store.samples) + 0.5) / store.samples
    rows = [np.interp(u, grid, r[: store.samples]) for r in store.rewards.values()]
    return {
        "u": u.tolist(),
        "phi": ((phi - phi[0]) / (phi[-1] - phi[0])).tolist(),
        "raw": _scaled(np.mean(rows, axis=0)),
    }


def _scaled(values: np.ndarray) -> list[float]:
    return ((values - values[0]) / (values[-1] - values[0])).tolist()


def _metrics(run: Run, method: str) -> Path:
    """What on-policy steps logged, if the method has any."""
    return run.folder / "train" / method / "on_policy" / "metrics.jsonl"


def _training(run: Run, method: str) -> dict:
    names = {
        "step": "step",
        "kl": "infalign/sequence_kl",
        "reward": "reward",
        "quantile": "infalign/quantile",
        "saturated": "infalign/saturated",
        "beta": "infalign/beta",
        "win_rate": "infalign/win_rate",
        "frontier_gap": "infalign/frontier_gap",
    }
    rows = storage.read_json_lines(_metrics(run, method))
    rows = [r for r in rows if "infalign/sequence_kl" in r]
    return {short: [r.get(name) for r in rows] for short, name in names.items()}
