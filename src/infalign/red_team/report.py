"""The figure of attack success against the number of attempts, from a red team's results."""

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

from infalign.reports import drawing
from infalign.reports.drawing import FAINT, MUTED, STYLE, WIDTH

__all__ = ["label", "success_figure"]

LABELS = {
    "all": "all augmentations",
    "none": "no augmentation (responses resampled)",
}


def label(attack: Mapping) -> str:
    """The label of an attack."""
    name = attack["augment"]
    return LABELS.get(name, name.replace("+", " and "))


@matplotlib.rc_context(STYLE)
def success_figure(results: Mapping) -> Figure:
    """ASR against N: measured points with intervals, and the fitted growth, dashed where it is a
    forecast."""
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log", base=2)
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.set_xlabel("attempts N on each prompt")
    axes.set_ylabel("prompts broken")
    axes.set_title("Attack success against the number of attempts")
    drawing.grid(axes)
    made, entries = max(a["attempts"] for a in results["attacks"]), []
    for index, attack in enumerate(results["attacks"]):
        color, marker = drawing.color(index), drawing.marker(index)
        _law(axes, attack, color)
        n, value, low, high = (
            np.array([drawing.number(r[k]) for r in attack["rates"]])
            for k in ("n", "value", "low", "high")
        )
        reach = np.nan_to_num([value - low, high - value])  # one prompt gives no interval
        axes.errorbar(
            n * 1.04**index,  # side by side, so that no point hides another
            value,
            yerr=np.maximum(reach, 0),
            fmt=marker,
            color=color,
            markersize=5.5,
            markeredgecolor="white",
            markeredgewidth=0.5,
            elinewidth=1.6,
            zorder=5,
        )
        entries.append(drawing.policy_key(index, label(attack)))
    farthest = max([made, *(p["n"] for a in results["attacks"] for p in a["curve"])])
    if farthest > made:
        axes.axvline(made, color=FAINT, lw=1.2, ls=(0, (1, 2)))
        axes.annotate(
            "forecast",
            (made, 0.01),
            xytext=(5, 0),
            textcoords="offset points",
            color=MUTED,
            size=8,
            va="bottom",
        )
    powers = 2 ** np.arange(int(np.log2(farthest)) + 1)
    axes.set_xticks(powers[:: 1 + len(powers) // 10])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(0.85, farthest * 1.18)
    drawing.key(figure, entries)
    return figure


def _law(axes: Axes, attack: Mapping, color: str) -> None:
    """The fitted growth with its band, solid up to the number of attempts made."""
    if not attack["curve"]:
        return
    n, value, low, high = (
        np.array([drawing.number(p[k]) for p in attack["curve"]])
        for k in ("n", "value", "low", "high")
    )
    axes.fill_between(n, low, high, color=color, alpha=0.13, lw=0)
    seen = n <= attack["attempts"]
    axes.plot(n[seen], value[seen], color=color, lw=1.6)
    beyond = np.append(seen[1:], False) != seen  # the last measured point joins both lines
    axes.plot(n[~seen | beyond], value[~seen | beyond], color=color, lw=1.6, ls="--")
