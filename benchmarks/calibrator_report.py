"""The page and the figures of `calibrators.py`: made of its results, nothing typed by hand."""

import re
import textwrap
from pathlib import Path

import matplotlib
import numpy as np
from calibrator_worlds import SHAPE_SHARED
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator, PercentFormatter

from infalign.reports import drawing
from infalign.reports.drawing import FAINT, INK, MUTED, PALETTE, STYLE, WIDTH

LOOKS = {
    "counting": (MUTED, "o"),
    "tail": (PALETTE[2], "s"),
    "pooled": (PALETTE[4], "D"),
    "pooled-ranks": (PALETTE[0], "P"),
    "regression": (PALETTE[3], "^"),
    "refined": (PALETTE[1], "v"),
}
"""Color and marker of each calibrator, in the order of the figures and the tables."""

ALLOWED = 0.002
"""Win rate that a calibrator may lose to counting: 0.2 points."""

TARGETS = {4: 0.7, 16: 0.9}
"""Share of the gain to be kept, by K, where prompts share a shape."""

LEAST_GAIN = 0.02
"""Win rate that exact quantiles must gain over the identity for shares of it to mean anything."""

COLUMNS = 4

INTRO = """# Calibrators, judged

Written by `make calibrators`; nothing here is typed by hand.

The win rate of a policy trained on each calibrator's rewards, by theory and before anything is
trained, at {kl} nats: `judge` in `infalign.calibration`. *Identity* and *K = ∞* are
calibrated exactly; the calibrators train on {transforms}. *Kept* is the share of what K = ∞ gains
over the identity, where that is 2 points or more. {prompts} prompts, {rounds} {times};
standard errors are those of prompts.
`refined` has K samples of a policy beside, one trained on counted quantiles: it costs K more
samples, and training draws them anyway. `chosen` is the one of `ecdf`, `pooled` and `pooled-ranks`
that held-out samples choose in a run.

Known laws: *normal, one scale* differs between prompts in location only, *normal*, *skewed* (gamma)
and *heavy-tailed* (Student's t, 3 degrees) also in scale, by a quarter; in *own shapes* a quarter
of the prompts each are normal, skewed to either side, and two-peaked; *levels* are rounded normal
rewards. Features tell half of the variance of the location and nothing of the scale. *bundled
models* are {bundled} samples of the bundled language model for each of {prompts} prompts, scored
for harmlessness; features are its last hidden state. {public}"""


def page(results: dict) -> str:
    """The results as a page of Markdown."""
    plan, tasks = results["plan"], results["tasks"]
    public = (
        "*rewardbench_bon16* (11 judged samples of each of 805 prompts) and *game24* (100 samples, "
        "passed or failed, of 200) are public samples; where K samples calibrate, the others judge."
        if results["data"]
        else "Public samples were not at hand and are left out: `--data` names their folder."
    )
    intro = INTRO.format(
        kl=0.5,
        transforms=" and ".join(f"`{spec}` for {task}" for task, spec in tasks.items()),
        prompts=plan["prompts"],
        rounds=plan["rounds"],
        times="calibration" if plan["rounds"] == 1 else "calibrations",
        bundled=plan["bundled"],
        public=public,
    ).split("\n\n")
    lines = ["\n\n".join(textwrap.fill(part, 100, break_on_hyphens=False) for part in intro)]
    lines += [*_targets(results), *_rule(results)]
    for task in tasks:
        lines += [
            f"\n## {task}\n\n![Share of the gain that is kept](images/calibrators_{task}.png)"
        ]
        for world in _worlds(results):
            lines += _table(world, [c for c in results["cases"] if c["world"] == world], task)
    return "\n".join(lines) + "\n"


def _worlds(results: dict) -> list[str]:
    return list(dict.fromkeys(case["world"] for case in results["cases"]))


def kept(rows: dict, name: str) -> tuple[float, float]:
    """Share of the gain of exact quantiles over the identity that is kept, and its standard error,
    by the paired difference to exact ones; nan where there is no gain."""
    if not {"identity", "exact", name} <= rows.keys():
        return float("nan"), float("nan")
    low, high = rows["identity"]["value"], rows["exact"]["value"]
    if high - low < LEAST_GAIN:
        return float("nan"), float("nan")
    short = rows[name]["over_exact"]
    return 1 + short["value"] / (high - low), short["stderr"] / (high - low)


def _percent(value: float, stderr: float) -> str:
    return "" if np.isnan(value) else f"{100 * value:.0f} ± {100 * stderr:.0f} %".replace("-", "−")


def _targets(results: dict) -> list[str]:
    """Whether the share that is to be kept is kept, where prompts share a shape."""
    task = next(iter(results["tasks"]))
    names = [name for name in LOOKS if name != "refined"]
    lines = [
        f"\n## Targets\n\nWhere prompts share a shape, {task} is to keep "
        + " and ".join(f"{100 * t:.0f} % with K = {k}" for k, t in TARGETS.items())
        + ". Kept, bold where the target is met:\n",
        "| prompts | K | " + " | ".join(names) + " |",
        "| --- | ---: |" + " ---: |" * len(names),
    ]
    for case in results["cases"]:
        target = TARGETS.get(case["samples"])
        if case["world"] in SHAPE_SHARED and target:
            found = [kept(case[task], name) for name in names]
            cells = [f"**{_percent(*f)}**" if f[0] >= target else _percent(*f) for f in found]
            lines.append(f"| {case['world']} | {case['samples']} | {' | '.join(cells)} |")
    return lines


def _rule(results: dict) -> list[str]:
    """Where a calibrator is worse than counting by more than it may."""
    lines = [
        f"\n## Never worse than counting by more than {100 * ALLOWED:g} points\n\n"
        "*Worse*: by more than that and two standard errors of the paired difference. *Not shown*: "
        "more than that, but within two standard errors.\n",
        "| calibrator | task | cases | worse | not shown | least difference, points |",
        "| --- | --- | ---: | --- | --- | --- |",
    ]
    for name in (*[n for n in LOOKS if n != "counting"], "chosen"):
        for task in results["tasks"]:
            found = [
                (c["world"], c["samples"], c[task][name]["over_counting"])
                for c in results["cases"]
                if "over_counting" in c[task].get(name, {})
            ]
            if not found:
                continue
            low = [f for f in found if f[2]["value"] < -ALLOWED]
            worse = [f for f in low if f[2]["value"] + 2 * f[2]["stderr"] < -ALLOWED]
            least = min(found, key=lambda f: f[2]["value"])
            lines.append(
                f"| {name} | {task} | {len(found)} | {_where(worse)} "
                f"| {_where([f for f in low if f not in worse])} "
                f"| {_points(least[2])} ({least[0]}, K = {least[1]}) |"
            )
    return lines


def _where(cases: list) -> str:
    return "; ".join(f"{world}, K = {k}: {_points(d)}" for world, k, d in cases) or "none"


def _points(difference: dict) -> str:
    told = f"{100 * difference['value']:+.2f} ± {100 * difference['stderr']:.2f}"
    return told.replace("-", "−")


def _table(world: str, cases: list[dict], task: str) -> list[str]:
    names = [n for n in (*LOOKS, "chosen") if any(n in case[task] for case in cases)]
    rows = []
    for case in cases:
        own = case[task]
        cells = []
        for name in names:
            if name not in own:
                cells.append("out of reach")
                continue
            told = f"{100 * own[name]['value']:.1f} ± {100 * own[name]['stderr']:.1f}"
            share = kept(own, name)[0]
            cells.append(told if np.isnan(share) else f"{told} · {100 * share:.0f} %")
        ends = [f"{100 * own[n]['value']:.1f}" if n in own else "" for n in ("identity", "exact")]
        chosen = ", ".join(dict.fromkeys(case["chosen"]))
        if "chosen" in names:
            cells[-1] += f" ({chosen})"
        rows.append(f"| {case['samples']} | {ends[0]} | {' | '.join(cells)} | {ends[1]} |")
    return [
        f"\n### {world}: {task}\n\nWin rates in per cent · share of the gain that is kept.\n",
        f"| K | identity | {' | '.join(names)} | K = ∞ |",
        "| ---: | ---: |" + " ---: |" * (len(names) + 1),
        *(re.sub(r"-(?=\d)", "−", row) for row in rows),
    ]


def figures(results: dict, images: Path) -> None:
    """One figure per task into `images`."""
    images.mkdir(parents=True, exist_ok=True)
    for task in results["tasks"]:
        drawing.save_png(figure(results, task), images / f"calibrators_{task}.png")


@matplotlib.rc_context(STYLE)
def figure(results: dict, task: str) -> Figure:
    """Share of the gain that each calibrator keeps by K, one panel per world."""
    worlds = [
        w for w in _worlds(results) if np.isfinite(_lines(results, w, task)["counting"]).any()
    ]
    rows = -(-len(worlds) // COLUMNS)
    drawn = Figure(figsize=(WIDTH, 0.7 + 2.15 * max(rows, 1)), layout="constrained")
    axes = drawn.subplots(rows or 1, COLUMNS, sharey=True, squeeze=False).ravel()
    for at, (world, panel) in enumerate(zip(worlds, axes, strict=False)):
        _panel(panel, results, world, task, first=at % COLUMNS == 0)
    for panel in axes[len(worlds) :]:
        panel.set_axis_off()
    for panel in axes[max(len(worlds) - COLUMNS, 0) : len(worlds)]:
        panel.set_xlabel("K")
    names = [n for n in LOOKS if any(n in c[task] for c in results["cases"])]
    drawing.key(drawn, [_entry(name) for name in names])
    drawn.supylabel(f"share of the gain kept, {task}", size=9.5, color=INK)
    return drawn


def _entry(name: str):
    color, marker = LOOKS[name]
    return Line2D([], [], color=color, marker=marker, lw=1.6, markersize=5), name


def _lines(results: dict, world: str, task: str) -> dict[str, np.ndarray]:
    """K, share kept and its standard error of each calibrator on one world, (3, cases)."""
    cases = [c for c in results["cases"] if c["world"] == world]
    told = {
        name: np.array([(c["samples"], *kept(c[task], name)) for c in cases]).T for name in LOOKS
    }
    return {
        name: line if np.isfinite(line[1]).any() else line * np.nan for name, line in told.items()
    }


def _panel(panel, results: dict, world: str, task: str, *, first: bool) -> None:
    for level in (0, 1):
        panel.axhline(level, color=INK, lw=0.9, ls="--" if level else "-", zorder=1)
    for name, (k, share, error) in _lines(results, world, task).items():
        color, marker = LOOKS[name]
        # Where others fall back to counting, it is what is seen.
        order = 4 if name == "counting" else 3
        known = np.isfinite(share)
        if not known.any():
            continue
        panel.fill_between(
            k[known], (share - error)[known], (share + error)[known], color=color, alpha=0.15, lw=0
        )
        panel.plot(
            k[known],
            share[known],
            color=color,
            marker=marker,
            markersize=4.5,
            markeredgecolor="white",
            markeredgewidth=0.5,
            lw=1.6,
            zorder=order,
        )
    samples = results["plan"]["samples"]
    panel.set_xscale("log", base=2)
    panel.set_xlim(samples[0] / 1.25, samples[-1] * 1.25)
    panel.set_xticks(samples, [str(k) for k in samples])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_ylim(-0.4, 1.12)
    panel.yaxis.set_major_formatter(PercentFormatter(1))
    panel.set_title(world, size=9.5)
    drawing.grid(panel)
    panel.grid(axis="y", color=FAINT, lw=0.6)
    if first:
        for level, words in ((1, "K = ∞"), (0, "identity")):
            panel.annotate(
                words,
                (samples[-1] * 1.2, level),
                xytext=(0, 3),
                textcoords="offset points",
                ha="right",
                size=7.5,
                color=INK,
                path_effects=drawing.HALO,
            )
