"""How near trained policies come to theory's frontier: every method, several KLs, bundled models.

    python benchmarks/frontier.py [--smoke] [--out FOLDER] [--work FOLDER]

Writes benchmarks/frontier.json, docs/frontier.md and its figure. One calibration serves all. Runs
are ordinary ones in the work folder: killed, the next call continues. About an hour on two cores.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from one_calibration import begin

import infalign as ia
from infalign import storage
from infalign.config import parse_config
from infalign.core import parse_procedure
from infalign.methods import METHODS
from infalign.pipeline.run import run
from infalign.reports import drawing

ROOT = Path(__file__).parents[1]
LANDS = 0.05
"""Greatest relative distance of a policy's KL on held-out prompts from the KL asked for."""

EVERY = (
    "rloo", "grpo", "group", "likelihood", "regression", "identity", "rlhf",
    "vbon", "pkpo", "rs-grpo", "qrpo", "ipo", "dpo", "bonbon",
)  # fmt: skip
MAIN = ("likelihood", "rlhf")


@dataclass(frozen=True)
class Case:
    """Methods that are trained for one procedure and one KL."""

    procedure: str
    kl: float
    methods: tuple[str, ...]
    seed: int = 0


@dataclass(frozen=True)
class Plan:
    """What is trained and measured."""

    cases: tuple[Case, ...]
    prompts: int = 448
    samples: int = 32
    max_new_tokens: int = 32
    steps: int = 10
    batch_size: int = 256
    group: int = 16
    tested: int = 128
    judged: int = 32


FULL = Plan(
    (
        Case("best-of-n:8", 0.5, EVERY),
        *(Case("best-of-n:8", kl, MAIN) for kl in (0.25, 1.0, 2.0)),
        *(Case("worst-of-n:4", kl, MAIN) for kl in (0.5, 1.0)),
    )
)
SMOKE = Plan((Case("best-of-n:2", 0.2, ("likelihood", "rlhf")),), 16, 8, 4, 0, 16, 4, 8, 8)


def configuration(plan: Plan, case: Case) -> dict:
    """A run of one case; step sizes are the demonstration's."""
    smoke = plan.prompts < 100
    return {
        "model": "bundled:language-model",
        "reward": "bundled:harmless",
        "prompts": {"file": "bundled:harmless", "limit": plan.prompts},
        "procedure": case.procedure,
        "kl": case.kl,
        "sampling": {
            "temperature": 0.7,
            "max_new_tokens": plan.max_new_tokens,
            "batch_size": 512,
        },
        "calibration": {"samples": plan.samples, "calibrator": "pooled-ranks"},
        "train": {
            "method": case.methods[0],
            "baselines": list(case.methods[1:]),
            "passes": 1,
            "warm_start_learning_rate": 1e-3 if smoke else 3e-5,
            "learning_rate": 2e-5,
            "steps": plan.steps,
            "batch_size": plan.batch_size,
            "group": plan.group,
            "validation": 0.25,
        },
        "evaluate": {
            "prompts": {"split": "test", "limit": plan.tested},
            "samples": plan.judged,
        },
        "evidence": not smoke,
    }


def measure(plan: Plan, work: Path) -> list[dict]:
    """A row for each policy."""
    rows, first = [], None
    for case in plan.cases:
        name = f"{case.procedure.replace(':', '-')}_{case.kl:g}"
        config, folder = parse_config(configuration(plan, case)), work / name
        first = first or folder
        begin(config, folder, first)
        run(config, folder, report=_told(name))
        rows += _rows(case, folder)
    return rows


def _told(name: str):
    last = []

    def report(what, done, total):
        if done == total and last[-1:] != [what]:
            last.append(what)
            print(f"{name}: {what}", flush=True)

    return report


def _rows(case: Case, folder: Path) -> list[dict]:
    results = json.loads((folder / "evaluation/results.json").read_text())
    found = []
    for policy in results["policies"]:
        won, method = policy["win_rates"][case.procedure], policy["method"]
        landing = json.loads((folder / "train" / method / "landing.json").read_text())
        kl = policy["kl"]["value"]
        found.append({
            "procedure": case.procedure,
            "target": landing["target"],
            "method": method,
            "kl": kl,
            "kl_stderr": policy["kl"]["stderr"],
            "landed": landing["kl"],
            "alpha": landing["alpha"],
            "win_rate": won["value"],
            "stderr": won["stderr"],
            "sampling": policy["win_rates"]["sampling"]["value"],
            "efficiency": policy["kl_efficiency"],
            "frontier": policy["frontier"][case.procedure],
            "theory": policy["theory"].get(case.procedure),
        })  # fmt: skip
    return found


def page(results: dict) -> str:
    """The results as a page of Markdown."""
    plan, rows = results["plan"], results["rows"]
    near = [abs(r["kl"] / r["target"] - 1) <= LANDS for r in rows]
    found = [abs(r["landed"] / r["target"] - 1) <= LANDS for r in rows]
    lines = [
        "# Policies and the frontier",
        "",
        "Written by `python benchmarks/frontier.py`; nothing here is typed by hand.",
        "",
        f"Bundled models, harmlessness reward; {plan['prompts']} prompts × {plan['samples']} "
        f"calibration samples, of which a quarter of the prompts are kept aside to land on. "
        f"Offline methods pass once over the samples; on-policy methods are warm-started by a pass "
        f"and take {plan['steps']} steps of {plan['batch_size']} responses. Measured on "
        f"{plan['tested']} held-out prompts × {plan['judged']} responses; ± standard errors. "
        "*Efficiency*: the KL of the quantiles as a share of the policy's KL. *Frontier*: the best "
        "that any policy can win at that KL. *Theory*: exact training on the method's own reward, "
        "at that KL.",
        "",
        f"**The KL asked for.** On the prompts kept aside {sum(found)} of {len(found)} policies "
        f"are within {LANDS:.0%} of it; on the held-out prompts, measured anew, {sum(near)} of "
        f"{len(near)}.",
        "",
        "![Win rates beside the frontier](images/frontier.png)",
    ]
    for procedure in dict.fromkeys(r["procedure"] for r in rows):
        lines += ["", f"## {procedure}", ""]
        lines += [
            "| KL asked for | method | KL | efficiency | win rate, % | theory | frontier "
            "| below it |",
            "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        own = [r for r in rows if r["procedure"] == procedure]
        for r in sorted(own, key=lambda r: (r["target"], r["frontier"] - r["win_rate"])):
            theory = "" if r["theory"] is None else f"{100 * r['theory']:.1f}"
            lines.append(
                f"| {r['target']:g} | {METHODS[r['method']].label} "
                f"| {r['kl']:.3f} ± {r['kl_stderr']:.3f} | {r['efficiency']:.0%} "
                f"| {100 * r['win_rate']:.1f} ± {100 * r['stderr']:.1f} | {theory} "
                f"| {100 * r['frontier']:.1f} | {100 * (r['frontier'] - r['win_rate']):.1f} |"
            )
    return "\n".join(lines) + "\n"


@matplotlib.rc_context(drawing.STYLE)
def figure(rows: list[dict]) -> Figure:
    """Policies beside the frontier, a panel for each procedure."""
    procedures = list(dict.fromkeys(r["procedure"] for r in rows))
    drawn = Figure((drawing.WIDTH, 3.4), layout="constrained")
    axes = drawn.subplots(1, len(procedures), squeeze=False)[0]
    methods = list(dict.fromkeys(r["method"] for r in rows))
    for ax, spec in zip(axes, procedures, strict=True):
        own = [r for r in rows if r["procedure"] == spec]
        kls = np.geomspace(0.05, 1.15 * max(r["kl"] for r in own), 25)
        best = [ia.design(parse_procedure(spec), kl=kl).win_rate for kl in kls]
        ax.plot(kls, 100 * np.array(best), color=drawing.INK, lw=1.2, label="frontier")
        for r in own:
            main = r["method"] in MAIN
            color = drawing.PALETTE[MAIN.index(r["method"])] if main else drawing.MUTED
            ax.errorbar(
                r["kl"], 100 * r["win_rate"], 196 * r["stderr"], 1.96 * r["kl_stderr"],
                fmt=drawing.MARKERS[MAIN.index(r["method"])] if main else ".",
                color=color, ms=5, lw=0.9, zorder=3 if main else 2,
            )  # fmt: skip
        ax.set(title=spec, xlabel="KL, nats per sequence", xscale="log")
        ax.set_xticks([0.1, 0.25, 0.5, 1, 2], ["0.1", "0.25", "0.5", "1", "2"])
        ax.minorticks_off()
    axes[0].set_ylabel("win rate on held-out prompts, %")
    for i, method in enumerate(m for m in MAIN if m in methods):
        axes[0].plot(
            [], [], drawing.MARKERS[i], color=drawing.PALETTE[i], label=METHODS[method].label
        )
    if set(methods) - set(MAIN):
        axes[0].plot([], [], ".", color=drawing.MUTED, label="other methods")
    drawn.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=4)
    return drawn


def main() -> None:
    """Train what is not trained yet, keep the figures, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="small and quick: does it run")
    parser.add_argument("--out", type=Path, default=ROOT, help="folder to write into")
    parser.add_argument("--work", type=Path, default=ROOT / "work/frontier", help="run folders")
    options = parser.parse_args()
    plan = SMOKE if options.smoke else FULL
    rows = measure(plan, options.work)
    stated = {k: v for k, v in vars(plan).items() if k != "cases"}
    results = {"plan": stated, "rows": rows}
    storage.write_json(options.out / "benchmarks/frontier.json", results)
    target = options.out / "docs"
    (target / "images").mkdir(parents=True, exist_ok=True)
    figure(rows).savefig(target / "images/frontier.png", dpi=160)
    storage.write_text(target / "frontier.md", page(results))
    print(page(results), end="")


if __name__ == "__main__":
    main()
