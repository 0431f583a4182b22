"""What the samples say: win rates, KL and their errors, beside theory. One JSON schema."""

import numpy as np

from infalign import storage
from infalign.calibration.ranks import quantiles, randomized_quantiles
from infalign.calibration.raw import raw_beta, raw_win_rate
from infalign.calibration.store import read_samples
from infalign.design import at_kl
from infalign.design import design as solve_design
from infalign.evaluation.estimators import win_rate, win_rate_difference
from infalign.evaluation.marginal import marginal_kl
from infalign.evaluation.uncertainty import Estimate, over_prompts
from infalign.policies import TiltedPolicy
from infalign.procedures import Sampling
from infalign.training.labels import LABELS
from infalign.transforms import Identity, Probit

from .folder import Run
from .stages import open_store, read_design

SCHEMA_VERSION = 1
BINS = 20
EXAMPLES = 8


def summarize(run: Run) -> dict:
    """`evaluation/results.json` of a run whose policies have been sampled."""
    tables = {
        name: storage.read_table(run.folder / "evaluation" / f"{name}.parquet")
        for name in ("reference", *run.config.methods)
    }
    shape = (len(run.test_prompts), run.config.evaluate.samples)
    rewards = {name: t["reward"].to_numpy().reshape(shape) for name, t in tables.items()}
    reference = rewards["reference"]
    procedures = {"sampling": (Sampling(), Sampling())} | {
        run.config.procedure: (run.procedure, run.against)
    }
    store = open_store(run)
    transform, _, target = read_design(run)
    policies = []
    for method in run.config.methods:
        kl = over_prompts(np.nanmean(_column(tables[method], "kl").reshape(shape), axis=1))
        raw = method == "rlhf"
        if raw:
            beta = raw_beta(store, kl.value)
        else:
            policy = at_kl(transform, kl.value)
        policies.append(
            {
                "method": method,
                "label": LABELS[method],
                "transform": "raw reward" if raw else run.config.transform,
                "kl": _json(kl),
                "kl_efficiency": marginal_kl(rewards[method], reference) / kl.value,
                "mean_tokens": float(np.mean(_column(tables[method], "tokens"))),
                "mean_reward": float(rewards[method].mean()),
                "win_rates": {
                    name: _json(win_rate(rewards[method], reference, p, against=a))
                    for name, (p, a) in procedures.items()
                },
                "theory": {
                    name: raw_win_rate(store, beta, p, a) if raw else policy.win_rate(p, a)
                    for name, (p, a) in procedures.items()
                },
                "frontier": {
                    name: solve_design(p, kl=kl.value, against=a).win_rate
                    for name, (p, a) in procedures.items()
                },
            }
        )
    first, *others = run.config.methods
    return {
        "schema_version": SCHEMA_VERSION,
        "evidence": run.config.evidence,
        "procedure": run.config.procedure,
        "target_kl": target,
        "model": run.config.model,
        "reward": run.config.reward,
        "prompts": shape[0],
        "samples": shape[1],
        "policies": policies,
        "reference": {
            "mean_tokens": float(np.mean(_column(tables["reference"], "tokens"))),
            "mean_reward": float(reference.mean()),
        },
        "differences": [
            {
                "a": first,
                "b": other,
                "procedure": name,
                **_json(
                    win_rate_difference(rewards[first], rewards[other], reference, p, against=a)
                ),
            }
            for other in others
            for name, (p, a) in procedures.items()
        ],
        "frontier": {
            name: _frontier(p, a, max(x["kl"]["value"] for x in policies))
            for name, (p, a) in procedures.items()
        },
        "calibration": _calibration(run, {m: rewards[m] for m in run.config.methods}, reference),
        "transform": _transform_curves(transform, store),
        "quantile_density": _densities(run, rewards, transform, target),
        "training": {m: _training(run, m) for m in run.config.methods},
        "examples": _examples(run, tables, rewards, shape),
    }


def _json(estimate: Estimate) -> dict:
    finite = {k: getattr(estimate, k) for k in ("value", "stderr", "low", "high")}
    return {k: v if np.isfinite(v) else None for k, v in finite.items()}


def _column(table, name) -> np.ndarray:
    return table[name].to_numpy(zero_copy_only=False).astype(float)


def _frontier(procedure, against, reached: float) -> dict:
    kls = np.concatenate([[0.01], np.linspace(0.05, max(1.0, 1.3 * reached), 24)])
    curves = {
        "optimal": [solve_design(procedure, kl=k, against=against).win_rate for k in kls],
        "identity": [at_kl(Identity(), k).win_rate(procedure, against) for k in kls],
        "probit": [at_kl(Probit(), k).win_rate(procedure, against) for k in kls],
    }
    start = TiltedPolicy(Identity(), 1e9).win_rate(procedure, against)
    return {"kl": [0.0, *kls.tolist()]} | {name: [start, *c] for name, c in curves.items()}


def _calibration(run: Run, rewards: dict, reference: np.ndarray) -> dict:
    """Quantiles of held-out reference samples must be uniform: half of each prompt's samples are
    ranked among the other half."""
    samples = read_samples(run.folder / "calibration")["reward"].to_numpy()
    rows = samples.reshape(-1, run.config.calibration.samples)
    half = rows.shape[1] // 2
    rng = np.random.default_rng(run.seed("uniformity"))
    u = np.sort(randomized_quantiles(rows[:, half:], rows[:, :half], rng=rng), axis=None)
    saturated = {}
    for method, values in rewards.items():
        q = quantiles(values, reference)
        saturated[method] = float(np.mean((q == 0) | (q == 1)))
    return {
        "prompts": len(rows),
        "samples": rows.shape[1],
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


def _densities(run: Run, rewards: dict, transform, target: float) -> dict:
    edges = np.linspace(0, 1, BINS + 1)
    theory = at_kl(transform, target)
    densities = {"edges": edges.tolist(), "optimal": (np.diff(theory.cdf(edges)) * BINS).tolist()}
    rng = np.random.default_rng(run.seed("density"))
    for method in run.config.methods:
        u = randomized_quantiles(rewards[method], rewards["reference"], rng=rng)
        counts = np.histogram(u, edges)[0]
        densities[method] = (counts / counts.mean()).tolist()
    return densities


def _training(run: Run, method: str) -> dict:
    path = run.folder / "train" / method / "rloo" / "metrics.jsonl"
    names = {
        "step": "step",
        "kl": "infalign/sequence_kl",
        "reward": "reward",
        "quantile": "infalign/quantile",
        "beta": "infalign/beta",
    }
    rows = storage.read_json_lines(path) if path.exists() else []
    rows = [r for r in rows if "infalign/sequence_kl" in r]
    return {short: [r.get(name) for r in rows] for short, name in names.items()}


def _examples(run: Run, tables: dict, rewards: dict, shape) -> list[dict]:
    """What decoding kept of each policy's first draws, on a few held-out prompts."""
    rng = np.random.default_rng(run.seed("examples"))
    chosen = np.sort(rng.choice(shape[0], min(EXAMPLES, shape[0]), replace=False))
    labels = {"reference": "Reference", **LABELS}
    texts = {
        name: np.array(t["completion"].to_pylist(), object).reshape(shape)
        for name, t in tables.items()
    }
    examples = []
    for p in chosen:
        responses = []
        for name in tables:
            procedure = run.against if name == "reference" else run.procedure
            first = rewards[name][p, : procedure.draws]
            at = kept(procedure, first)
            q = quantiles([[first[at]]], rewards["reference"][[p]])[0, 0]
            responses.append(
                {
                    "policy": name,
                    "label": labels[name],
                    "text": texts[name][p, at],
                    "quantile": float(q),
                }
            )
        prompt = run.test_prompts[p]
        examples.append({"prompt_id": prompt.id, "prompt": prompt.text, "responses": responses})
    return examples


def kept(procedure, rewards: np.ndarray) -> int:
    """Which of the responses with these rewards `procedure` keeps; the likeliest if it is random.

    >>> from infalign import BestOfN
    >>> kept(BestOfN(3), np.array([1.0, 5.0, 2.0]))
    1
    """
    place = np.diff(procedure.subset_cdf(rewards.size)).argmax()
    return int(np.argsort(rewards, kind="stable")[place])
