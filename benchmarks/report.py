"""The measurements of `run.py` as a page of tables and as figures."""

import json
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from infalign.reports import drawing
from infalign.reports.drawing import MUTED, PALETTE, STYLE, WIDTH
from infalign.storage import write_text

DESIGN_AIM, FRONTIER_AIM, RATIO_AIM = 5e-3, 60e-3, 1000
"""Aims of the package: seconds, seconds, and a ratio of times."""

COMMAND_AIM = 1.0
"""Aim for `infalign design` with its default candidates, in seconds over the imports."""

SORT_AIM, RESAMPLING_AIM = 5, 400
"""Aims for win rates from samples: time relative to a sort, speed relative to resampling."""

COVERAGE_AIM = (0.93, 0.97)
"""Aim for the share of 95 % intervals that contain the truth."""

QUIET = 0.7
"""Load average before the start up to which the machine counts as quiet."""

SATURATED = 1 - 1e-12
"""Win rate above which a design is marked."""


def write(results: dict, out: Path) -> None:
    """Write the results, the page and the figures to their places in the repository."""
    images = out / "docs" / "images"
    for folder in (out / "benchmarks", images):
        folder.mkdir(parents=True, exist_ok=True)
    write_text(out / "benchmarks" / "results.json", json.dumps(results, indent=1) + "\n")
    write_text(out / "docs" / "benchmarks.md", page(results))
    for name, draw in FIGURES.items():
        drawing.save_png(draw(results), images / f"bench_{name}.png")


def page(results: dict) -> str:
    """docs/benchmarks.md."""
    return PAGE.format(
        machine=_machine(results["machine"]),
        cells=results["fixed_points"][0]["cells"],
        designs=_designs(results["designs"]),
        frontiers=_frontiers(results["frontiers"]),
        fixed_points=_fixed_points(results["fixed_points"]),
        budgets=_budgets(results["fixed_points"]),
        finite=_finite(results["finite"]),
        estimators=_estimators(results["estimators"]),
        coverage=_coverage(results["coverage"]),
        waits=_waits(results["waits"]) if "waits" in results else "Not measured.",
    )


PAGE = """# Benchmarks

`make bench` measures and writes this page. Each time is the minimum of up to nine repetitions after
a warm-up; medians are in `benchmarks/results.json`.

{machine}

## One design

Time of `infalign.design(procedure, kl=…)`, without earlier results, in milliseconds. In
parentheses: the time including `.transform`, the table that training uses.

{designs}

† The win rate is within 1e-12 of 1, and β is even smaller. Training at this β would need more
digits than it has.

![Time of one design against n and against KL](images/bench_growth.png)

## A frontier

Time of `infalign.core.frontier`, which predicts each optimum from those at larger budgets, compared
with the same number of `design` calls and with `infalign.compare(procedure, [], kl=…)`, the
function that users call.

{frontiers}

## How long one waits

Seconds of processor time, as `benchmarks/waits.py` measures them, in milliseconds. *solve_bvp* is
`scipy.integrate.solve_bvp` on the same boundary-value problem, with the tilt of the reference at
the requested KL as its start: how many designs it solves to four digits of the win rate, and the
median ratio of its time to that of `infalign.design` there. Designs whose win rate is 1 to nine
digits are left out. *Commands* are `infalign design` with its default candidates, without the
imports, compared with the design inside it; *refused* ends with an error, mostly because the win
rate exceeds double precision.

{waits}

## Comparison with the paper's fixed-point iteration

The paper's `bon_fp` and `won_fp` iterations are `infalign.fixed_point` here. The iteration runs at
the β of a design, with the best damping among 1 (none), 1/2, 1/4, …; without damping it does not
converge for most best-of-n procedures.

- *Own grid*: {cells:,} equal cells. The iteration stops when its win rate is within 1e-9 of its
  limit *on that grid*. The grid's own error is in the next column, so this result is less accurate
  than the design.
- *Equal accuracy*: enough cells for a grid error of 1e-9. The design's error is even smaller: `gap`
  bounds the distance of its W − β KL from the optimum. *Difference* is that between its win rate
  and the fixed point extrapolated from two grids; it is mostly the error of the extrapolation.
- A time marked ~ is extrapolated from the first steps, since all steps take the same time.

{fixed_points}

Users have a budget in nats, which does not determine β directly: the iteration must be run for one
β after another. Here the search for β starts within a factor of 1.5 of the solution and stops when
the KL is correct to 1e-9, on {cells:,} cells.

{budgets}

For worst-of-n against itself the iteration works well: it needs no damping, never lowers W − β KL,
and each step multiplies the error by at most 0.37. A design still has three advantages: it takes a
budget instead of β, bounds its own error, and is more accurate. For best-of-n the mass lies within
1/n of the top, where there are few equal cells, and a larger n needs stronger damping.

![Error against time](images/bench_accuracy.png)

Stars are designs; their error is the difference between their win rate and the extrapolation from
the two finest grids.

## Finite outcome sets

Time of `infalign.finite.solve` with distinct rewards at β = 0.2, in milliseconds.

{finite}

## Win rates from samples

Time of `infalign.win_rate`, including its interval, compared with `np.sort` of both sides along
their samples, and with resampling: the best of n samples is drawn with replacement, 1,000 times per
prompt and side. Resampling draws all samples of a prompt either in one array or one after another
in a loop (`~`: extrapolated from two prompts). The estimate is the exact mean over all subsets;
resampling is noisy, and biased for any number of resamples.

{estimators}

![Time of a win rate against samples and prompts](images/bench_estimators.png)

## Coverage of intervals

Share of simulated evaluations whose 95 % interval contains the truth, in percent. In parentheses:
the shares of intervals entirely above and entirely below the truth. *Default* is the interval of
every estimate: the wider of `SkewCorrected()` and `Student()`, the t interval, and for rates and
differences at least what the prompts cannot exclude, a share of about 3/P of all prompts at either
bound. It holds the truth more often than 95 % where most prompts are at a bound or hardly differ.
*Bootstrap* is studentized, `Bootstrap(seed)`; it and *Student* are shown without the allowance.
The docstrings of `benchmarks/intervals.py` describe the cases.

{coverage}
"""


def _machine(machine: dict) -> str:
    load = machine["load_at_start"]
    shared = (
        " Other work shared the machine, so times and ratios of times may be off by a factor of 2."
        if load > QUIET
        else ""
    )
    return (
        f"{machine['processor']}, {machine['cores_used']} of {machine['cores']} cores; Python "
        f"{machine['python']}, numpy {machine['numpy']}, scipy {machine['scipy']}. Load average "
        f"before the start: {load:.1f}.{shared}"
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ms(seconds: float, aim: float = float("inf")) -> str:
    """Milliseconds, bold above the aim."""
    text = f"{1e3 * seconds:.3g}" if seconds < 0.1 else f"{1e3 * seconds:,.0f}"
    return f"**{text}**" if seconds > aim else text


def _times(ratio: float) -> str:
    return f"{ratio:.2g}×" if ratio < 10 else f"{ratio:,.0f}×"


def _meet(good: int) -> str:
    return "meets" if good == 1 else "meet"


def _within(values: list[float], aim: float, what: str, unit: str) -> str:
    good = sum(v <= aim for v in values)
    return (
        f"Aim: at most {1e3 * aim:.0f} {unit}. {good} of {len(values)} {what} {_meet(good)} it"
        + ("." if good == len(values) else "; the others are bold.")
    )


def _designs(rows: list[dict]) -> str:
    kls = sorted({row["kl"] for row in rows})
    names = list(dict.fromkeys(row["procedure"] for row in rows))
    cells = {
        (row["procedure"], row["kl"]): f"{_ms(row['design']['min'], DESIGN_AIM)} "
        f"({_ms(row['with_transform']['min'])}){'†' if row['win_rate'] > SATURATED else ''}"
        for row in rows
    }
    table = _table(
        ["", *(f"{kl:g} nats" for kl in kls)],
        [[name, *(cells[name, kl] for kl in kls)] for name in names],
    )
    return f"{_within([r['design']['min'] for r in rows], DESIGN_AIM, 'designs', 'ms')}\n\n{table}"


def _frontiers(rows: list[dict]) -> str:
    points = rows[0]["points"]
    table = _table(
        ["", "frontier, ms", "compare, ms", f"{points} designs, ms", "designs / frontier"],
        [
            [
                row["procedure"],
                _ms(row["frontier"]["min"], FRONTIER_AIM),
                _ms(row["compare"]["min"], FRONTIER_AIM),
                _ms(row["designs"]["min"]),
                _times(row["ratio"]),
            ]
            for row in rows
        ],
    )
    aim = _within([r["frontier"]["min"] for r in rows], FRONTIER_AIM, "frontiers", "ms")
    return f"{points} budgets. {aim}\n\n{table}"


def _waits(parts: dict) -> str:
    head = ["", "designs", "median", "95 %", "worst", "solve_bvp solves", "ratio"]
    designs = [
        [
            row["family"],
            str(row["designs"]),
            *(_ms(row[name]) for name in ("p50", "p95", "worst")),
            str(row["solve_bvp"]),
            _times(row["ratio"]) if row["ratio"] else "–",
        ]
        for row in parts["designs"]
    ]
    head_2 = ["", "points", "frontier", "single designs / frontier"]
    frontiers = [
        [
            row["procedure"],
            str(row["points"]),
            _ms(row["frontier"], FRONTIER_AIM),
            _times(row["ratio"]),
        ]
        for row in parts["frontiers"]
    ]
    head_3 = ["", "commands", "median", "95 %", "worst", "refused", "command / design"]
    commands = [
        [
            row["procedure"],
            str(row["commands"]),
            *(_ms(row[name], COMMAND_AIM) for name in ("p50", "p95", "worst")),
            str(row["refused"]),
            _times(row["ratio"]),
        ]
        for row in parts["commands"]
    ]
    tables = _table(head, designs), _table(head_2, frontiers), _table(head_3, commands)
    return "\n\n".join(tables)


def _fixed_points(rows: list[dict]) -> str:
    head = ["", "KL", "design, ms", "gap", "difference", "damping", "steps", "own grid, ms"]
    head += ["its error", "ratio", "cells for 1e-9", "ms", "ratio"]
    lines = []
    for row in rows:
        equal, roads = row["equal"], abs(row["extrapolated_win_rate"] - row["win_rate"])
        lines.append(
            [
                row["procedure"],
                f"{row['kl']:g}",
                _ms(row["design"]["min"]),
                f"{row['gap']:.0e}",
                f"{roads:.0e}",
                f"1/{1 / row['damping']:.0f}" if row["damping"] < 1 else "none",
                str(row["steps"]),
                _ms(row["fixed_point"]["min"]),
                f"{row['grid_error']:.0e}",
                _times(row["ratio"]),
                f"{equal['cells']:,}",
                ("" if equal["measured"] else "~") + _ms(equal["seconds"]),
                _times(row["equal_ratio"]),
            ]
        )
    ratios = [row["equal_ratio"] for row in rows]
    good = sum(ratio >= RATIO_AIM for ratio in ratios)
    aim = (
        f"Aim: {RATIO_AIM:,} times faster at equal accuracy. {good} of {len(rows)} cases "
        f"{_meet(good)} it; the ratios are {_times(min(ratios))} to {_times(max(ratios))}."
    )
    return f"{_table(head, lines)}\n\n{aim}"


def _budgets(rows: list[dict]) -> str:
    return _table(
        ["", "KL", "design, ms", "fixed point, ms", "its runs", "ratio"],
        [
            [
                row["procedure"],
                f"{row['kl']:g}",
                _ms(row["budget"]["design"]["min"]),
                _ms(row["budget"]["fixed_point"]["min"]),
                str(row["budget"]["runs"]),
                _times(row["budget_ratio"]),
            ]
            for row in rows
        ],
    )


def _finite(rows: list[dict]) -> str:
    names = list(dict.fromkeys(row["procedure"] for row in rows))
    sizes = sorted({row["outcomes"] for row in rows})
    times = {(row["procedure"], row["outcomes"]): _ms(row["solve"]["min"]) for row in rows}
    return _table(
        ["outcomes", *(f"{size:,}" for size in sizes)],
        [[name, *(times[name, size] for size in sizes)] for name in names],
    )


def _estimators(rows: list[dict]) -> str:
    first = rows[0]
    head = ["rewards", "win rate, ms", "sort, ms", "win rate / sort"]
    head += ["resampling, ms", "ratio", "in a loop, ms", "ratio"]
    table = _table(
        head,
        [
            [
                row["rewards"],
                _ms(row["estimate"]["min"]),
                _ms(row["sort"]["min"]),
                f"{row['per_sort']:.1f}",
                _ms(row["resampled"]["min"]) if "resampled" in row else "–",
                _times(row["ratio"]) if "ratio" in row else "–",
                f"~{_ms(row['looped_seconds'])}" if "ratio" in row else "–",
                _times(row["looped_ratio"]) if "ratio" in row else "–",
            ]
            for row in rows
        ],
    )
    return (
        f"{first['prompts']:,} prompts, {first['samples']} against {first['samples']} samples, "
        f"{first['procedure']}. Aims if all rewards differ: at most {SORT_AIM} times a sort, and "
        f"{RESAMPLING_AIM} times faster than resampling; {_met(first)}.\n\n{table}"
    )


def _met(row: dict) -> str:
    """The aims that one row of `estimators` meets, in words."""
    sort = "met" if row["per_sort"] <= SORT_AIM else "not met"
    arrays, loop = (
        "met" if row[key] >= RESAMPLING_AIM else "not met" for key in ("ratio", "looped_ratio")
    )
    return f"the first is {sort}, the second is {arrays} in arrays and {loop} in a loop"


def _coverage(rows: list[dict]) -> str:
    kinds = ("default", "Student", "bootstrap")

    def cell(measured):
        shares = [100 * measured[key] for key in ("holds", "above", "below")]
        inside = COVERAGE_AIM[0] <= measured["holds"] <= COVERAGE_AIM[1]
        text = f"{shares[0]:.1f}" if inside else f"**{shares[0]:.1f}**"
        return f"{text} ({shares[1]:.1f}, {shares[2]:.1f})"

    table = _table(
        ["", "prompts", *kinds, "width of default", "of Student"],
        [
            [
                row["case"],
                str(row["prompts"]),
                *(cell(row[kind]) for kind in kinds),
                *(f"{row[kind]['width']:.3f}" for kind in kinds[:2]),
            ]
            for row in rows
        ],
    )
    low, high = (f"{100 * end:.0f}" for end in COVERAGE_AIM)
    inside = {
        kind: sum(COVERAGE_AIM[0] <= row[kind]["holds"] <= COVERAGE_AIM[1] for row in rows)
        for kind in kinds
    }
    short = {kind: sum(row[kind]["holds"] < COVERAGE_AIM[0] for row in rows) for kind in kinds}
    met = "; ".join(
        f"{kind}: {inside[kind]} of {len(rows)} inside, {short[kind]} below" for kind in kinds
    )
    error = 100 * np.sqrt(0.95 * 0.05 / rows[0]["runs"])
    again = 100 * np.sqrt(0.95 * 0.05 / rows[0]["bootstrap_runs"])
    return (
        f"Aim: {low} to {high} %; others are bold. {met}. {rows[0]['runs']:,} evaluations a case, "
        f"standard error {error:.1f} points ({rows[0]['bootstrap_runs']:,} and {again:.1f} for the "
        f"bootstrap).\n\n{table}"
    )


@matplotlib.rc_context(STYLE)
def growth(results: dict) -> Figure:
    """Time of one design against n, and against KL."""
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _growth(left, results["growth_in_n"], "n", lambda r: (r["procedure"].split(":")[0], r["kl"]))
    left.set_xscale("log", base=2)
    left.set_xticks([2**k for k in range(0, 11, 2)], [str(2**k) for k in range(0, 11, 2)])
    left.set_title("One design, as n grows")
    left.set_xlabel("n")
    left.set_ylabel("milliseconds, one core")
    _growth(right, results["growth_in_kl"], "kl", lambda r: (r["procedure"], None))
    right.set_xscale("log")
    right.set_title("… and as the budget grows")
    right.set_xlabel("KL (nats)")
    right.xaxis.set_major_formatter("{x:g}")
    for axes in (left, right):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        drawing.grid(axes)
        axes.axhline(1e3 * DESIGN_AIM, color=MUTED, lw=1, ls=(0, (1, 2)))
        axes.legend(frameon=False, fontsize=8, loc="upper left")
    left.text(1024, 1.06e3 * DESIGN_AIM, "aim", color=MUTED, size=8, ha="right", va="bottom")
    return figure


def _growth(axes: Axes, rows: list[dict], x: str, group) -> None:
    curves: dict = {}
    for row in rows:
        if "design" in row:
            curves.setdefault(group(row), []).append((row[x], 1e3 * row["design"]["min"]))
    styles = ("-", "--")
    for index, (name, points) in enumerate(curves.items()):
        label = name[0] if name[1] is None else f"{name[0]}, {name[1]:g} nats"
        axes.plot(
            *zip(*points, strict=True),
            color=PALETTE[index // 2],
            ls=styles[index % 2],
            marker="o",
            ms=2.5,
            lw=1.4,
            label=label,
        )


@matplotlib.rc_context(STYLE)
def accuracy(results: dict) -> Figure:
    """Error against time: the fixed point as its cells grow, and one design."""
    figure = Figure(figsize=(WIDTH, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log")
    axes.set_title("Fixed point on finer grids, compared with one design")
    axes.set_xlabel("milliseconds, one core")
    axes.set_ylabel("error of the win rate")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter(lambda x, _: f"1e{np.log10(x):.0f}")
    for index, row in enumerate(results["accuracy"]):
        times = [1e3 * p["fixed_point"]["min"] for p in row["grids"]]
        errors = [p["error"] for p in row["grids"]]
        color = PALETTE[index]
        label = f"{row['procedure']}, {row['kl']:g} nats"
        axes.plot(times, errors, "o-", color=color, ms=3.5, lw=1.4, label=label)
        design = 1e3 * row["design"]["min"], max(row["two_roads"], 1e-16)
        axes.plot(*design, "*", color=color, ms=12, mec="white", mew=0.6)
    axes.plot([], [], "*", color=MUTED, ms=10, label="one design each")
    drawing.grid(axes)
    axes.legend(frameon=False, fontsize=8.5)
    return figure


@matplotlib.rc_context(STYLE)
def estimators(results: dict) -> Figure:
    """Time of a win rate, and of sorting its samples, against samples and against prompts."""
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    for axes, grows in zip(figure.subplots(1, 2, sharey=True), ("samples", "prompts"), strict=True):
        rows = [row for row in results["estimators_growth"] if row["grows"] == grows]
        sizes = [row[grows] for row in rows]
        for (key, label), color in zip(
            (("estimate", "win rate and its interval"), ("sort", "np.sort of both sides")),
            PALETTE,
            strict=False,
        ):
            times = [1e3 * row[key]["min"] for row in rows]
            axes.plot(sizes, times, "o-", color=color, ms=2.5, lw=1.4, label=label)
        other = "prompts" if grows == "samples" else "samples"
        axes.set(
            xscale="log", yscale="log", xlabel=f"{grows}{' a side' if other == 'prompts' else ''}"
        )
        axes.set_title(f"As {grows} grow, {rows[0][other]:,} {other}")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda x, _: f"{x:,g}")
        drawing.grid(axes)
    figure.axes[0].set_ylabel("milliseconds, one core")
    figure.axes[0].legend(frameon=False, fontsize=8, loc="upper left")
    return figure


FIGURES = {"growth": growth, "accuracy": accuracy, "estimators": estimators}
