"""The page and the plot of the ablations, from their results."""

import textwrap
from pathlib import Path

import matplotlib
import numpy as np
from exact_page import rows_of
from matplotlib.figure import Figure

from infalign import storage
from infalign.reports import drawing
from infalign.reports.drawing import STYLE, WIDTH

KL = 0.5
SAMPLES = (4, 16, 64)
SAMPLED = ("best-of-n:4", "best-of-n:8", "best-of-n:32", "worst-of-n:4")
SIZES = (1, 2, 4, 8, 16, 32)
STRENGTHS = (-40, -20, -10, -5, -2, 0, 2, 5, 10, 20, 40, 80, 160)
"""Exponents t of the exponential transform; 0 is the identity."""
PROCEDURES = (
    "sampling",
    "best-of-n:2",
    "best-of-n:4",
    "best-of-n:8",
    "best-of-n:32",
    "best-of-poisson:4",
    "worst-of-n:2",
    "worst-of-n:4",
    "worst-of-n:16",
    "order-statistic:8:4",
)

PAGE = """# Ablations

What is each choice of the method worth? `make evidence-ablations` writes this page. Win rates are
in percent at {kl:g} nats, each procedure against itself. *Theory* is exact, for a continuous
reward. *Real rewards* are those of {prompts} prompts with {responses} responses of the bundled
policy each, finite worlds in which a policy's win rate is known exactly. ± is half the
width of a 95 % interval over prompts. No policy is trained: "designed for" means the optimum for
that procedure.

![Losses by exponent, size and procedure](ablations.png)

## Reference samples, K

The highest win rate in theory when a prompt's quantiles come from K samples, as plain ranks:

{samples}

## Calibrator

On real rewards: the transform of K responses' quantiles, judged on {held_out} other responses of
the same prompts. *All* knows the quantiles of the responses that it is judged on. In parentheses is
the difference to `ecdf`, paired by prompt.

{calibrators}

## Exponent

Points of win rate that e^(tu) loses to the optimum, in theory; t = 0 is the calibrated reward:

{exponents}

{best_exponents}

## Designed for n, deployed with another

Points that the design for best-of-n (rows) loses to the design for the best-of-n that is deployed
(columns), on real rewards; in parentheses in theory:

{sizes}

## Designed for one procedure, deployed with another

As above, for other procedures:

{procedures}

{worst}
"""


def write(results: dict, out: Path) -> None:
    """Write OUT/ablations.md and OUT/ablations.png."""
    drawing.save_png(figure(results), out / "ablations.png")
    sizes = [f"best-of-n:{n}" for n in SIZES]
    page = PAGE.format(
        kl=KL,
        **{name: results[name] for name in ("prompts", "responses", "held_out")},
        samples=samples(results["samples"]),
        calibrators=calibrators(results["calibrators"]),
        exponents=exponents(results["exponents"]),
        best_exponents=best_exponents(results["exponents"]),
        sizes=crossed(results["sizes"], sizes),
        procedures=crossed(results["procedures"], list(PROCEDURES)),
        worst=worst(results["procedures"]),
    )
    storage.write_text(out / "ablations.md", page)
    print(out / "ablations.md")


def samples(known: dict) -> str:
    """The best win rates with K samples."""
    keys = [*map(str, SAMPLES), "0"]
    rows = [["procedure", *(f"K = {k}" for k in SAMPLES), "all quantiles"]]
    for spec, own in known.items():
        rows.append([spec, *(f"{100 * own[k]:.1f}" for k in keys)])
    return rows_of(rows)


def points(interval: list[float], sign: str = "") -> str:
    """A value in percent with half the width of its interval."""
    value, low, high = (100 * x for x in interval)
    return f"{round(value, 1) + 0.0:{sign}.1f} ± {(high - low) / 2:.1f}"


def calibrators(known: dict) -> str:
    """Win rates by calibrator and K."""
    ks = list(known["best-of-n:4"]["ecdf"])
    rows = [["procedure", "calibrator", *(f"K = {k}" for k in ks)]]
    for spec, own in known.items():
        rows.append([spec, "all", *([points(own["all"]["0"]["win_rate"])] * len(ks))])
        for name, by_k in own.items():
            if name == "all":
                continue
            cells = []
            for k in ks:
                cell = points(by_k[k]["win_rate"])
                more = "" if name == "ecdf" else f" ({points(by_k[k]['over_ecdf'], '+')})"
                cells.append(cell + more)
            rows.append([spec, f"`{name}`", *cells])
    return rows_of(rows)


def exponents(known: dict) -> str:
    """Losses of exponential transforms."""
    rows = [["procedure", *(f"t = {t}" for t in STRENGTHS)]]
    for spec, losses in known.items():
        rows.append([spec, *(f"{100 * loss:.2f}" for loss in losses)])
    return rows_of(rows)


def best_exponents(known: dict) -> str:
    """The best exponent of each procedure, in a sentence."""
    said = [f"t = {STRENGTHS[int(np.argmin(own))]} for {spec}" for spec, own in known.items()]
    largest = max(min(own) for own in known.values())
    text = (
        f"Of these exponents the best are {', '.join(said)}. Each loses at most "
        f"{100 * largest:.2f} points."
    )
    return textwrap.fill(text, 100, break_on_hyphens=False)


def crossed(known: dict, specs: list[str]) -> str:
    """Losses of the design for another procedure."""
    rows = [["designed for", *specs]]
    for row in specs:
        cells = []
        for column in specs:
            own = known[f"{row} {column}"]
            cells.append(f"{points(own['loss'])} ({100 * own['theory_loss']:.1f})")
        rows.append([row, *cells])
    return rows_of(rows)


def worst(known: dict) -> str:
    """The largest loss, in a sentence."""
    name = max(known, key=lambda key: known[key]["loss"][0])
    designed, deployed = name.split()
    return (
        f"The largest loss is {points(known[name]['loss'])} points: designed for {designed}, "
        f"deployed with {deployed}."
    )


def figure(results: dict) -> Figure:
    """Heat maps of the losses, in points."""
    sizes = [f"best-of-n:{n}" for n in SIZES]
    maps = [
        ("lost by e^(tu), theory", np.array(list(results["exponents"].values()))),
        ("lost by training for another n", _matrix(results["sizes"], sizes)),
        ("lost by training for another procedure", _matrix(results["procedures"], PROCEDURES)),
    ]
    labels = [
        (list(results["exponents"]), [str(t) for t in STRENGTHS], "exponent t"),
        ([str(n) for n in SIZES], [str(n) for n in SIZES], "n deployed"),
        (list(PROCEDURES), list(PROCEDURES), "procedure deployed"),
    ]
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(WIDTH, 11), layout="constrained")
        for axes, (title, values), (rows, columns, below) in zip(
            drawn.subplots(3, 1, height_ratios=(9, 6, 12)), maps, labels, strict=True
        ):
            shown = np.round(100 * values, 1) + 0.0
            axes.imshow(np.sqrt(np.maximum(shown, 0)), cmap="Blues", aspect="auto")
            for (i, j), value in np.ndenumerate(shown):
                dark = np.sqrt(max(value, 0)) > 0.6 * np.sqrt(shown.max())
                axes.text(
                    j, i, f"{value:.1f}", ha="center", va="center", fontsize=7.5,
                    color="white" if dark else "black",
                )  # fmt: skip
            axes.set_yticks(range(len(rows)), rows, fontsize=8)
            slanted = {"rotation": 25, "ha": "right"} if len(columns[0]) > 4 else {}
            axes.set_xticks(range(len(columns)), columns, fontsize=8, **slanted)
            axes.set_xlabel(below)
            axes.set_title(f"Points of win rate {title}", fontsize=9)
            axes.grid(visible=False)
    return drawn


def _matrix(known: dict, specs) -> np.ndarray:
    return np.array([[known[f"{a} {b}"]["loss"][0] for b in specs] for a in specs])
