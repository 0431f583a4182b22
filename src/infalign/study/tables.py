"""The results of a study as tables, for the terminal and for its page."""

from collections.abc import Iterator, Mapping, Sequence

from infalign.comparison.comparison import SELECTING
from infalign.core import words
from infalign.reports.decision import off_target
from infalign.reports.tables import Table, place, points, with_interval

from .quantities import JUDGE, RELIABILITY

__all__ = ["NOTE", "SHOWN", "curves", "main_table", "side_by_side", "study_tables"]

SHOWN = (1, 2, 4, 8, 16, 32)
"""The n that tables show."""

LACKING = "‡"
"""Marks intervals that lack the variance between seeds."""

NOTE = (
    "[ ]: 95 % intervals over prompts and seeds. Differences are paired by prompt and seed; their "
    "interval allows for the choice of the best rival. Best possible: the highest win rate any "
    "policy can reach at that KL."
)


def study_tables(results: Mapping) -> list[Table]:
    """For every task, the win rates under its procedure by every reward and by the judge, and the
    curves over n."""
    tables = []
    for task in results["tasks"]:
        for reward in (SELECTING, *task["gold"]):
            tables += [main_table(task, reward), curves(task, reward)]
        if task["judge"]:
            tables.append(main_table(task, JUDGE))
        tables += side_by_side(task)
    return [table.visible() for table in tables]


def main_table(task: Mapping, reward: str, spec: str | None = None) -> Table:
    """Win rates under one procedure, the task's own by default, beside the best rival.

    The table of the task's own procedure by its reward also says which seeds and cells are missing.
    """
    first = reward == SELECTING and spec is None
    spec = spec or task["procedure"]
    ranks = task.get("ranks", {}).get(reward, {}).get(spec, {})
    rows = []
    for arm in _by_kl(task["arms"]):
        rank = ranks.get(f"{arm['target_kl']:g}", {}).get(arm["method"])
        own = place(rank) if ranks else ()
        rate = _rate(arm, reward, spec)
        known = (arm["method"], f"{arm['target_kl']:g}", _seeds(arm))
        if rate is None:
            rows.append((*known, "", "", *own, "", "", ""))
            continue
        best = rate["to_best"]
        possible = arm["best_possible"].get(spec) if reward != JUDGE else None
        rows.append(
            (
                *known,
                # The variance of a KL between seeds is always its own.
                _marked(len(arm["seeds"]) == 1, with_interval(arm["kl"], 1, 3)),
                _marked(_lacks(arm), with_interval(rate, 100, 1)),
                *own,
                _marked(_lacks(best), points(best)),
                best["rival"] if best else "",
                "" if possible is None else f"{100 * possible:.1f}",
            )
        )
    return Table(
        f"{_title(task, reward)}, {words(spec)}",
        (
            *("method", "target KL", "seeds", "KL, nats", "win rate, %"),
            *(("rank", "tied") if ranks else ()),
            *("to best rival, points", "best rival", "best possible, %"),
        ),
        tuple(rows),
        words=1,
        notes=(*_seed_notes(task), *_off_target(task), *_failures(task)) if first else _short(rows),
    )


def side_by_side(task: Mapping) -> list[Table]:
    """Win rates by the reward, by the gold rewards and by the judge beside each other; no table
    where there is only the reward."""
    gold, spec = list(task["gold"]), task["procedure"]
    judge = [JUDGE] if task["judge"] else []
    if not gold and not judge:
        return []
    rows = []
    for arm in _by_kl(task["arms"]):
        rates = (_rate(arm, name, spec) for name in (SELECTING, *gold, *judge))
        own = arm.get("judge") or {}
        reliability = (with_interval(own.get(name), 100, 1) for name in RELIABILITY if judge)
        shown = (_marked(_lacks(arm), with_interval(rate, 100, 1)) for rate in rates)
        rows.append((arm["method"], f"{arm['target_kl']:g}", *shown, *reliability))
    excluded = sum((arm.get("judge") or {}).get("excluded", 0) for arm in task["arms"])
    return [
        Table(
            f"{task['task']}, {words(spec)}: win rate in % by the reward and by others",
            (
                *("method", "target KL", "by the reward"),
                *(f"by {name}" for name in (*gold, *judge)),
                *(("position bias, points", "consistent, %") if judge else ()),
            ),
            tuple(rows),
            words=1,
            notes=(f"The judge gave no verdict on {excluded:,} pairs",) if excluded else (),
        )
    ]


def _rate(arm: Mapping, reward: str, spec: str) -> Mapping | None:
    """A win rate by a reward or by the judge; None if no cell is finished."""
    rates = arm.get("win_rates", {})
    own = (arm.get("judge") or {}).get("win_rates", {}) if reward == JUDGE else rates.get(reward)
    return (own or {}).get(spec)


def curves(task: Mapping, reward: str, *, intervals: bool = False) -> Table:
    """Win rates of every method over n, in percent."""
    rows: list[tuple[str, ...]] = []
    known = [arm for arm in _by_kl(task["arms"]) if "by_n" in arm]
    largest = max((row["n"] for arm in known for row in _family(arm, reward)), default=0)
    ns = [n for n in SHOWN if n <= largest]
    for arm in known:
        for family, of in arm["by_n"][reward].items():
            by_n = {row["n"]: row for row in of}
            cells = [_marked(_lacks(arm), with_interval(by_n[n], 100, 1)) for n in ns]
            if not intervals:
                cells = [cell.partition(" ")[0] for cell in cells]
            name = family.removesuffix("-n")
            rows.append((arm["method"], name, f"{arm['target_kl']:g}", *cells))
    return Table(
        f"{_title(task, reward)}, win rate in % with n draws on both sides",
        ("method", "procedure", "target KL", *(f"n = {n}" for n in ns)),
        tuple(rows),
        words=2,
        notes=_short(rows),
    )


def _by_kl(arms: Sequence[Mapping]) -> Iterator[Mapping]:
    yield from sorted(arms, key=lambda arm: arm["target_kl"])


def _family(arm: Mapping, reward: str) -> Sequence[Mapping]:
    return next(iter(arm["by_n"][reward].values()))


def _title(task: Mapping, reward: str) -> str:
    judged = "" if reward == SELECTING else f", judged by {reward}"
    judged = ", verdicts of the judge" if reward == JUDGE else judged
    prompts = "held-out" if task["prompts"] is None else task["prompts"]
    return f"{task['task']}: {prompts} prompts × {task['samples']} responses{judged}"


def _seeds(arm: Mapping) -> str:
    done, planned = len(arm["seeds"]), len(arm["cells"])
    return str(done) if done == planned else f"{done} of {planned}"


def _lacks(estimate: Mapping | None) -> bool:
    """Whether an interval lacks the variance between seeds."""
    return estimate is not None and estimate["seed_variance"] is None


def _marked(lacks: bool, interval: str) -> str:
    return f"{interval}{LACKING}" if lacks and interval else interval


def _short(rows: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """What the mark means, if it is in the rows."""
    marked = any(LACKING in cell for row in rows for cell in row)
    return (f"{LACKING} without the variance between seeds",) if marked else ()


def _seed_notes(task: Mapping) -> Iterator[str]:
    """Which intervals lack seeds, and where they take the variance between seeds from."""
    notes: dict[str, list[str]] = {}
    for arm in _by_kl(task["arms"]):
        for note in _of_seeds(arm, task["procedure"]):
            notes.setdefault(note, []).append(f"{arm['method']} at {arm['target_kl']:g}")
    for note, arms in notes.items():
        everywhere = len(arms) == len(task["arms"])
        yield note if everywhere else f"{note} ({', '.join(arms)} nats)"


def _of_seeds(arm: Mapping, procedure: str) -> Iterator[str]:
    """What a reader must know of the seeds of one method at one KL."""
    done, planned = len(arm["seeds"]), len(arm["cells"])
    if arm["not_compared"]:
        others = ", ".join(arm["not_compared"])
        yield f"No difference to {others}: no seed is finished for both"
    if not done:
        return
    lacking = _lacks(arm)
    if planned == 1:
        yield f"{LACKING} One seed: the intervals are about other prompts, not other trainings"
    elif lacking:
        yield (
            f"{LACKING} {done} of {planned} seeds finished: the interval lacks the variance "
            "between seeds, so it is too narrow"
        )
    elif done < planned:
        source = "all methods (pooled)" if arm["seed_variance"] == "pooled" else f"these {done}"
        of_kl = f"; the interval of the KL lacks it {LACKING}" if done == 1 else ""
        yield (
            f"{done} of {planned} seeds finished: the variance between seeds is that of "
            f"{source}{of_kl}"
        )
    if not lacking and _lacks(arm["win_rates"][SELECTING][procedure]["to_best"]):
        yield (
            f"{LACKING} One seed is finished for both the method and a rival: the difference lacks "
            "the variance between seeds, so its interval is too narrow"
        )


def _off_target(task: Mapping) -> Iterator[str]:
    """Which KLs are not those that were asked for."""
    off = [
        f"{arm['method']} {arm['kl']['value']:.3f} instead of {arm['target_kl']:g}"
        for arm in _by_kl(task["arms"])
        if arm.get("kl") and off_target(arm["kl"], arm["target_kl"])
    ]
    if off:
        yield (
            "KL that is off its target by more than a tenth, and by more than chance: "
            f"{', '.join(off)} nats. A larger KL wins more by itself"
        )


def _failures(task: Mapping) -> Iterator[str]:
    for arm in task["arms"]:
        for cell in arm["cells"]:
            if "error" in cell:
                yield f"{cell['folder']} failed: {cell['error']}"
