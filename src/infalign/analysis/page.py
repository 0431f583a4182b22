"""An analysis as one self-contained page: verdicts, curves with their bands, tables."""

from collections.abc import Sequence
from datetime import date
from typing import Any

from markupsafe import Markup

from infalign import __version__
from infalign._check import visible
from infalign._pages import Column, document, environment, read, table
from infalign.reports.tables import Table, filled

from .analysis import Analysis
from .curve import Curve
from .forecasts import Forecasts
from .judging import Judgment
from .judgment_tables import JUDGED_NOTE, judgment_tables
from .tables import analysis_tables, as_json

__all__ = ["analysis_page", "judgment_page", "verdict_sentence"]

MARKED = "policy"
"""The column whose cells get the colors of the curves."""


def analysis_page(analysis: Analysis, *, command: str = "") -> str:
    """The page as HTML; names and ids of others are escaped.

    - `command`: the command that makes it, if there is one.
    """
    values = as_json(analysis)
    plots = _plots(analysis, values["curves"])
    if analysis.forecasts:
        plots.append(_forecast_plot(analysis.forecasts))
    title = analysis.reference
    if analysis.policies:
        title = f"{_listed(analysis.policies)} against {title}"
    samples = [s for p in values["policies"] for s in p["samples"]]
    least, most = min(samples), max(samples)
    each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    template = environment().from_string(read(__package__, "page.html"))
    body = template.render(
        title=title,
        facts=(
            f"{values['prompts']:,} prompts, {each} samples each, "
            f"scored by {values['policies'][0]['score']}. {date.today():%d %B %Y}."
        ),
        sentences=[verdict_sentence(c) for c in analysis.curves],
        command=command,
        plots=plots,
        tables=_tables(analysis_tables(analysis), analysis.policies),
        policies=values["policies"],
        version=__version__,
    )
    return document(
        f"{title}: infalign analyze",
        Markup(body),
        style=read(__package__, "page.css"),
        scripts=(read(__package__, "page.js"),),
        data={"plots": plots},
    )


def judgment_page(judgment: Judgment, *, command: str = "") -> str:
    """The page of what judges say, as HTML."""
    title = f"{_listed(tuple(judgment.panels))} against {judgment.reference}, by judges"
    template = environment().from_string(read(__package__, "judged.html"))
    body = template.render(
        title=title,
        facts=f"{'. '.join(judgment.notes)}. {date.today():%d %B %Y}.",
        command=command,
        tables=_tables(judgment_tables(judgment), list(judgment.panels)),
        note=JUDGED_NOTE,
        version=__version__,
    )
    return document(f"{title}: infalign analyze", Markup(body), style=read(__package__, "page.css"))


def verdict_sentence(c: Curve) -> str:
    """What a curve shows, in one sentence."""
    under = f"{c.policy} under {c.measure.name}"
    wins, loses = c.ranges("wins"), c.ranges("loses")
    said = [
        f"{verb} at n = {where}"
        for verb, where in (("wins", wins), ("loses", loses))
        if where != "nowhere"
    ]
    if not said:
        return f"{under}: the data cannot tell, at any n."
    rest = (
        ""
        if len(set(c.verdicts) - {"cannot tell"}) == len(set(c.verdicts))
        else ("; elsewhere the data cannot tell")
    )
    flip = c.first_loss
    first = f" The first n that loses is {str(flip).removeprefix('n = ')}." if flip.latest else ""
    return f"{under} {' and '.join(said)}{rest}.{first}"


def _plots(analysis: Analysis, curves: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One plot for each measure with more than one n; names have their unseen signs escaped."""
    plots: dict[str, dict[str, Any]] = {}
    for own, data in zip(analysis.curves, curves, strict=True):
        if len(own.sizes) < 2:
            continue
        contrast = "win rate, %" if own.null else "difference, points"
        plot = plots.setdefault(
            own.measure.name,
            {
                "title": f"{own.measure.name}: {contrast}",
                "caption": (
                    f"{own.measure.words}, against {visible(analysis.reference)}. Outer band: "
                    "holds at every n. Dashed: equal policies."
                ),
                "null": own.null,
                "curves": [],
            },
        )
        ends = ("n", "value", "low", "high", "joint_low", "joint_high")
        rows = [{name: row[name] for name in ends} for row in data["sizes"]]
        plot["curves"].append({"policy": visible(own.policy), "sizes": rows})
    return list(plots.values())


def _forecast_plot(forecasts: Forecasts) -> dict[str, Any]:
    """Success of every policy up to the largest n that is asked for."""
    curves = [
        {
            "policy": visible(name),
            "sizes": [
                {
                    "n": own.n,
                    "value": own.value,
                    "low": own.low,
                    "high": own.high,
                    "joint_low": None,
                    "joint_high": None,
                }
                for own in forecasts.curve(name)
            ],
        }
        for name, growth in forecasts.growths.items()
        if growth.fitted
    ]
    made = min(growth.made for growth in forecasts.growths.values())
    return {
        "title": "Forecast: success, %",
        "caption": f"Share of prompts on which {forecasts.words}; forecast beyond n = {made:,}.",
        "null": None,
        "curves": curves,
    }


def _tables(tables: list[Table], names: Sequence[str]) -> list[dict[str, Any]]:
    policies = [visible(name) for name in names]
    shown = []
    for own in tables:
        columns = [
            Column(name, words=i < own.words, mark=name == MARKED)
            for i, name in enumerate(own.head)
        ]
        markup = table(own.title, columns, filled(own), policies)
        shown.append({"title": own.title, "markup": markup, "notes": own.notes})
    return shown


def _listed(names: tuple[str, ...]) -> str:
    if len(names) > 4:
        return f"{len(names)} policies"
    return " and ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])} and {names[-1]}"
