"""Draws the figures of the theory and writes docs/figures.md; no number is entered by hand.

python docs/figures.py
"""

import textwrap
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

import infalign as ia
from infalign import storage
from infalign.core import at_kl
from infalign.reports import drawing, plots
from infalign.reports.drawing import INK, MUTED, PALETTE, STYLE, WIDTH

DOCS = Path(__file__).parent
BUDGET = 0.5
BEST = "best exponential"
KLS = (np.arange(1, 13) / 12) ** 2
"""KLs at which curves are computed, as shares of the largest KL shown."""

LARGEST = {ia.BestOfN: 3.0, ia.WorstOfN: 1.5}
"""Largest KL shown, in nats: beyond it win rates hardly rise."""

PROCEDURES = [ia.BestOfN(2), ia.BestOfN(4), ia.WorstOfN(2), ia.WorstOfN(4)]
SIMPLE = [ia.Identity(), ia.Probit(), ia.Log(), *map(ia.Exponential, (5.0, 10.0, -5.0, -10.0))]
BLUE, ORANGE, GREEN, PINK, SKY, AMBER = PALETTE
LOOKS = {
    "log": {"color": GREEN, "lw": 1.6},
    "exponential:5": {"color": SKY, "lw": 1.6},
    "exponential:10": {"color": BLUE, "lw": 1.6},
    "exponential:-5": {"color": AMBER, "lw": 1.6},
    "exponential:-10": {"color": ORANGE, "lw": 1.6},
    BEST: {"color": PINK, "lw": 1.8},
}
SIZES = (2, 4, 8, 32)
SAMPLES = (4, 8, 16, 32, 64, 128, 256)

PAGE = """# Figures of the theory

All figures are computed from the theory, without training, by `make figures`.
`infalign design --plot` draws figures of the first kind for any procedure and candidates. Numbers
are win rates against the reference at {budget} nats.

{sections}"""


def main() -> None:
    """Write every figure to docs/images, and the page."""
    sections = [frontier_section(p) for p in PROCEDURES]
    sections += [transform_section(), samples_section()]
    page = PAGE.format(budget=BUDGET, sections="\n".join(sections))
    storage.write_text(DOCS / "figures.md", page)


def section(title: str, name: str, figure: Figure, text: str) -> str:
    """A section of the page: a figure and its text."""
    drawing.save_png(figure, DOCS / "images" / f"{name}.png")
    print(DOCS / "images" / f"{name}.png")
    return f"## {title}\n\n![{title}](images/{name}.png)\n\n{wrapped(text)}\n"


def wrapped(text: str) -> str:
    """Lines of at most 100 characters, broken between words."""
    return textwrap.fill(" ".join(text.split()), 100, break_on_hyphens=False)


def percent(value: float) -> str:
    """A win rate in percent."""
    return f"{100 * value:.1f} %"


def frontier_section(procedure) -> str:
    """Win rate against KL for simple transforms, the best exponential and the optimum."""
    candidates = [*SIMPLE, ia.best_exponential]
    names = ["optimal", *(t.spec for t in SIMPLE), BEST]
    kls = LARGEST[type(procedure)] * KLS
    rows = ia.compare(procedure, candidates, kl=kls.tolist())
    rows = [replace(row, transform=names[i % len(names)]) for i, row in enumerate(rows)]
    figure = plots.frontier(procedure, procedure, rows, looks=LOOKS)
    best, *others = ia.compare(procedure, candidates, kl=BUDGET)
    rates = {row.transform: row.win_rate for row in others}
    t = float(others[-1].transform.partition(":")[2])
    simple = max((r for r in others[:-1]), key=lambda r: r.win_rate)
    words = plots.procedure_words(procedure.spec)
    return section(
        words.capitalize(),
        words,
        figure,
        f"""The optimal policy for {words} has a win rate of {percent(best.win_rate)}. Training on
        the calibrated reward itself (identity) reaches {percent(rates["identity"])}, and on a
        normally distributed raw reward (probit) {percent(rates["probit"])}. The best of the simple
        transforms shown is `{simple.transform}`, with {percent(simple.win_rate)}. The exponential
        at its best t, {t:.3g}, is {100 * others[-1].loss:.2f} points below the optimum. A t with
        the wrong sign for the procedure costs up to {100 * max(r.loss for r in others):.1f}
        points.""",
    )


def transform_section() -> str:
    """The optimal Φ for several n, scaled to run from 0 to 1."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        u = np.linspace(0, 1, 401)
        half = {}
        for panel, family, kind in zip(
            panels, (ia.BestOfN, ia.WorstOfN), ("best", "worst"), strict=True
        ):
            panel.set_title(f"{kind}-of-n")
            panel.plot([0, 1], [0, 1], color=MUTED, lw=1.2, ls="--")
            for i, n in enumerate(SIZES):
                phi = ia.design(family(n), kl=BUDGET).transform(u)
                phi = phi / phi[-1]
                half[kind, n] = float(np.interp(0.5, phi, u))
                panel.plot(u, phi, color=PALETTE[i], lw=2)
                x, y = (0.06, 0.92 - 0.07 * i) if kind == "best" else (0.8, 0.28 - 0.07 * i)
                panel.text(x, y, f"n = {n}", color=PALETTE[i], weight="bold")
            panel.set_xlim(0, 1)
            panel.set_ylim(-0.02, 1.02)
            panel.set_xlabel("quantile of a response   (0 worst, 1 best)")
            drawing.grid(panel)
        panels[0].set_ylabel("optimal training reward, scaled")
    return section(
        "The optimal transform",
        "optimal_transforms",
        figure,
        f"""The optimal training reward at {BUDGET} nats. The dashed line is the identity, which is
        optimal for plain sampling. For best-of-n the reward rises near the top: half of the rise is
        above quantile {half["best", 4]:.2f} for n = 4 and above {half["best", 32]:.3f} for n = 32.
        For worst-of-n it rises near the bottom: half of the rise is below quantile
        {half["worst", 4]:.2f} for n = 4 and below {half["worst", 32]:.3f} for n = 32.""",
    )


def samples_section() -> str:
    """Expected win rate against the number of calibration samples, best-of-4."""
    procedure = ia.BestOfN(4)
    exponential = ia.best_exponential(procedure, BUDGET)
    candidates = {"identity": ia.Identity(), "probit": ia.Probit(), BEST: exponential}
    curves = {name: [] for name in ("optimal", *candidates)}
    for k in SAMPLES:
        rows = ia.compare(procedure, list(candidates.values()), kl=BUDGET, samples=k)
        for name, row in zip(curves, rows, strict=True):
            curves[name].append(row.win_rate)
    exact = ia.design(procedure, kl=BUDGET).win_rate
    at_best = at_kl(exponential, BUDGET).win_rate(procedure)
    needed = ia.samples_needed(procedure, exponential, kl=BUDGET, loss=0.005, exact=at_best)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
        panel = figure.subplots()
        looks = {
            **plots.FRONTIER_LOOKS,
            BEST: LOOKS[BEST],
        }
        panel.axhline(exact, color=INK, lw=1, ls="--")
        panel.text(SAMPLES[0], exact, "exact calibration", va="bottom", size=8.5)
        for name, rates in curves.items():
            panel.plot(SAMPLES, rates, marker="o", ms=3.5, **looks[name])
        panel.set_xscale("log", base=2)
        panel.set_xticks(SAMPLES, [str(k) for k in SAMPLES])
        panel.minorticks_off()
        panel.set_xlim(SAMPLES[0] * 0.93, SAMPLES[-1])
        panel.set_xlabel("calibration samples per prompt, K")
        panel.set_ylabel("expected win rate")
        panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        drawing.grid(panel)
        low, high = panel.get_ylim()
        ends = sorted((rates[-1], name) for name, rates in curves.items())
        places = drawing.apart([end for end, _ in ends], 0.055 * (high - low))
        for (_, name), place in zip(ends, places, strict=True):
            words = "best table for K" if name == "optimal" else name
            drawing.beside(panel, words, SAMPLES[-1], place, looks[name]["color"])
    gain = dict(zip(SAMPLES, curves["optimal"], strict=True))
    flat = dict(zip(SAMPLES, curves["identity"], strict=True))
    return section(
        "The cost of few calibration samples",
        "calibration_samples",
        figure,
        f"""Expected win rate of best-of-4 at {BUDGET} nats when quantiles are estimated from K
        reference samples per prompt. The best table for each K reaches {percent(gain[16])} at K =
        16 and {percent(gain[128])} at K = 128; exact calibration reaches {percent(exact)}. The
        identity loses hardly anything ({percent(flat[16])} at K = 16), while a sharper transform
        needs a finer calibration. The exponential at its best t for exact calibration,
        {exponential.t:.3g}, is within half a point of its own exact value with {needed} samples or
        more.""",
    )


if __name__ == "__main__":
    main()
