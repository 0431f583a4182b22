"""The results as tables, for the terminal, Markdown and LaTeX, from the same cells."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from infalign._check import visible
from infalign._look import Framed, Shown
from infalign._look import table as html_table

from .plots import procedure_words

__all__ = [
    "NOTE",
    "Table",
    "at_equal_length",
    "efficiency",
    "filled",
    "identified",
    "in_latex",
    "in_markdown",
    "in_terminal",
    "latex",
    "markdown",
    "overlap",
    "place",
    "points",
    "tables",
    "terminal",
    "unidentified",
    "with_interval",
]


@dataclass(frozen=True)
class Table(Shown, Framed):
    """A title, column headers, and rows of strings; an empty cell repeats the one above."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int
    """Number of leading columns with words; the others hold numbers."""

    notes: tuple[str, ...] = ()
    """Explanations of signs in cells, below the table."""

    def _columns(self):
        rows = zip(*filled(self), strict=True)
        return dict(zip(self.head, map(list, rows), strict=True)) if self.rows else {}

    def _table(self):
        return html_table(self.head, self.rows)

    def visible(self) -> "Table":
        """The table with unseen characters escaped: names come from users."""
        head, *rows = (tuple(map(visible, row)) for row in (self.head, *self.rows))
        notes = tuple(map(visible, self.notes))
        return Table(visible(self.title), head, tuple(rows), self.words, notes)


def tables(results: Mapping, *, theory: bool = False) -> list[Table]:
    """KL of the policies; win rates by procedure, by the reward and by other criteria; the judge.

    - `theory`: whether win rates stand beside those of ideal training on the policies' transforms.

    Raises KeyError for results that are incomplete.
    """
    made = [_policies(results), _by_reward(results, theory), _by_others(results)]
    return [table.visible() for table in (made + ([_judged(results)] if results["judge"] else []))]


WORD = 28
"""Longer words may be folded on a terminal."""

NOTE = (
    "[ ]: 95 % intervals, clustered by prompt; differences are paired by prompt. "
    "Best possible: the highest win rate any policy can reach at that KL."
)


RANKED = (
    "Rank: the places that the data allow; they hold for all policies of a procedure together. "
    "Policies that share a letter are tied."
)


def _policies(results: Mapping) -> Table:
    rows = [
        (
            policy["label"],
            "not measured" if policy["kl"] is None else with_interval(policy["kl"], 1, 3),
            efficiency(policy),
            *_means(policy),
        )
        for policy in results["policies"]
    ]
    rows.append(("reference", "0", "", *_means(results["reference"])))
    title = f"{results['prompts']} held-out prompts × {results['samples']} samples"
    return Table(title, ("policy", "KL, nats", "KL eff.", "tokens", "reward"), tuple(rows), 1)


def efficiency(policy: Mapping) -> str:
    """A KL efficiency in percent with its interval, "too few" where it is not known, or nothing."""
    value, interval = policy["kl_efficiency"], policy.get("kl_efficiency_interval")
    if value is None:
        return "too few" if policy.get("kl_efficiency_note") else ""
    ends = f" [{100 * interval[0]:.0f}, {100 * interval[1]:.0f}]" if interval else ""
    return f"{value:.0%}{ends}"


def _means(policy: Mapping) -> tuple[str, str]:
    tokens = policy["mean_tokens"]
    return "" if tokens is None else f"{tokens:.1f}", f"{policy['mean_reward']:.2f}"


def _by_reward(results: Mapping, theory: bool) -> Table:
    differences = {(d["b"], d["procedure"]): d for d in results["differences"]}
    first, *others = [policy["label"] for policy in results["policies"]]
    theory = theory and any(policy.get("theory") for policy in results["policies"])
    ranks = {
        d["procedure"]: d["ranks"]
        for d in results["decisions"]
        if d["reward"] == "reward" and d.get("ranks")
    }
    rows = [
        (
            spec,
            policy["label"],
            with_interval(policy["win_rates"][key], 100, 1),
            *(place(ranks[key].get(policy["method"])) if ranks else ()),
            *([_share(policy["theory"].get(key))] if theory else []),
            "" if key not in (policy["frontier"] or {}) else _share(policy["frontier"][key]),
            points(differences.get((policy["method"], key))),
        )
        for key, spec, policy in _decoded(results)
    ]
    ranking = ("rank", "tied") if ranks else ()
    ideal = ("in theory",) if theory else ()
    shown = ("win rate, %", *ranking, *ideal, "best possible", "difference")
    head = ("decoded with", "policy", *shown)
    title = "Win rate against the reference"
    if others:
        title = f"{title}; difference: {first} minus this policy, points"
        return Table(title, head, tuple(rows), 2, (RANKED,) if ranks else ())
    return Table(title, head[:-1], tuple(row[:-1] for row in rows), 2)


def _by_others(results: Mapping) -> Table:
    gold = list(results["gold"])
    rows = [
        (
            spec,
            policy["label"],
            at_equal_length(policy["length_controlled"][key]),
            overlap(policy["length_controlled"][key]),
            *(with_interval(policy["gold"][name][key], 100, 1) for name in gold),
        )
        for key, spec, policy in _decoded(results)
    ]
    head = (
        "decoded with",
        "policy",
        "at equal length",
        "overlap",
        *(f"by {name}" for name in gold),
    )
    title = "Win rate of the selected responses under other criteria, %"
    return Table(title, head, tuple(rows), 2, unidentified(results))


UNKNOWN = "†"
"""Marks bounds on a win rate at equal length that the data do not identify."""


def identified(estimate: Mapping) -> bool:
    """Whether a win rate at equal length is one that the data identify; former versions wrote
    `extrapolated` instead."""
    return estimate.get("identified", not estimate.get("extrapolated", False))


def at_equal_length(estimate: Mapping | None) -> str:
    """A win rate at equal length in percent, or its bounds where it is not identified."""
    if estimate is None or identified(estimate):
        return with_interval(estimate, 100, 1)
    ends = estimate.get("bounds")
    return f"{100 * ends[0]:.0f}–{100 * ends[1]:.0f}{UNKNOWN}" if ends else UNKNOWN


def overlap(estimate: Mapping | None) -> str:
    """Share of pairs on the less frequent side of equal length, or at it, in percent."""
    if estimate is None or "longer" not in estimate:
        return ""
    share = 100 * (1 - max(estimate["longer"], estimate["shorter"]))
    return f"{share:.1f}" if 0 < share < 1 else f"{share:.0f}"


def unidentified(results: Mapping) -> tuple[str, ...]:
    """What the mark means, and for which policies; empty without any."""
    cases = [
        f"{policy['label']}, {procedure_words(key)}: {100 * max(sides):.0f} % "
        f"{'longer' if sides[0] > sides[1] else 'shorter'}"
        for key, _, policy in _decoded(results)
        if (estimate := policy["length_controlled"][key]) and not identified(estimate)
        for sides in [(estimate["longer"], estimate["shorter"])]
    ]
    if not cases:
        return ()
    return (
        f"{UNKNOWN} Not identified: too few of the policy's selected responses are about as long "
        f"as the reference's, or on either side ({'; '.join(cases)}). The range holds what is "
        "possible.",
    )


def _judged(results: Mapping) -> Table:
    rows = []
    for policy in results["policies"]:
        judge = policy["judge"]
        figures = (
            with_interval(judge[key], 100, 1)
            for key in ("win_rate", "position_bias", "consistency")
        )
        pairs = f"{judge['pairs']}"
        if judge["excluded"]:
            pairs += f" ({judge['excluded']} without verdict)"
        rows.append((policy["label"], *figures, pairs))
    title = f"Judged by {results['judge']}, decoded with {procedure_words(results['procedure'])}"
    head = ("policy", "win rate, %", "position bias, points", "consistent, %", "pairs")
    return Table(title, head, tuple(rows), 1)


def _decoded(results: Mapping) -> Iterator[tuple[str, str, Mapping]]:
    """Each procedure with each policy; a procedure's description appears once."""
    for key in results["procedures"]:
        for index, policy in enumerate(results["policies"]):
            yield key, "" if index else procedure_words(key), policy


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def with_interval(estimate: Mapping | None, scale: float, digits: int) -> str:
    """An estimate and its interval, times `scale`; empty if there is no estimate.

    >>> with_interval({"value": 0.86, "low": 0.83, "high": 0.88}, 100, 1)
    '86.0 [83.0, 88.0]'
    """
    if estimate is None or estimate["value"] is None:
        return ""
    value, low, high = (
        "" if estimate[k] is None else f"{scale * estimate[k]:.{digits}f}"
        for k in ("value", "low", "high")
    )
    return f"{value} [{low}, {high}]" if low and high else value


def place(rank: Mapping | None) -> tuple[str, str]:
    """The range of a policy's rank, and the letters that it shares with policies that it ties.

    >>> place({"best": 1, "worst": 3, "tied": "a b"})
    ('1–3', 'a b')
    """
    if rank is None:
        return "", ""
    best, worst = rank["best"], rank["worst"]
    return str(best) if best == worst else f"{best}–{worst}", rank["tied"]


def points(difference: Mapping | None) -> str:
    """A difference in points with its interval; empty if there is none."""
    if difference is None:
        return ""
    value = f"{100 * difference['value']:+.1f}"
    if difference["low"] is None:
        return value
    return f"{value} [{100 * difference['low']:+.1f}, {100 * difference['high']:+.1f}]"


def terminal(results: Mapping) -> list:
    """The tables for `rich`; names are shown without markup."""
    return [part for table in tables(results) for part in in_terminal(table)]


def in_terminal(table: Table) -> list:
    """A table and its notes for `rich`; names are shown without markup."""
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table as RichTable
    from rich.text import Text

    rich = RichTable(
        title=Text(table.title),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for index, name in enumerate(table.head):
        cells = [row[index] for row in table.rows]
        longest = max(cell_len(w) for cell in (name, *cells) for w in cell.split() or [""])
        if index < table.words:
            rich.add_column(Text(name), min_width=min(longest, WORD), overflow="fold")
        else:  # numbers are never wrapped; headers may be
            width = max(min(longest, WORD), *map(len, cells))
            rich.add_column(Text(name), justify="right", width=width, overflow="fold")
    for row in table.rows:
        rich.add_row(*map(Text, row))
    return [rich, *(Text(note) for note in table.notes)]


def markdown(results: Mapping) -> str:
    """The tables in Markdown."""
    return "\n\n".join([*map(in_markdown, tables(results)), NOTE]) + "\n"


def in_markdown(table: Table) -> str:
    """A table and its notes in Markdown."""
    align = ["---"] * table.words + ["---:"] * (len(table.head) - table.words)
    lines = [map(_markdown, table.head), align, *_filled(table, _markdown, str)]
    rows = "\n".join(f"| {' | '.join(row)} |" for row in lines)
    notes = "".join(f"\n\n{_markdown(note)}" for note in table.notes)
    return f"**{_markdown(table.title)}**\n\n{rows}{notes}"


def latex(results: Mapping) -> str:
    """The tables in LaTeX, with the rules of `booktabs`."""
    return "\n\n".join([*map(in_latex, tables(results)), "% " + NOTE]) + "\n"


def in_latex(table: Table) -> str:
    """A table and its notes in LaTeX, with the rules of `booktabs`."""
    columns = "l" * table.words + "r" * (len(table.head) - table.words)
    head = " & ".join(map(_latex, table.head))
    body = "\n".join(" & ".join(row) + r" \\" for row in _filled(table, _latex, _latex_sign))
    return (
        f"% {table.title}\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n{head} \\\\\n"
        f"\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}"
        + "".join(f"\n\n{{\\footnotesize {_latex(note)}}}" for note in table.notes)
    )


def filled(table: Table) -> list[list[str]]:
    """Rows with empty cells filled from above, so that each row stands alone."""
    return list(_filled(table, str, str))


def _filled(
    table: Table, escape: Callable[[str], str], own: Callable[[str], str]
) -> Iterator[list[str]]:
    """Rows with empty cells filled from above, so that each row stands alone; `escape` is for
    words, `own` for numbers."""
    above = [""] * len(table.head)
    for row in table.rows:
        above = [cell or (above[i] if i < table.words else "") for i, cell in enumerate(row)]
        yield [(escape if i < table.words else own)(cell) for i, cell in enumerate(above)]


_MARKDOWN = re.compile(r"[\\`*_{}\[\]<>#~|&$@]|:(?=//)|(?<=www)\.", re.IGNORECASE)
"""What Markdown or one of its dialects reads as markup, a link, an entity or mathematics."""


def _markdown(text: str) -> str:
    """Text that Markdown shows as it is."""
    return _MARKDOWN.sub(r"\\\g<0>", text)


_LATEX = {
    "\\": r"\textbackslash{}",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "[": "{[}",  # an option of the line's end before it, as is *
    "]": "{]}",
    "*": "{*}",
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}


def _latex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    written = "".join(_LATEX.get(sign, sign) for sign in text)
    return re.sub(r"([-',])(?=\1)", r"\1{}", written)  # two of them are another sign


def _latex_sign(text: str) -> str:
    """Numbers of the package itself: signs and percentages, whose brackets stay."""
    return "".join(sign if sign in "[]" else _LATEX.get(sign, sign) for sign in text)
