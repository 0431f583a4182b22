"""What judges say, as tables for the terminal, Markdown, LaTeX and a page; and as JSON."""

from typing import Any

from infalign.evaluation.panel import JudgeReport
from infalign.evaluation.uncertainty import Estimate
from infalign.reports.tables import Table, at_equal_length, overlap, with_interval

from .judging import Judgment
from .tables import ranking_json, ranking_table

__all__ = ["JUDGED_NOTE", "judgment_json", "judgment_tables"]

JUDGED_NOTE = (
    "[ ]: 95 % intervals over prompts. Votes, orders, judges, pairs and prompts are averaged in "
    "this order, each with equal weights."
)


def judgment_tables(judgment: Judgment) -> list[Table]:
    """Win rates, the judges one by one, and their agreement."""
    tables = [_win_rates(judgment), _judges(judgment)]
    if judgment.ranking is not None:
        tables.append(ranking_table("by the judges", judgment.ranking))
    if any(own.kappas for own in judgment.panels.values()):
        tables.append(_agreement(judgment))
    return [table.visible() for table in tables]


def _win_rates(judgment: Judgment) -> Table:
    rows = []
    for name, own in judgment.panels.items():
        control = None if own.length is None else own.length.figures()
        lacking = sum(r.invalid + len(r.one_order) for r in own.judges)
        ends = f"{100 * own.if_invalid[0]:.1f}–{100 * own.if_invalid[1]:.1f}"
        rows.append(
            (
                name,
                _cell(own.win_rate),
                "" if own.any_judge is None else _range(own.any_judge),
                at_equal_length(control),
                overlap(control),
                f"{own.pairs:,}" + (f" ({own.excluded:,} without verdict)" if own.excluded else ""),
                f"{lacking:,} ({ends})" if lacking else "0",
            )
        )
    head = ("policy", "win rate, %", "any judge", "at equal length", "overlap, %", "pairs")
    notes = [
        f"† {name}: {own.length.warning}"
        for name, own in judgment.panels.items()
        if own.length is not None and own.length.warning
    ]
    if any(r.invalid or r.one_order for own in judgment.panels.values() for r in own.judges):
        notes.append(
            "Invalid or absent answers: in parentheses the win rates if all were lost, or won."
        )
    title = f"Win rate over {judgment.reference} by the judges"
    return Table(title, (*head, "invalid or absent"), tuple(rows), 1, tuple(notes))


def _judges(judgment: Judgment) -> Table:
    rows = []
    one_order = any(r.one_order for own in judgment.panels.values() for r in own.judges)
    for name, own in judgment.panels.items():
        for place, report in enumerate(own.judges):
            rows.append(
                (
                    "" if place else name,
                    report.judge,
                    _cell(report.win_rate),
                    _points(report.position_bias),
                    _cell(report.consistency),
                    _cell(report.repeatability),
                    _self(report),
                    f"{report.verdicts:,}",
                    f"{report.invalid:,}",
                    *((f"{len(report.one_order):,}",) if one_order else ()),
                )
            )
    head = ("policy", "judge", "win rate, %", "position bias", "both orders agree, %")
    more: tuple[str, ...] = ("votes agree, %", "self-preference", "verdicts", "invalid")
    notes = ["Position bias: points by which the response shown first wins more often than half."]
    if one_order:
        more += ("one order only",)
        notes.append(
            "One order only: pairs that the judge read in one order, and others in both; they are "
            "left out."
        )
    if any(r.own for own in judgment.panels.values() for r in own.judges):
        notes.append(
            "Self-preference: points by which a judge favors its own family more than the other "
            "judges do."
        )
    return Table("The judges one by one", head + more, tuple(rows), 2, tuple(notes))


def _agreement(judgment: Judgment) -> Table:
    rows = []
    for name, own in judgment.panels.items():
        rows.append((name, "all judges, Krippendorff's α", _cell(own.agreement, 1, 2)))
        for (one, other), value in own.kappas.items():
            rows.append(("", f"{one} and {other}, Cohen's κ", _cell(value, 1, 2)))
    notes = ("1 is perfect agreement on who has won, 0 is that of chance.",)
    return Table(
        "Agreement of the judges", ("policy", "judges", "agreement"), tuple(rows), 2, notes
    )


def _self(report: JudgeReport) -> str:
    if report.own is None:
        return ""
    if report.self_preference is None:
        return "needs other judges"
    return _points(report.self_preference)


def _cell(estimate: Estimate | None, scale: float = 100, digits: int = 1) -> str:
    return "" if estimate is None else with_interval(estimate.figures(), scale, digits)


def _points(estimate: Estimate | None) -> str:
    return "" if estimate is None else with_interval(estimate.figures(), 100, 1)


def _range(estimate: Estimate) -> str:
    if estimate.low != estimate.low:
        return ""
    return f"[{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def judgment_json(judgment: Judgment) -> dict[str, Any]:
    """Everything in a judgment, as plain values."""

    def plain(estimate: Estimate | None) -> dict[str, float | None] | None:
        return None if estimate is None else estimate.figures()

    return {
        "reference": judgment.reference,
        "unused_verdicts": judgment.unused,
        "notes": list(judgment.notes),
        "ranking": None if judgment.ranking is None else ranking_json(judgment.ranking),
        "policies": [
            {
                "name": name,
                "win_rate": plain(own.win_rate),
                "any_judge": plain(own.any_judge),
                "if_invalid": list(own.if_invalid),
                "pairs": own.pairs,
                "excluded": own.excluded,
                "both_orders": own.both_orders,
                "length_controlled": None if own.length is None else own.length.figures(),
                "agreement": plain(own.agreement),
                "kappas": [
                    {"judges": list(both), "kappa": plain(value)}
                    for both, value in own.kappas.items()
                ],
                "judges": [
                    {
                        "judge": r.judge,
                        **{
                            key: plain(getattr(r, key))
                            for key in (
                                "win_rate",
                                "position_bias",
                                "consistency",
                                "repeatability",
                                "self_preference",
                            )
                        },
                        "own": r.own,
                        "verdicts": r.verdicts,
                        "invalid": r.invalid,
                        "one_order": len(r.one_order),
                    }
                    for r in own.judges
                ],
            }
            for name, own in judgment.panels.items()
        ],
    }
