"""KL targeting by reweighting one set of responses, beside a fresh set for every measurement.

    python benchmarks/landing.py [--smoke] [--out FOLDER]

Writes benchmarks/landing.json and docs/landing-benchmarks.md, in a quarter of an hour of one core.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np

ROOT = Path(__file__).parents[1]
FRESH = 2.0
"""No share of responses that count reaches it, so that every KL is measured on a fresh set."""

WAYS = {"reweighted": None, "fresh": FRESH}
"""The share of responses that has to count in each way. None: the package's own."""

PAGE = """# KL targeting by reweighting

`make landing` trains each method on the bundled model and brings it to each KL in two ways: as the
package does, where responses of nearby policies measure the KL with importance weights, and with a
fresh set of {responses:,} responses for every measurement. Then {check:,} responses with another
seed measure the KL of each policy again, on the same prompts. Where the first set meets the target,
both ways are the same.

| method | target | reweighted | again | off by | sets | s | fresh | again | off by | sets | s |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|
{rows}

± is one standard error over prompts. *Off by*: the KL measured again, less the target, in percent.
*Sets*: of the measurements, those that needed new responses. The root mean square of all *off by*
is {off[reweighted]} % with reweighting and {off[fresh]} % with fresh sets. Their standard error
over prompts is {noise} %, of which both measurements share a part. Reweighting takes {time} % of
the processor time.

{prompts} prompts, responses of up to {tokens} tokens; {processor}, one core, infalign {version}.
"""


@dataclass(frozen=True)
class Plan:
    """The size of the measurement."""

    methods: tuple[str, ...] = ("rloo", "ipo")
    targets: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    prompts: int = 256
    samples: int = 16
    tokens: int = 24
    steps: int = 8
    responses: int = 1024
    check: int = 4096
    """Responses that measure a landed policy."""


SMOKE = Plan(("ipo",), (0.2,), 40, 4, 4, 0, 64, 64)


def configuration(plan: Plan) -> dict:
    """The run that trains the methods."""
    method, *others = plan.methods
    return {
        "model": "bundled:language-model",
        "reward": "bundled:helpful",
        "prompts": {"file": "bundled:helpful", "limit": plan.prompts},
        "procedure": "best-of-n:4",
        "kl": plan.targets[len(plan.targets) // 2],
        "sampling": {"max_new_tokens": plan.tokens, "batch_size": 256},
        "calibration": {"samples": plan.samples, "calibrator": "ecdf"},
        "train": {
            "method": method,
            "baselines": others,
            "passes": 2,
            "warm_start": 2,
            "warm_start_learning_rate": 1e-4,
            "steps": plan.steps,
            "batch_size": 64,
            "learning_rate": 5e-5,
            "kl_responses": plan.responses,
        },
        "evidence": False,
    }


def measure(plan: Plan) -> dict:
    """Every landing of every method, both ways."""
    import infalign
    from infalign.config import parse_config
    from infalign.pipeline.run import run

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        trained = run(parse_config(configuration(plan)), Path(folder) / "run", until="train")
        for method in plan.methods:
            for target in plan.targets:
                row: dict = {"method": method, "target": target}
                for way, counting in WAYS.items():
                    out = Path(folder) / f"{method}-{target:g}-{way}"
                    row[way] = landed(trained, method, target, counting, out, plan)
                rows.append(row)
                print(json.dumps(row), flush=True)
    return {
        "plan": asdict(plan),
        "processor": platform.processor() or platform.machine(),
        "infalign": infalign.__version__,
        "rows": rows,
    }


def landed(trained, method: str, target: float, counting, out: Path, plan: Plan) -> dict:
    """One landing, what it took, and the KL of its policy on fresh responses."""
    from infalign import storage
    from infalign.manifest import Manifest, Stage
    from infalign.training import landing
    from infalign.training.policy import PARTS
    from infalign.training.recipe import Recipe

    recipe = Recipe.of(trained.config, trained.model_path)
    parts = [trained.attempt(method) / part / "model" for part in reversed(PARTS)]
    weights = next(part for part in parts if part.exists())
    prompts = trained.prompts[recipe.train.trained_prompts(len(trained.prompts)) :]
    stage = Stage(Manifest(out), "landing", {})
    began = time.process_time()
    with patch.object(landing, "COUNTING", landing.COUNTING if counting is None else counting):
        landing.land(
            recipe,
            weights,
            prompts,
            target,
            seed=1,
            out=out,
            stage=stage,
            report=lambda done, total: None,
        )
    seconds = time.process_time() - began
    found = storage.read_json(out / landing.LANDING)
    more = replace(recipe, train=recipe.train.model_copy(update={"kl_responses": plan.check}))
    path = landing._Path(more, weights)
    tries = landing._Tries(path, more, prompts, 2, out / "check", stage)
    tries.kl(found["alpha"])
    check = tries.measured[found["alpha"]]
    return {
        "alpha": found["alpha"],
        "kl": found["kl"],
        "stderr": found["stderr"],
        "share": found["effective_share"],
        "measurements": len(found["tried"]),
        "sets": len(found["drawn"]),
        "seconds": round(seconds, 2),
        "checked": check.kl,
        "checked_stderr": check.stderr,
    }


def page(results: dict) -> str:
    """The page of the results."""
    rows, plan = results["rows"], results["plan"]
    off, seconds, noise = {}, {}, []
    for way in WAYS:
        off[way] = _percent(row[way]["checked"] / row["target"] - 1 for row in rows)
        noise += [row[way]["checked_stderr"] / row["target"] for row in rows]
        seconds[way] = sum(row[way]["seconds"] for row in rows)
    lines = [
        " ".join(
            ["|", row["method"], "|", f"{row['target']:g}", "|"]
            + [_cells(row[way], row["target"]) for way in WAYS]
        )
        for row in rows
    ]
    return PAGE.format(
        responses=plan["responses"],
        check=plan["check"],
        rows="\n".join(lines),
        off=off,
        noise=_percent(noise),
        time=f"{100 * seconds['reweighted'] / seconds['fresh']:.0f}",
        prompts=plan["prompts"],
        tokens=plan["tokens"],
        processor=results["processor"],
        version=results["infalign"],
    )


def _percent(errors: Iterable[float]) -> str:
    """The root mean square."""
    return f"{100 * np.sqrt(np.mean(np.square(list(errors)))):.1f}"


def _cells(way: dict, target: float) -> str:
    return (
        f"{way['kl']:.3f} ± {way['stderr']:.3f} | {way['checked']:.3f} ± "
        f"{way['checked_stderr']:.3f} | {100 * (way['checked'] / target - 1):+.1f} % "
        f"| {way['sets']} of {way['measurements']} | {way['seconds']:.0f} |"
    )


def main() -> None:
    """Measure, save and print the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny case, to test the script")
    parser.add_argument("--out", type=Path, default=ROOT, help="folder instead of the repository")
    arguments = parser.parse_args()

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported
    results = measure(SMOKE if arguments.smoke else Plan())
    for folder in ("benchmarks", "docs"):
        (arguments.out / folder).mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1) + "\n"
    (arguments.out / "benchmarks" / "landing.json").write_text(text)
    (arguments.out / "docs" / "landing-benchmarks.md").write_text(page(results), encoding="utf-8")
    print(page(results))


if __name__ == "__main__":
    main()
