"""Colors, style and shared elements of the figures.

Colors are those of Okabe and Ito, which readers with any color vision can tell apart. A policy has
the same color in every figure.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from scipy.interpolate import PchipInterpolator

from infalign._check import visible
from infalign.storage import replacing

__all__ = [
    "apart",
    "beside",
    "color",
    "dashes",
    "grid",
    "key",
    "label",
    "level",
    "marker",
    "measured",
    "name_increasing",
    "named_lines",
    "number",
    "policy_key",
    "running",
    "save_png",
    "spread",
    "stamp",
]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Colors of the policies, in the order of the results; they repeat after six."""

LONGEST = 36
"""Largest number of characters of a name in a figure."""

MARKERS = "osD^vP"
LINES = ("-", "--", ":")
INK, MUTED, FAINT = "#222222", "#6b6b6b", "#d9d9d9"
WIDTH = 7.5  # inches: 720 CSS pixels
HALO = [withStroke(linewidth=3, foreground="white")]

STYLE: dict[Any, Any] = {
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a label is not math
    "text.usetex": False,
    "xtick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.color": MUTED,
    "ytick.labelsize": 8.5,
}


@matplotlib.rc_context(STYLE)
def save_png(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG file, 1125 pixels wide."""
    _show(figure)
    with replacing(path) as temporary, _without_glyphs():
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})


def _show(figure: Figure) -> None:
    """Escape what is not seen in every text of the figure; names come from users."""
    for text in figure.findobj(Text):
        if visible(text.get_text(), "\n") != text.get_text():
            text.set_text(visible(text.get_text(), "\n"))


@contextmanager
def _without_glyphs() -> Iterator[None]:
    """Inside the block, a sign that the font lacks is drawn as a box, without a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def label(name: str, longest: int = LONGEST) -> str:
    """A name as figures show it: on one line and not longer than they have room for.

    >>> label("a" * 99)
    'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…'
    """
    name = visible(name)
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def color(index: int) -> str:
    """The color of the policy at `index` of the results."""
    return PALETTE[index % len(PALETTE)]


def marker(index: int) -> str:
    """The marker of the policy at `index`. Policies with the same color have different ones."""
    return MARKERS[(index + index // len(PALETTE)) % len(MARKERS)]


def dashes(index: int) -> str:
    """The line style of the policy at `index`. Policies with the same color have different ones."""
    return LINES[index // len(PALETTE) % len(LINES)]


def grid(axes: Axes) -> None:
    """Faint horizontal lines behind the data."""
    axes.grid(axis="y", color=FAINT, lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=3)


def key(figure: Figure, entries: list) -> None:
    """A legend above the panels. The figure grows if the legend needs more than one line."""
    if not entries:
        return
    handles, names = zip(*entries, strict=True)
    labels = [label(name) for name in names]
    columns = len(labels)
    if sum(map(len, labels)) + 6 * columns > 95:  # characters that fit into one line
        columns = max(1, 95 // (max(map(len, labels)) + 6))
    rows = -(-len(labels) // columns)
    figure.set_figheight(figure.get_figheight() + 0.19 * (rows - 1))
    figure.legend(
        handles,
        labels,
        ncols=columns,
        loc="outside upper left",
        frameon=False,
        handlelength=1.5,
        columnspacing=1.8,
        fontsize=9.5,
    )


def policy_key(index: int, label: str):
    """A policy's entry for `key`: its marker and its name."""
    look: dict[str, Any] = {"color": color(index), "marker": marker(index), "markersize": 6}
    # The line shows where dashes alone tell two policies apart.
    look |= {"ls": dashes(index)} if index >= len(PALETTE) else {"ls": ""}
    handle = Line2D([], [], **look)
    return handle, label


def measured(axes: Axes, index: int, kl: Mapping, rate: Mapping) -> None:
    """A policy's point, with error bars in both directions if it has intervals."""
    axes.errorbar(
        kl["value"],
        rate["value"],
        xerr=_reach(kl),
        yerr=_reach(rate),
        fmt=marker(index),
        color=color(index),
        markersize=5.5,
        markeredgecolor="white",
        markeredgewidth=0.5,
        elinewidth=1.6,
        capsize=0,
        zorder=5,
    )


def _reach(estimate: Mapping):
    """Lengths of both error bars; None without an interval, as for a single prompt."""
    low, high = number(estimate["low"]), number(estimate["high"])
    if not np.isfinite([low, high]).all():
        return None
    return np.maximum([[estimate["value"] - low], [high - estimate["value"]]], 0)


def number(value) -> float:
    """A value of the results; None, which means not measured, becomes nan."""
    return np.nan if value is None else float(value)


def running(axes: Axes, step, values, color: str) -> None:
    """A noisy record as a faint line, and its running mean over 5 % of the steps as a bold line."""
    step, values = np.asarray(step, float), np.asarray(values, float)  # None becomes nan
    step, values = step[np.isfinite(values)], values[np.isfinite(values)]
    if not values.size:
        return
    axes.plot(step, values, color=color, lw=0.8, alpha=0.3)
    window = max(1, values.size // 20)
    sums = np.convolve(values, np.ones(window), "same")
    axes.plot(step, sums / np.convolve(np.ones_like(values), np.ones(window), "same"), color=color)


def beside(axes: Axes, words: str, x: float, y: float, color: str) -> None:
    """A label to the right of the panel, at height `y`."""
    axes.annotate(
        label(words),
        (x, y),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        size=8.5,
        color=color,
        annotation_clip=False,
    )


def named_lines(axes: Axes, lines: Mapping) -> None:
    """Draw smooth curves (x, y, look) from x = 0, each labeled at its right end.

    Points are interpolated in √x, in which a win rate starts as a straight line. Curves that
    coincide are drawn once, with all their names.
    """
    drawn: list = []
    ends = []
    for name, (x, y, look) in lines.items():
        same = [c for o, c in drawn if len(y) == len(o) and np.abs(np.subtract(y, o)).max() < 0.003]
        if not same:
            root = np.sqrt(np.asarray(x, float))
            fine = np.linspace(0, root[-1], 200)
            axes.plot(fine**2, PchipInterpolator(root, y)(fine), zorder=5 - len(drawn) / 99, **look)
            drawn.append((y, look["color"]))
        words = f"= {name}" if same else name
        ends.append((y[-1], x[-1], words, same[0] if same else look["color"]))
    ends.sort(key=lambda end: end[0])
    low, high = axes.get_ylim()
    gap = 0.05 * (high - low)
    limits = high - gap * np.arange(len(ends))[::-1]
    places = np.minimum(apart([end[0] for end in ends], gap), limits)
    for (_, x, words, color), place in zip(ends, places, strict=True):
        beside(axes, words, x, place, color)


def apart(heights: list[float], gap: float) -> list[float]:
    """Increasing heights, moved apart as little as possible to be at least `gap` apart.

    >>> apart([0.0, 2.0, 2.0, 9.0], 1.0)
    [0.0, 1.5, 2.5, 9.0]
    """
    # Of each stack: the height of its lowest member without the gaps below it, and its size.
    stacks: list = []
    for number, height in enumerate(heights):
        stacks.append((height - number * gap, 1))
        while len(stacks) > 1 and stacks[-2][0] > stacks[-1][0]:
            (a, m), (b, n) = stacks[-2:]
            stacks[-2:] = [((m * a + n * b) / (m + n), m + n)]
    bases = [base for base, count in stacks for _ in range(count)]
    return [base + number * gap for number, base in enumerate(bases)]


def name_increasing(axes: Axes, u, named: Mapping) -> None:
    """Label each increasing curve where it is farthest from the others, on its free side.

    Text to the upper left or lower right of an increasing curve does not cross it. Curves that
    coincide share one label.
    """
    u = np.asarray(u, float)
    middle = (u >= 0.35) & (u <= 0.65)  # leaves room for labels on either side
    merged: list = []
    for name, (curve, color) in named.items():
        values = np.asarray(curve, float)
        twin = next((m for m in merged if np.abs(m[1] - values).max() < 0.02), None)
        if twin:
            twin[0].append(name)
        else:
            merged.append(([name], values, color))
    for names, own, color in merged:
        others = [values for _, values, _ in merged if values is not own]
        gaps = np.array([own - values for values in others] or [own - 1])[:, middle]
        distance = np.abs(gaps).min(0)
        at = int(distance.argmax())
        above = gaps[np.abs(gaps[:, at]).argmin(), at] > 0
        axes.annotate(
            " = ".join(map(label, names)),
            (u[middle][at], own[middle][at]),
            xytext=(-4, 4) if above else (4, -4),
            textcoords="offset points",
            ha="right" if above else "left",
            va="bottom" if above else "top",
            color=color,
            path_effects=HALO,
        )


def spread(heights: list[float], gap: float, top: float) -> list[float]:
    """Heights moved apart to be at least `gap` from each other and at most `top`."""
    order = np.argsort([-height for height in heights], kind="stable")
    placed = dict.fromkeys(range(len(heights)), 0.0)
    ceiling = top
    for index in order:
        placed[index] = min(heights[index], ceiling)
        ceiling = placed[index] - gap
    return list(placed.values())


def level(axes: Axes, height: float, words: str) -> None:
    """A dashed line across the panel, labeled at its right end."""
    axes.axhline(height, color=INK, lw=1.0, ls="--")
    axes.annotate(
        words,
        (1, height),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 3),
        textcoords="offset points",
        ha="right",
        size=8.5,
        color=INK,
        path_effects=HALO,
    )


def stamp(figure: Figure, *, evidence: bool) -> Figure:
    """Mark the figure of a quick run as not evidence, because figures travel without their page."""
    if not evidence:
        figure.supxlabel("quick run: not evidence", size=9, color="#b00020", weight="bold")
    return figure
