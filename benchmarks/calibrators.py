"""Compare calibrators by the win rate of the policy that is trained on each, for few samples.

    python benchmarks/calibrators.py [--data FOLDER] [--rounds N] [--jobs N]

Writes benchmarks/calibrators.json, docs/calibrators.md and docs/images/calibrators_*.png. The first
run draws samples of the bundled models, which takes some ten minutes. They are stored in
benchmarks/cache with every finished case, so an interrupted run, or one with more rounds,
continues. After a change of the package's calibrators, remove case-*.json from that folder.
"""

import argparse
import hashlib
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from calibrator_report import figures, page
from calibrator_worlds import bundled_world, known_worlds, public_worlds
from scipy.special import logsumexp

from infalign import BestOfN, Exponential, Identity, WorstOfN, storage
from infalign.calibration import (
    Counting,
    NormalScores,
    Pooled,
    QuantileRegression,
    Refined,
    TailExtrapolation,
    choose,
)
from infalign.calibration.assessment import SampledWorld, Truth, achieved
from infalign.core import best_exponential
from infalign.errors import SolveError

ROOT = Path(__file__).parents[1]
KL = 0.5
TASKS = {
    "best-of-8": (BestOfN(8), Exponential(20.0)),
    "worst-of-8": (
        WorstOfN(8),
        Exponential(round(float(best_exponential(WorstOfN(8), KL).t), 1)),
    ),
}


@dataclass(frozen=True)
class Plan:
    """What is judged."""

    samples: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    prompts: int = 128
    rounds: int = 1
    bundled: int = 384
    """Samples of the bundled models, a prompt; 0 leaves them out."""


SMOKE = Plan(samples=(2, 4), prompts=12, rounds=1, bundled=0)


def worlds(plan: Plan, cache: Path, data: Path | None) -> dict:
    """All that is judged on, by name."""
    found = known_worlds(plan.prompts)
    if plan.bundled:
        found["bundled models"] = bundled_world(cache, plan.prompts, plan.bundled)
    if data is not None:
        found |= public_worlds(data)
    return found


def judged(world, samples: int, seed: int) -> dict:
    """Each prompt's win rates with K samples: by task, then by calibrator; those left out that
    cannot express the KL."""
    rng = np.random.default_rng(seed)
    rewards, truth, features = world.draw(samples, rng)
    fitted = {"identity": None, "exact": None, "counting": Counting().fit(rewards)}
    fitted |= {"tail": TailExtrapolation().fit(rewards), "pooled": Pooled().fit(rewards)}
    fitted["pooled-ranks"] = NormalScores(Pooled()).fit(rewards)
    if features is not None:
        fitted["regression"] = QuantileRegression().fit(rewards, features)
    choice = choose(rewards, features).name.replace("ecdf", "counting")
    found: dict = {"chosen": choice}
    for task, (procedure, transform) in TASKS.items():
        shaped = {
            name: truth.shaped(each, Identity() if name == "identity" else transform)
            for name, each in fitted.items()
        }
        refined = _refined(rewards, truth, fitted["counting"], shaped["counting"], task, rng)
        if refined is not None:
            shaped["refined"] = truth.shaped(refined, transform)
        found[task] = {}
        for name, value in shaped.items():
            try:
                own = achieved([truth], [value], procedure, procedure, kl=KL)
            except SolveError:
                continue
            found[task][name] = own.prompts.round(6).tolist()
        if choice in found[task]:
            found[task]["chosen"] = found[task][choice]
    return found


def _refined(rewards, truth: Truth, counting, shaped, task: str, rng):
    """Fitted to K samples of the policy beside: the one that was trained on counted quantiles."""
    procedure, transform = TASKS[task]
    try:
        beta = achieved([truth], [shaped], procedure, procedure, kl=KL).beta
    except SolveError:
        return None
    widths, exponents = np.diff(truth.edges), shaped / beta
    log_z = logsumexp(exponents, b=widths, axis=1, keepdims=True)
    mass = np.cumsum(widths * np.exp(exponents - log_z), axis=1)
    draws = rng.random(rewards.shape)
    cells = np.array([np.searchsorted(m, u) for m, u in zip(mass, draws, strict=True)])
    cells = np.minimum(cells, widths.size - 1)
    take = [np.take_along_axis(a, cells, axis=1) for a in (truth.rewards, exponents)]
    own = counting.shaped(np.arange(len(rewards)), rewards, transform) / beta - log_z
    return Refined(own, take[0], take[1] - log_z).fit(rewards)


def _case(name: str, samples: int, number: int, plan: Plan, cache: Path, data: Path | None):
    """One round of one world with K samples, from the cache where it has been judged before."""
    world = worlds(plan, cache, data)[name]
    if isinstance(world, SampledWorld) and samples > world.rewards.shape[1] // 2:
        return None  # at least half of the samples judge
    key = [name, samples, number, plan.prompts, plan.bundled, *map(str, TASKS.values())]
    path = cache / f"case-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.json"
    if not path.exists():
        found = judged(world, samples, seed=1000 * number + samples)
        storage.write_text(path, json.dumps(found))
        print(f"{name}, K = {samples}, round {number}", file=sys.stderr, flush=True)
    return json.loads(path.read_text())


def measure(plan: Plan, cache: Path, data: Path | None, jobs: int) -> dict:
    """All cases, rounds averaged; each round is saved when it is done."""
    names = list(worlds(plan, cache, data))  # draws what is not there yet
    keys = [(n, k, r) for r, k, n in product(range(plan.rounds), plan.samples, names)]
    with ProcessPoolExecutor(jobs) as pool:
        waiting = {key: pool.submit(_case, *key, plan, cache, data) for key in keys}
        found = {key: each.result() for key, each in waiting.items()}
    cases = []
    for name, samples in product(names, plan.samples):
        rounds = [found[name, samples, r] for r in range(plan.rounds)]
        if None not in rounds:
            cases.append({"world": name, "samples": samples, **_averaged(rounds)})
    tasks = {task: transform.spec for task, (_, transform) in TASKS.items()}
    return {"plan": asdict(plan), "tasks": tasks, "data": data is not None, "cases": cases}


def _averaged(rounds: list[dict]) -> dict:
    """Win rates over rounds and prompts, and what they are more than counting's and exact ones',
    paired; standard errors are those of prompts."""
    out: dict = {"chosen": [each["chosen"] for each in rounds]}
    for task in TASKS:
        names = [n for n in rounds[0][task] if all(n in each[task] for each in rounds)]
        wins = {n: np.mean([each[task][n] for each in rounds], axis=0) for n in names}
        out[task] = {name: _mean(own) for name, own in wins.items()}
        for name, own in wins.items():
            for word, base in (("over_counting", "counting"), ("over_exact", "exact")):
                if base in wins:
                    out[task][name][word] = _mean(own - wins[base])
    return out


def _mean(values: np.ndarray) -> dict:
    return {
        "value": float(values.mean()),
        "stderr": float(values.std(ddof=1) / np.sqrt(values.size)),
    }


def main() -> None:
    """Judge, save, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with samples/rewardbench_bon16, …")
    parser.add_argument("--rounds", type=int, help="how often samples are drawn anew")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--smoke", action="store_true", help="a tiny case, to test the script")
    parser.add_argument("--out", type=Path, default=ROOT, help="folder instead of the repository")
    arguments = parser.parse_args()

    data = arguments.data
    if data is not None and not (data / "samples").is_dir():
        print(f"{data} has no folder `samples`: public samples are skipped.", file=sys.stderr)
        data = None
    plan = SMOKE if arguments.smoke else Plan()
    if arguments.rounds:
        plan = replace(plan, rounds=arguments.rounds)
    out = arguments.out
    results = measure(plan, out / "benchmarks" / "cache", data, arguments.jobs)
    storage.write_text(
        out / "benchmarks" / "calibrators.json", json.dumps(results, indent=1) + "\n"
    )
    figures(results, out / "docs" / "images")
    storage.write_text(out / "docs" / "calibrators.md", page(results))
    print(page(results))


if __name__ == "__main__":
    main()
