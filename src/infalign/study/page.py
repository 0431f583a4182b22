"""The page of a study: tables that sort, the frontier, win rates over n, and every cell."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from markupsafe import Markup

from infalign import __version__, storage
from infalign._pages import Column, document, environment, read, table
from infalign.comparison.comparison import SELECTING
from infalign.core import families, words
from infalign.reports.drawing import save_png
from infalign.reports.tables import Table

from .origin import origin_words
from .plots import by_kl, largest_kl
from .quantities import JUDGE
from .tables import curves, main_table, side_by_side

__all__ = ["build_page", "write_page"]

INTERVALS = (
    "Each interval is about the mean over all prompts like these and over all trainings with other "
    "seeds: prompts and seeds are crossed factors. Its half-width is √(a² + b²), where a is the "
    "half-width over prompts and b that of the means of the seeds, by Student's t. It holds at "
    "least as often as it says, and with 2 seeds it is wide. A difference is paired by prompt and "
    "by seed. The difference to the best rival is the least of all differences to rivals: its "
    "lower end is the least of their lower ends, and its upper end the least of their upper ends "
    "at 95 % for all of them together, so that it holds whichever rival is the best. It is about "
    "one method that was named beforehand. The sentences above also allow for the choice among "
    "their methods: where they do not say that a lead may be chance, it is one in 40 times at most."
)
POOLED = " The variance between seeds is pooled over all methods and KLs of a task."


def write_page(folder: Path, results: Mapping) -> Path:
    """Write `folder`/report.html and a figure for each task in `folder`/plots; returns the page."""
    for task in results["tasks"]:
        if _measured(task):
            save_png(by_kl(task, results["evidence"]), folder / "plots" / f"{task['task']}.png")
    storage.write_text(folder / "report.html", build_page(results))
    return folder / "report.html"


def build_page(results: Mapping) -> str:
    """The page as HTML."""
    finished, cells = results["finished"], results["cells"]
    template = environment().from_string(read(__package__, "page.html"))
    body = template.render(
        title="Training methods compared",
        summary=f"{finished} of {cells} trainings are finished"
        + (f"; {failed} failed." if (failed := _failed(results)) else "."),
        origin=origin_words(results["made"]),
        results=results,
        tasks=[_task(number, task) for number, task in enumerate(results["tasks"])],
        families=families(),
        note=INTERVALS + (POOLED if results["seed_variance"] == "pooled" else ""),
        footer=f"Written by infalign {__version__}. results.json holds every number.",
    )
    data = [_data(task) for task in results["tasks"]]
    return document(
        "Training methods compared",
        Markup(body),
        style=STYLE,
        scripts=(read(__package__, "page.js"),),
        data={"study": data},
    )


def _failed(results: Mapping) -> int:
    arms = (arm for task in results["tasks"] for arm in task["arms"])
    return sum("error" in cell for arm in arms for cell in arm["cells"])


STYLE = """
.page { max-width: 68rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
.two, .warning + h3 { margin-top: 1.25rem; }
.two > :first-child:nth-last-child(odd) { grid-column: 1 / -1; }
@media (max-width: 46rem) { .two { grid-template-columns: minmax(0, 1fr); } }
"""


def _task(number: int, task: Mapping) -> dict:
    """What the template shows of a task."""
    tables = []
    for reward in (SELECTING, *task["gold"]):
        if reward != SELECTING:
            tables.append(main_table(task, reward))
        tables += [
            main_table(task, reward, spec)
            for spec in task["procedures"]
            if spec != task["procedure"]
        ]
        tables.append(curves(task, reward, intervals=True))
    if task["judge"]:
        tables.append(main_table(task, JUDGE))
    tables += side_by_side(task)
    methods = task["methods"]
    prompts = "" if task["prompts"] is None else f"{task['prompts']} "
    return {
        "number": number,
        "task": task["task"],
        "words": words(task["procedure"]),
        "facts": (
            f"{prompts}held-out prompts × "
            f"{task['samples']} responses; model {task['model']}, reward {task['reward']}."
        ),
        "sentences": list(_sentences(task)),
        "main": _markup(main_table(task, SELECTING), methods),
        "tables": [{"title": t.title, "table": _markup(t, methods)} for t in tables if t.rows],
        "largest_kl": f"{largest_kl(_measured(task), max(task['kls'])):g}",
        "cells": _cells(task),
    }


def _sentences(task: Mapping) -> Iterator[str]:
    """What the data show about the best candidate at each KL."""
    candidates = task["candidates"]
    for kl in task["kls"]:
        arms = [a for a in _measured(task) if a["target_kl"] == kl and a["method"] in candidates]
        if not arms:
            continue
        rates = {a["method"]: a["win_rates"][SELECTING][task["procedure"]] for a in arms}
        best = max(rates, key=lambda name: rates[name]["value"])
        ahead = rates[best]["to_best"]
        of = "" if len(candidates) == len(task["methods"]) else f" of {', '.join(rates)}"
        sentence = f"At {kl:g} nats, {best} has the highest win rate{of}, "
        sentence += f"{100 * rates[best]['value']:.1f} %."
        if ahead is not None:
            where = "ahead of" if ahead["value"] >= 0 else "behind"
            sentence += (
                f" It is {where} its best rival, {ahead['rival']}, by "
                f"{100 * abs(ahead['value']):.1f} points"
            )
            sentence += "" if ahead["ahead"] or ahead["value"] < 0 else ", which may be chance"
            if ahead["seed_variance"] is None:
                sentence += "; how much other seeds would differ is not known"
            sentence += "."
        yield sentence


def _markup(made: Table, methods: list[str]) -> Markup:
    made = made.visible()
    columns = [
        Column(name, words=name in ("method", "procedure", "best rival"), mark=name == "method")
        for name in made.head
    ]
    notes = Markup("").join(Markup('<p class="warning">{}</p>').format(n) for n in made.notes)
    return table(made.title, columns, made.rows, methods) + notes


def _cells(task: Mapping) -> Markup:
    head = ("folder", "seed", "KL, nats", "win rate, %", "state")
    rows = []
    for arm in task["arms"]:
        for cell in arm["cells"]:
            rate = cell.get("win_rates", {}).get(task["procedure"])
            kl = cell.get("kl")
            rows.append(
                (
                    cell["folder"],
                    str(cell["seed"]),
                    "" if kl is None else f"{kl:.3f}",
                    "" if rate is None else f"{100 * rate:.1f}",
                    "failed" if "error" in cell else "finished" if cell["finished"] else "due",
                )
            )
    columns = [Column(name, words=name in ("folder", "state")) for name in head]
    return table(f"Cells of {task['task']}", columns, rows)


def _measured(task: Mapping) -> list[Mapping]:
    return [arm for arm in task["arms"] if "win_rates" in arm]


def _data(task: Mapping) -> dict:
    """What the scripts draw."""
    arms, spec = _measured(task), task["procedure"]
    color = {method: index for index, method in enumerate(task["methods"])}
    points = []
    for arm in arms:
        rate = arm["win_rates"][SELECTING][spec]
        if arm["kl"] is not None:
            known = {k: rate["value"] if rate[k] is None else rate[k] for k in ("low", "high")}
            own = {"method": arm["method"], "color": color[arm["method"]], "kl": arm["kl"]["value"]}
            points.append(own | {"value": rate["value"], **known})
    last = [arm for arm in arms if arm["target_kl"] == largest_kl(arms)]
    return {
        "name": task["task"],
        "points": points,
        "frontier": list(zip(*task["frontier"].values(), strict=True)),
        "families": [
            {
                "name": name,
                "curves": [
                    {
                        "method": arm["method"],
                        "color": color[arm["method"]],
                        "points": [[r["n"], r["value"]] for r in arm["by_n"][SELECTING][name]],
                    }
                    for arm in last
                ],
            }
            for name in families()
        ],
    }
