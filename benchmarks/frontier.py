"""Win rates of trained policies beside the frontier: every method, several KLs, bundled models.

    python benchmarks/frontier.py [--smoke] [--out FOLDER] [--work FOLDER]

Writes benchmarks/frontier.json, docs/frontier.md and its figure. One calibration serves all. Runs
are ordinary ones in the work folder; after a kill the next call continues. An hour on two cores.
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
CLOSE_TO_TARGET = 0.05
"""Largest relative distance of a policy's KL from its target that counts as on target."""

EVERY = tuple(METHODS)
MAIN = ("likelihood", "rlhf")


@dataclass(frozen=True)
class Case:
    """Methods that are trained for one procedure and one KL."""

    procedure: str
    kl: float
    methods: tuple[str, ...]
    seed: int = 0


@dataclass(frozen=True)
class Sizes:
    """Sizes of what is trained and measured."""

    cases: tuple[Case, ...]
    prompts: int = 448
    samples: int = 32
    max_new_tokens: int = 32
    steps: int = 10
    batch_size: int = 256
    group: int = 16
    tested: int = 128
    judged: int = 32


FULL = Sizes(
    (
        Case("best-of-n:8", 0.5, EVERY),
        *(Case("best-of-n:8", kl, MAIN) for kl in (0.25, 1.0, 2.0)),
        *(Case("worst-of-n:4", kl, MAIN) for kl in (0.5, 1.0)),
    )
)
SMOKE = Sizes((Case("best-of-n:2", 0.2, ("likelihood", "rlhf")),), 16, 8, 4, 0, 16, 4, 8, 8)


def configuration(sizes: Sizes, case: Case) -> dict:
    """A run of one case; step sizes are the demonstration's."""
    smoke = sizes.prompts < 100
    return {
        "model": "bundled:language-model",
        "reward": "bundled:harmless",
        "prompts": {"file": "bundled:harmless", "limit": sizes.prompts},
        "procedure": case.procedure,
        "kl": case.kl,
        "sampling": {
            "temperature": 0.7,
            "max_new_tokens": sizes.max_new_tokens,
            "batch_size": 512,
        },
        "calibration": {"samples": sizes.samples, "calibrator": "pooled-ranks"},
        "train": {
            "method": case.methods[0],
            "baselines": list(case.methods[1:]),
            "passes": 1,
            "warm_start_learning_rate": 1e-3 if smoke else 3e-5,
            "learning_rate": 2e-5,
            "steps": sizes.steps,
            "batch_size": sizes.batch_size,
            "group": sizes.group,
            "validation": 0.25,
        },
        "evaluate": {
            "prompts": {"split": "test", "limit": sizes.tested},
            "samples": sizes.judged,
        },
        "evidence": not smoke,
    }


def measure(sizes: Sizes, work: Path) -> list[dict]:
    """A row for each policy."""
    rows, first = [], None
    for case in sizes.cases:
        name = f"{case.procedure.replace(':', '-')}_{case.kl:g}"
        config, folder = parse_config(configuration(sizes, case)), work / name
        first = first or folder
        begin(config, folder, first)
        run(config, folder, report=_print_tasks(name))
        rows += _rows(case, folder)
    return rows


def _print_tasks(name: str):
    last = []

    def report(what, done, total):
        if done == total and last[-1:] != [what]:
            last.append(what)
            print(f"{name}: {what}", flush=True)

    return report


def _rows(case: Case, folder: Path) -> list[dict]:
    results = json.loads((folder / "evaluation/results.json").read_text())
    rows = []
    for policy in results["policies"]:
        won, method = policy["win_rates"][case.procedure], policy["method"]
        landing = json.loads((folder / "train" / method / "landing.json").read_text())
        kl = policy["kl"]["value"]
        rows.append({
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
    return rows


def page(results: dict) -> str:
    """The results as a page of Markdown."""
    plan, rows = results["plan"], results["rows"]
    near = [abs(r["kl"] / r["target"] - 1) <= CLOSE_TO_TARGET for r in rows]
    on_target = [abs(r["landed"] / r["target"] - 1) <= CLOSE_TO_TARGET for r in rows]
    lines = [
        "# Trained policies and the frontier",
        "",
        "Generated by `python benchmarks/frontier.py`.",
        "",
        f"Bundled models, harmlessness reward, {plan['prompts']} prompts × {plan['samples']} "
        "calibration samples. A quarter of the prompts is held out from training, for validation "
        "and KL targeting. Offline methods make one pass over the samples; on-policy methods start "
        f"from such a pass and take {plan['steps']} steps of {plan['batch_size']} responses. "
        f"Results are measured on {plan['tested']} held-out prompts × {plan['judged']} responses; "
        "± are standard errors. *Efficiency*: the KL of the quantiles as a share of the policy's "
        "KL. *Frontier*: "
        "the highest win rate that any policy can reach at that KL. *Theory*: the win rate of "
        "exact training on the method's own reward at that KL.",
        "",
        f"**Target KL.** On the validation prompts {sum(on_target)} of {len(rows)} policies are "
        f"within {CLOSE_TO_TARGET:.0%} of the target; on the held-out prompts {sum(near)} of "
        f"{len(rows)}.",
        "",
        "![Win rates and the frontier](images/frontier.png)",
    ]
    for procedure in dict.fromkeys(r["procedure"] for r in rows):
        lines += ["", f"## {procedure}", ""]
        lines += [
            "| target KL | method | KL | efficiency | win rate, % | theory | frontier | distance |",
            "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        own = [r for r in rows if r["procedure"] == procedure]
        for r in sorted(own, key=lambda r: (r["target"], r["frontier"] - r["win_rate"])):
            theory = "" if r["theory"] is None else f"{100 * r['theory']:.1f}"
            shown = "too few" if r["efficiency"] is None else f"{r['efficiency']:.0%}"
            lines.append(
                f"| {r['target']:g} | {METHODS[r['method']].label} "
                f"| {r['kl']:.3f} ± {r['kl_stderr']:.3f} | {shown} "
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
    sizes = SMOKE if options.smoke else FULL
    rows = measure(sizes, options.work)
    stated = {k: v for k, v in vars(sizes).items() if k != "cases"}
    results = {"plan": stated, "rows": rows}
    storage.write_json(options.out / "benchmarks/frontier.json", results)
    target = options.out / "docs"
    (target / "images").mkdir(parents=True, exist_ok=True)
    figure(rows).savefig(target / "images/frontier.png", dpi=160)
    storage.write_text(target / "frontier.md", page(results))
    print(page(results), end="")


if __name__ == "__main__":
    main()
