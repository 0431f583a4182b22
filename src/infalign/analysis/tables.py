"""An analysis as tables, for the terminal, Markdown, LaTeX and its page; and as JSON."""

from collections.abc import Mapping
from typing import Any

from infalign.evaluation.growth import Budget
from infalign.evaluation.ranking import Ranking
from infalign.reports.tables import (
    Table,
    at_equal_length,
    overlap,
    place,
    points,
    with_interval,
)

from .analysis import Analysis
from .curve import Curve
from .forecasts import Forecasts

__all__ = ["NOTE", "analysis_tables", "as_json", "ranking_json", "ranking_table"]

NOTE = (
    "[ ]: 95 % intervals over prompts. The second one of each row holds at every n together, and "
    "so do the verdicts of one curve."
)


def analysis_tables(analysis: Analysis) -> list[Table]:
    """Where each verdict flips, each measure by n, and the rankings."""
    measured = dict.fromkeys(c.measure.name for c in analysis.curves)
    tables = [_flips(analysis)] if any(len(c.sizes) > 1 for c in analysis.curves) else []
    for name in measured:
        tables.append(_by_size([c for c in analysis.curves if c.measure.name == name]))
    if analysis.at_equal_length:
        tables.append(_equal_lengths(analysis))
    tables += [ranking_table(at, ranking) for at, ranking in analysis.rankings.items()]
    if analysis.forecasts:
        tables += _forecasts(analysis.forecasts)
    return [table.visible() for table in tables]


def _flips(analysis: Analysis) -> Table:
    rows = tuple(
        (c.measure.name, c.policy, c.ranges("wins"), c.ranges("loses"), str(c.first_loss))
        for c in analysis.curves
    )
    head = ("measure", "policy", "wins at n", "loses at n", "first n that loses")
    title = f"Verdicts against {analysis.reference}, {len(analysis.matched.prompts):,} prompts"
    return Table(title, head, _once(rows), words=5)


def _by_size(curves: list[Curve]) -> Table:
    """One measure: a row for each n and policy."""
    first = curves[0]
    rows: list[tuple[str, ...]] = []
    cells: tuple[str, ...]
    head: tuple[str, ...]
    for n in _shown(first.sizes):
        for c in curves:
            alone, joint = (e.figures() for e in c.at(n))
            if c.levels is None:
                cells = (with_interval(alone, 100, 1), _range(joint, 100))
            else:
                ours, theirs = c.levels[c.sizes.index(n)]
                levels = (f"{100 * theirs.value:.1f}", f"{100 * ours.value:.1f}")
                cells = (*levels, points(alone), _range(joint, 100, sign="+"))
            rows.append((str(n), c.policy, *cells, c.verdicts[c.sizes.index(n)]))
    if first.levels is None:
        head = ("n", "policy", "win rate, %", "at every n", "verdict")
        title = f"{_capital(first.measure.words)}, against {first.reference}"
    else:
        sides = (f"{first.reference}, %", "policy, %")
        head = ("n", "policy", *sides, "difference, points", "at every n", "verdict")
        title = f"{first.measure.name}: {first.measure.words}"
    return Table(title, head, _once(tuple(rows)), words=2)


def _equal_lengths(analysis: Analysis) -> Table:
    controls = analysis.at_equal_length.items()
    rows = tuple(
        (
            at,
            policy,
            at_equal_length(own.figures()),
            overlap(own.figures()),
            f"{100 * own.longer:.0f}",
        )
        for (policy, at), own in controls
    )
    notes = tuple(f"† {policy}, {at}: {c.warning}" for (policy, at), c in controls if c.warning)
    head = ("measure", "policy", "at equal length, %", "overlap, %", "longer, %")
    return Table(f"Win rate over {analysis.reference} at equal length", head, rows, 2, notes)


def ranking_table(at: str, ranking: Ranking) -> Table:
    """Policies from the highest to the lowest, and what of this order is shown."""
    rows = tuple(
        (
            row.policy,
            with_interval(row.value.figures(), 100, 1),
            *place(row.figures()),
        )
        for row in ranking.policies
    )
    notes = ("Policies that share a letter cannot be ranked; ranks hold for all of them together.",)
    return Table(f"Ranks, {at}", ("policy", "%", "rank", "tied"), rows, words=1, notes=notes)


FORECAST_NOTE = (
    "A forecast assumes that small chances of success follow a log-F or a logit-normal law, "
    "perhaps with a share of prompts that can never succeed. First interval: other prompts of the "
    "same kind. Second: these prompts."
)


def _forecasts(forecasts: Forecasts) -> list[Table]:
    """Success at each n that was asked for, and the samples that targets take."""
    notes = tuple(
        f"{name}: {words}."
        for name, growth in forecasts.growths.items()
        for words in growth.reservations
    )
    tables = []
    if forecasts.sizes:
        cells = tuple(
            (
                f"{own.n:,}",
                name,
                f"{forecasts.growths[name].made:,}",
                with_interval(_ends_of(own), 100, 1) if own.value == own.value else "unknown",
                _range({"low": _known(own.these_low), "high": _known(own.these_high)}, 100),
            )
            for name, own in forecasts.rows
        )
        head = ("n", "policy", "samples", "success, %", "these prompts")
        title = f"Forecast: {forecasts.words}"
        tables.append(Table(title, head, _once(cells), words=2, notes=(FORECAST_NOTE, *notes)))
    if forecasts.targets:
        budgets = tuple(
            (f"{100 * own.target:g}", name, str(own) if own.value == own.value else "unknown")
            for name, own in forecasts.budgets
        )
        columns = ("target, %", "policy", "samples per prompt")
        notes = () if tables else (FORECAST_NOTE, *notes)
        notes += ("∞: no number of samples up to 10⁹ reaches the target.",)
        tables.append(Table("Samples for a target", columns, _once(budgets), words=2, notes=notes))
    return tables


def _ends_of(own: Any) -> dict[str, float | None]:
    return {end: _known(getattr(own, end)) for end in ("value", "low", "high")}


def _known(value: float) -> float | None:
    """A number for JSON, which has no nan."""
    return value if value == value else None


def _shown(sizes: tuple[int, ...]) -> list[int]:
    """Powers of two, and the largest n; all of a few."""
    if len(sizes) <= 8:
        return list(sizes)
    return [n for n in sizes if n & (n - 1) == 0 or n == sizes[-1]]


def _once(rows: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    """Rows whose first cell is empty if it repeats the one above."""
    above = (None, *(row[0] for row in rows))
    return tuple(
        ("" if row[0] == before else row[0], *row[1:])
        for row, before in zip(rows, above, strict=False)
    )


def _range(estimate: Mapping[str, Any], scale: float, sign: str = "") -> str:
    if estimate["low"] is None:
        return ""
    return f"[{scale * estimate['low']:{sign}.1f}, {scale * estimate['high']:{sign}.1f}]"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def as_json(analysis: Analysis) -> dict[str, Any]:
    """Everything in the analysis, as plain values."""
    policies = analysis.matched.policies
    return {
        "reference": analysis.reference,
        "policies": [
            {
                "name": p.name,
                "score": p.score,
                "samples": [int(p.samples.min()), int(p.samples.max())],
                "notes": list(p.notes),
                "length_unit": p.length_unit,
                "length_note": analysis.length_notes.get(p.name),
                "left_out": list(analysis.matched.without.get(p.name, ())),
            }
            for p in policies
        ],
        "prompts": len(analysis.matched.prompts),
        "level": analysis.level,
        "curves": [_curve(c) for c in analysis.curves],
        "length_controlled": [
            {"policy": policy, "measure": at, **own.figures()}
            for (policy, at), own in analysis.at_equal_length.items()
        ],
        "rankings": {at: ranking_json(ranking) for at, ranking in analysis.rankings.items()},
        "forecasts": None if analysis.forecasts is None else _ahead(analysis.forecasts),
    }


def _ahead(forecasts: Forecasts) -> dict[str, Any]:
    ends = ("value", "low", "high", "these_low", "these_high")
    return {
        "what": forecasts.words,
        "policies": [
            {
                "policy": name,
                "measured_up_to": growth.made,
                "stopped_at_first_success": growth.stopped is not None,
                "reservations": list(growth.reservations),
            }
            for name, growth in forecasts.growths.items()
        ],
        "at": [
            {"policy": name, "n": own.n} | {end: _known(getattr(own, end)) for end in ends}
            for name, own in forecasts.rows
        ],
        "budgets": [
            {"policy": name, "target": own.target, **_budget(own)}
            for name, own in forecasts.budgets
        ],
    }


def _budget(own: Budget) -> dict[str, float | str | None]:
    """A budget for JSON, which has no infinity."""
    ends = {end: getattr(own, end) for end in ("value", "low", "high")}
    return {end: "infinite" if x == float("inf") else _known(x) for end, x in ends.items()}


def _curve(c: Curve) -> dict[str, Any]:
    rows = []
    for at, n in enumerate(c.sizes):
        row: dict[str, Any] = {"n": n, **c.contrast.pointwise[at].figures()}
        joint = c.contrast.joint[at].figures()
        row |= {"joint_low": joint["low"], "joint_high": joint["high"]}
        row["verdict"] = c.verdicts[at]
        if c.levels is not None:
            row["policy"], row["reference"] = (level.figures() for level in c.levels[at])
        rows.append(row)
    flip = c.first_loss
    return {
        "measure": c.measure.name,
        "policy": c.policy,
        "null": c.null,
        "level_each": c.contrast.level_each,
        "first_loss": {f: getattr(flip, f) for f in ("estimate", "earliest", "latest")},
        "sizes": rows,
    }


def ranking_json(ranking: Ranking) -> dict[str, Any]:
    """A ranking and all of its pairs, as plain values."""
    return {
        "policies": [
            {
                "policy": row.policy,
                **row.value.figures(),
                "best_rank": row.best,
                "worst_rank": row.worst,
                "tied": list(row.tied),
            }
            for row in ranking.policies
        ],
        "pairs": [
            {
                "ahead": pair.ahead,
                "behind": pair.behind,
                **pair.difference.figures(),
                "p": pair.p,
                "p_max_t": pair.p_max_t,
                "p_holm": pair.p_holm,
                "shown": pair.shown,
            }
            for pair in ranking.pairs
        ],
    }
