"""Figures of a run, drawn from the plain dictionaries of `results.json`.

Each function returns a `matplotlib.figure.Figure` and leaves matplotlib's global state as it found
it: no pyplot, no backend, no changed settings.
"""

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from infalign.core import Identity, TiltedPolicy
from infalign.core import words as procedure_words

from . import drawing
from .drawing import FAINT, INK, MUTED, PALETTE, STYLE, WIDTH

__all__ = [
    "by_n",
    "calibration",
    "draw",
    "frontier",
    "quantiles",
    "reference_win_rate",
    "training",
    "transform",
    "uniform_band",
    "win_rate",
]


def draw(results: Mapping) -> dict[str, Figure]:
    """Every figure for which `results` has the data, by name."""
    return {name: make(results) for name, (part, make) in FIGURES.items() if results.get(part)}


@matplotlib.rc_context(STYLE)
def win_rate(results: Mapping) -> Figure:
    """Win rate against KL: theory as lines, measured policies as points with both intervals."""
    frontier = results["frontier"]
    columns = min(2, len(frontier))
    rows = -(-len(frontier) // columns)
    figure = Figure(figsize=(WIDTH, 0.5 + 3.0 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for unused in panels[len(frontier) :]:
        unused.set_visible(False)
    low, high = _win_rate_limits(results)
    for panel, (spec, curves) in zip(panels, frontier.items(), strict=False):
        panel.set_title(procedure_words(spec))
        panel.set_xlabel("KL from the reference (nats)")
        panel.set_ylim(low, high)
        panel.set_xlim(0, _kl_limit(results, curves["kl"]))
        panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        drawing.grid(panel)
        if "target_kl" in results:
            panel.axvline(results["target_kl"], color=FAINT, lw=1.2, ls=(0, (1, 2)))
            panel.text(
                results["target_kl"],
                low + 0.012 * (high - low),
                " target",
                color=MUTED,
                size=8,
                va="bottom",
            )
        _frontier_lines(panel, curves)
        for index, policy in enumerate(results["policies"]):
            if spec in policy["win_rates"] and policy["kl"]:
                drawing.measured(panel, index, policy["kl"], policy["win_rates"][spec])
    for panel in panels[::columns]:
        panel.set_ylabel("win rate against the reference")
    drawing.key(
        figure, [drawing.policy_key(i, p["label"]) for i, p in enumerate(results["policies"])]
    )
    return drawing.stamp(figure, evidence=results["evidence"])


@matplotlib.rc_context(STYLE)
def frontier(procedure, against, rows, budgets=(), looks: Mapping | None = None) -> Figure:
    """Win rate against KL in theory, from the candidates that `infalign.compare` returns.

    - `procedure`, `against`: how the policy and the reference are decoded.
    - `budgets`: KLs to mark.
    - `looks`: the style of lines that differ from the default, by name.
    """
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    panel = figure.subplots()
    title = procedure_words(procedure.spec)
    if against.spec != procedure.spec:
        title += f" against {procedure_words(against.spec)}"
    panel.set_title(title)
    panel.set_xlabel("KL from the reference (nats)")
    panel.set_ylabel("win rate against the reference")
    panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    drawing.grid(panel)
    for budget in budgets:
        panel.axvline(budget, color=FAINT, lw=1.2, ls=(0, (1, 2)))
    panel.set_xlim(0, max(row.kl for row in rows))
    names = list(dict.fromkeys(row.transform for row in rows))
    start = reference_win_rate(procedure, against)
    colors = iter(PALETTE * len(names))
    lines = {}
    for name in names:
        own = [row for row in rows if row.transform == name]
        kl, rate = [0, *(r.kl for r in own)], [start, *(r.win_rate for r in own)]
        look = {**FRONTIER_LOOKS, **(looks or {})}.get(name)
        lines[name] = (kl, rate, look or {"color": next(colors), "lw": 1.8})
    drawing.named_lines(panel, lines)
    return figure


def reference_win_rate(procedure, against) -> float:
    """Win rate of the reference itself: ½ unless `against` is another procedure."""
    return TiltedPolicy(Identity(), 1e9).win_rate(procedure, against)


@matplotlib.rc_context(STYLE)
def by_n(results: Mapping) -> Figure:
    """Win rate against n, the number of responses drawn to select one.

    There is a column for best-of-n and one for worst-of-n, and a row for each reward that judges
    the selected responses.
    """
    families = results["by_n"]
    rewards = list(next(iter(families.values()))["win_rates"])
    size = (WIDTH, 0.5 + 2.9 * len(rewards))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(rewards), len(families), sharex=True, sharey="row", squeeze=False)
    for row, reward in zip(grid, rewards, strict=True):
        for panel, (family, part) in zip(row, families.items(), strict=True):
            judged = "" if reward == rewards[0] else f", judged by {drawing.label(reward, 20)}"
            panel.set_title(family + judged)
            panel.axhline(0.5, color=MUTED, lw=1.2)
            for index, policy in enumerate(results["policies"]):
                rates = part["win_rates"][reward][policy["method"]]
                ends = {k: [drawing.number(r[k]) for r in rates] for k in ("value", "low", "high")}
                panel.plot(part["n"], ends["value"], "o-", color=drawing.color(index), lw=2, ms=4)
                panel.fill_between(
                    part["n"], ends["low"], ends["high"], color=drawing.color(index), alpha=0.15
                )
            panel.set_xscale("log", base=2)
            panel.set_xticks(part["n"], [str(n) for n in part["n"]])
            panel.minorticks_off()
            panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
            drawing.grid(panel)
        row[0].set_ylabel("win rate")
    for panel in grid[-1]:
        panel.set_xlabel("n, responses drawn by each side")
    drawing.key(
        figure, [drawing.policy_key(i, p["label"]) for i, p in enumerate(results["policies"])]
    )
    return drawing.stamp(figure, evidence=results["evidence"])


@matplotlib.rc_context(STYLE)
def quantiles(results: Mapping) -> Figure:
    """Density of the responses' quantiles under each policy; the reference's is 1 everywhere."""
    densities = results["quantile_density"]
    edges = densities["edges"]
    figure = Figure(figsize=(WIDTH, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.axhline(1, color=MUTED, lw=1.2)
    key = []
    for index, policy in enumerate(results["policies"]):
        if policy["method"] in densities:
            heights = densities[policy["method"]]
            axes.stairs(heights, edges, baseline=None, color=drawing.color(index), lw=2)
            key.append((Line2D([], [], color=drawing.color(index), lw=2), policy["label"]))
    if "optimal" in densities:
        line = Line2D([], [], color=INK, lw=1.6, ls="--")
        axes.stairs(densities["optimal"], edges, baseline=None, color=INK, lw=1.6, ls="--")
        key.append((line, "best possible in theory"))
    key.append((Line2D([], [], color=MUTED, lw=1.2), "reference"))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, None)
    axes.set_xlabel("quantile among the reference's responses   (0 worst, 1 best)")
    axes.set_ylabel("density, reference = 1")
    drawing.grid(axes)
    drawing.key(figure, key)
    return drawing.stamp(figure, evidence=results["evidence"])


@matplotlib.rc_context(STYLE)
def transform(results: Mapping) -> Figure:
    """The training reward as a function of the quantile, scaled to run from 0 to 1."""
    curves = results["transform"]
    figure = Figure(figsize=(WIDTH, 3.5), layout="constrained")
    axes = figure.subplots()
    raw = [(i, p) for i, p in enumerate(results["policies"]) if p["transform"] == RAW]
    shaped = [(i, p) for i, p in enumerate(results["policies"]) if p["transform"] != RAW]
    named = {}
    if "phi" in curves:
        name = shaped[0][1]["transform"] if shaped else "optimal"
        label = f"{name} transform for {procedure_words(results['procedure'])}"
        named[label] = (curves["phi"], drawing.color(shaped[0][0]) if shaped else INK)
    if "raw" in curves:
        named["raw reward"] = (curves["raw"], drawing.color(raw[0][0]) if raw else "#8c5a2b")
    for values, color in named.values():
        axes.plot(curves["u"], values, color=color, lw=2.2)
    axes.plot([0, 1], [0, 1], color=MUTED, lw=1.2, ls="--")
    drawing.name_increasing(axes, curves["u"], named | {"identity": (curves["u"], MUTED)})
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.1, 1.1)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_xlabel("quantile among the reference's responses   (0 worst, 1 best)")
    axes.set_ylabel("training reward, scaled")
    drawing.grid(axes)
    return drawing.stamp(figure, evidence=results["evidence"])


@matplotlib.rc_context(STYLE)
def training(results: Mapping) -> Figure:
    """KL and mean quantile by training step: faint as recorded, bold as a running mean."""
    figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    key = []
    for index, policy in enumerate(results["policies"]):
        if policy["method"] in results["training"]:
            record = results["training"][policy["method"]]
            for panel, name in ((left, "kl"), (right, "quantile")):
                drawing.running(panel, record["step"], record[name], drawing.color(index))
            key.append((Line2D([], [], color=drawing.color(index), lw=2), policy["label"]))
    left.set_title("KL from the reference")
    left.set_ylabel("nats")
    left.set_ylim(0, max(1.25 * results["target_kl"], left.get_ylim()[1]))
    drawing.level(left, results["target_kl"], "target")
    right.set_title("Mean quantile of the responses")
    right.set_ylim(min(0.45, right.get_ylim()[0]), max(0.6, right.get_ylim()[1]))
    drawing.level(right, 0.5, "reference")
    for panel in (left, right):
        panel.set_xlabel("training step")
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        panel.margins(x=0.01)
        drawing.grid(panel)
    drawing.key(figure, key)
    return drawing.stamp(figure, evidence=results["evidence"])


@matplotlib.rc_context(STYLE)
def calibration(results: Mapping) -> Figure:
    """Quantiles of fresh reference responses, which exact calibration makes uniform.

    If calibration is exact, the band holds a bar with a probability of 95 %. The responses of one
    prompt share its K = `samples` calibration rewards: the chance of a bin of width p is then
    Beta(p(K + 1), (1 − p)(K + 1)), so the count of the prompt's responses in it is beta-binomial.
    """
    part = results["calibration"]
    counts = np.asarray(part["uniformity"], float)
    total, bins = counts.sum(), counts.size
    low, high = uniform_band(total, bins, part["prompts"], part["samples"])
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    axes = figure.subplots()
    edges = np.linspace(0, 1, bins + 1)
    share = 100 / total
    axes.stairs(counts * share, edges, fill=True, color="#b9c7d1")
    axes.vlines(edges[1:-1], 0, np.minimum(counts[:-1], counts[1:]) * share, color="white", lw=1)
    axes.axhspan(low * share, high * share, color=PALETTE[0], alpha=0.16, lw=0)
    axes.axhline(100 / bins, color=INK, lw=1.2, ls="--")
    names = {"95 % band": (high * share, PALETTE[0]), "exact": (100 / bins, INK)}
    heights = [height for height, _ in names.values()]
    top = 1.15 * share * max(high, counts.max())
    for (words, (_, color)), place in zip(
        names.items(), drawing.spread(heights, 0.08 * top, top), strict=True
    ):
        drawing.beside(axes, words, 1, place, color)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, top)
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0, symbol=" %"))
    axes.set_xlabel("quantile of a fresh reference response")
    axes.set_ylabel("share of responses")
    return drawing.stamp(figure, evidence=results["evidence"])


def uniform_band(total: float, bins: int, prompts: int, samples: int) -> tuple[float, float]:
    """Range that contains the count of a bin of uniform quantiles with a probability of 95 %.

    - `total`: number of held-out responses, the same for each of the `prompts`.
    - `samples`: calibration rewards per prompt.

    >>> low, high = uniform_band(20_000, 20, prompts=20_000, samples=64)
    >>> round(high - 1000, -1)                        # 1.96 sqrt(total p (1 - p)) = 60.4
    60.0
    """
    p, each = 1 / bins, max(1, round(total / prompts))
    # The variance of a beta-binomial count of `each`, divided by `each`.
    spread = p * (1 - p) * (samples + 1 + each) / (samples + 2)
    reach = 1.96 * np.sqrt(total * spread)
    return float(max(0.0, total * p - reach)), float(total * p + reach)


FIGURES = {
    "win_rate": ("frontier", win_rate),
    "by_n": ("by_n", by_n),
    "quantiles": ("quantile_density", quantiles),
    "transform": ("transform", transform),
    "training": ("training", training),
    "calibration": ("calibration", calibration),
}
"""Figure name → the part of the results that it needs, and the function that draws it."""

RAW = "raw reward"
"""The `transform` of a policy that was trained on the raw reward."""

CURVES: dict[str, tuple[str, dict[str, Any]]] = {
    "optimal": ("best possible", {"color": INK, "lw": 2.0, "ls": "-"}),
    "identity": ("identity", {"color": MUTED, "lw": 1.5, "ls": (0, (5, 2))}),
    "probit": ("probit", {"color": MUTED, "lw": 1.5, "ls": (0, (1, 1.5))}),
}


FRONTIER_LOOKS: dict[str, dict[str, Any]] = {
    "optimal": CURVES["optimal"][1],
    "identity": CURVES["identity"][1],
    "probit": CURVES["probit"][1] | {"color": "#8c5a2b"},
}
"""Lines with the same style in every frontier. The others take the palette's colors in turn."""


def _win_rate_limits(results: Mapping) -> tuple[float, float]:
    values = [0.5]
    for curves in results["frontier"].values():
        values += [v for name, curve in curves.items() if name != "kl" for v in curve]
    for policy in results["policies"]:
        for rate in policy["win_rates"].values():
            values += [drawing.number(rate[end]) for end in ("value", "low", "high")]
    low, high = np.nanmin(values), np.nanmax(values)
    return float(np.floor(low * 20) / 20), float(min(1.0, high + 0.02))


def _kl_limit(results: Mapping, grid) -> float:
    """Twice the largest target or measured KL, but at most the end of the curves."""
    seen = [policy["kl"]["value"] for policy in results["policies"] if policy["kl"]]
    seen += [results["target_kl"]] if "target_kl" in results else []
    return max(1.1 * max(seen), min(2 * max(seen), max(grid)))


def _frontier_lines(axes: Axes, curves: Mapping) -> None:
    """Lines labeled at their right end. Curves that coincide become one line with all names."""
    end = axes.get_xlim()[1]
    kl = np.asarray(curves["kl"], float)
    merged: list = []
    for name in [n for n in CURVES if n in curves] + [
        n for n in curves if n not in CURVES and n != "kl"
    ]:
        words, look = CURVES.get(name, (name, {"color": MUTED, "lw": 1.2, "ls": "-."}))
        values = np.asarray(curves[name], float)
        twin = next((m for m in merged if np.abs(m[1] - values)[kl <= end].max() < 0.003), None)
        if twin:
            twin[0].append(words)
        else:
            axes.plot(kl, values, **look, zorder=3)
            merged.append(([words], values, look["color"]))
    names = [
        (words if i == 0 else f"= {words}", float(np.interp(end, kl, values)), color)
        for group, values, color in merged
        for i, words in enumerate(group)
    ]
    low, high = axes.get_ylim()
    places = drawing.spread([height for _, height, _ in names], 0.055 * (high - low), high)
    for (words, _, color), place in zip(names, places, strict=True):
        drawing.beside(axes, words, end, place, color)
