"""The figure of a task: policies beside the frontier, and win rates over n."""

from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, StrMethodFormatter

from infalign.comparison.comparison import SELECTING
from infalign.core import families, words
from infalign.reports import drawing

__all__ = ["by_kl", "largest_kl"]


def largest_kl(arms: Sequence[Mapping], default: float = 0.0) -> float:
    """The largest target KL of some arms: that of the curves over n."""
    return max((arm["target_kl"] for arm in arms), default=default)


@matplotlib.rc_context(drawing.STYLE)
def by_kl(task: Mapping, evidence: bool, over_n: float | None = None) -> Figure:
    """Win rate by KL beside the frontier, and by n at one KL.

    - `over_n`: the KL of the curves over n. Default: the largest that has a finished cell.
    """
    figure = Figure((drawing.WIDTH, 6.2), layout="constrained")
    panels = figure.subplot_mosaic([["kl", "kl"], list(families())])
    arms = [arm for arm in task["arms"] if "win_rates" in arm]
    index = {method: i for i, method in enumerate(task["methods"])}
    top = panels["kl"]
    frontier = task["frontier"]
    if frontier["kl"]:
        top.plot(frontier["kl"], frontier["win_rate"], color=drawing.INK, lw=1.4)
        end = frontier["kl"][-1], frontier["win_rate"][-1]
        drawing.beside(top, "best possible", *end, drawing.INK)
    for arm in arms:
        if arm["kl"] is not None:
            rate = arm["win_rates"][SELECTING][task["procedure"]]
            drawing.measured(top, index[arm["method"]], arm["kl"], rate)
    top.set_title(f"{task['task']}: {words(task['procedure'])}")
    seen = [arm["kl"]["value"] for arm in arms if arm["kl"] is not None]
    top.set_xlim(0, 1.1 * max([*seen, *frontier["kl"]], default=1))
    top.set_xlabel("KL, nats per sequence")
    at = largest_kl(arms, max(task["kls"])) if over_n is None else over_n
    for name in families():
        panel = panels[name]
        for arm in arms:
            if arm["target_kl"] == at:
                rows, place = arm["by_n"][SELECTING][name], index[arm["method"]]
                color, dashes = drawing.color(place), drawing.dashes(place)
                n = [row["n"] for row in rows]
                ends = {k: [drawing.number(r[k]) for r in rows] for k in ("value", "low", "high")}
                panel.plot(n, ends["value"], color=color, ls=dashes, lw=2)
                panel.fill_between(n, ends["low"], ends["high"], color=color, alpha=0.12)
        panel.set_title(f"{name} at {at:g} nats")
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.set_xlabel("n, responses drawn by each side")
    for panel in panels.values():
        panel.axhline(0.5, color=drawing.MUTED, lw=1.0)
        panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        drawing.grid(panel)
    panels["kl"].set_ylabel("win rate")
    known = [m for m in task["methods"] if any(arm["method"] == m for arm in arms)]
    drawing.key(figure, [drawing.policy_key(index[m], m) for m in known])
    return drawing.stamp(figure, evidence=evidence)
