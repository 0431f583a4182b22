"""The same cells for the terminal, for Markdown and for LaTeX."""

import copy
import io
import re

import pytest
from rich.console import Console
from test_reports import results

from infalign.reports.tables import latex, markdown, tables, terminal


def printed(values, width=100):
    console = Console(file=io.StringIO(), width=width)
    for table in terminal(values):
        console.print(table)
    return console.file.getvalue()


def test_a_row_for_each_policy_under_each_procedure_and_judge():
    policies, rates, otherwise, judge = tables(results())
    assert policies.rows[0] == ("InfAlign-CTRL", "0.492 [0.472, 0.512]", "61%", "21.3", "0.41")
    assert policies.rows[-1][:2] == ("reference", "0")
    assert rates.rows[0] == ("worst-of-4", "InfAlign-CTRL", "91.2 [89.4, 93.0]", "95.1", "")
    assert rates.rows[1] == ("", "Plain RLHF", "83.0 [81.2, 84.8]", "95.1", "+8.2 [+6.1, +10.3]")
    assert [row[0] for row in rates.rows] == ["worst-of-4", "", "plain sampling", ""]
    assert otherwise.head == ("decoded with", "policy", "at equal length", "overlap", "by gold")
    assert otherwise.rows[0][2:] == ("", "", "55.5 [53.5, 57.5]")
    assert otherwise.rows[2][2:] == ("57.5 [55.5, 59.5]", "42", "61.0 [59.0, 63.0]")
    assert judge.rows[0] == (
        *("InfAlign-CTRL", "64.5 [54.5, 74.5]", "7.5 [2.5, 12.5]", "81.5 [75.5, 87.5]"),
        "126 (2 without verdict)",
    )


def test_several_policies_have_ranks():
    values = results()
    third = copy.deepcopy(values["policies"][1]) | {"method": "c", "label": "Third"}
    values["policies"].append(third)
    names = ("rloo", "rlhf", "c")
    for decision in values["decisions"]:
        decision["ranks"] = {
            name: {"best": 1 + (at > 0), "worst": 1 + 2 * (at > 0), "tied": "ab"[at > 0]}
            for at, name in enumerate(names)
        }
    _, rates, *_ = tables(values)
    assert rates.head[:5] == ("decoded with", "policy", "win rate, %", "rank", "tied")
    assert [row[3:5] for row in rates.rows[:3]] == [("1", "a"), ("2–3", "b"), ("2–3", "b")]
    assert "share a letter" in rates.notes[0] and "share a letter" in latex(values)


def test_without_gold_judge_or_rivals_there_is_nothing_about_them():
    values = results()
    values["gold"], values["judge"], values["policies"] = {}, None, values["policies"][:1]
    values["differences"] = []
    _, rates, otherwise = tables(values)
    assert rates.head == ("decoded with", "policy", "win rate, %", "best possible")
    assert otherwise.head == ("decoded with", "policy", "at equal length", "overlap")


def test_a_policy_whose_kl_is_unknown_leaves_its_cells_empty():
    values = results()
    values["policies"][0] |= {"kl": None, "kl_efficiency": None, "frontier": None}
    policies, rates, *_ = tables(values)
    assert policies.rows[0][1:3] == ("not measured", "")
    assert rates.rows[0][3] == ""


def test_the_terminal_shows_every_cell_whatever_names_are_made_of():
    values = results()
    values["policies"][0]["label"] = "[red]mine[/red]"
    text = printed(values)
    assert "[red]mine[/red]" in text
    for cell in ("91.2 [89.4, 93.0]", "+8.2 [+6.1, +10.3]", "by gold", "plain sampling"):
        assert cell in text


def test_markdown_rows_are_whole_and_names_cannot_break_them():
    values = results()
    values["policies"][0]["label"] = "a|b<script>"
    lines = [line for line in markdown(values).splitlines() if line.startswith("|")]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    assert {len(row) for row in cells} == {5}
    assert r"a\|b\<script\>" in lines[2]
    assert "| plain sampling | Plain RLHF | 57.5 [55.5, 59.5] | 42 | 61.0 [59.0, 63.0] |" in lines


@pytest.mark.parametrize(
    ("name", "written"), [("50 % & more", r"50 \% \& more"), ("a_b\\c", r"a\_b\textbackslash{}c")]
)
def test_latex_prints_what_would_be_commands(name, written):
    values = results()
    values["policies"][0]["label"] = name
    text = latex(values)
    assert written in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 4
    assert r"91.2 [89.4, 93.0] & 95.1 &" in text


def unidentified(values):
    """Results whose second policy is longer in 97 % of pairs of plain samples."""
    values["policies"][1]["length_controlled"]["sampling"] = {
        "value": None,
        "stderr": None,
        "low": 0.181,
        "high": 0.642,
        "longer": 0.97,
        "shorter": 0.02,
        "overlap": 0.03,
        "identified": False,
        "bounds": [0.181, 0.642],
        "warning": "…",
    }
    return values


def test_a_win_rate_at_equal_length_that_is_not_identified_is_a_range_in_every_form():
    values = unidentified(results())
    why = "Not identified: too few of the policy's selected responses"
    case = "(Plain RLHF, plain sampling: 97 % longer)"
    _, _, otherwise, _ = tables(values)
    assert otherwise.rows[3][2] == "18–64†" and otherwise.rows[2][2][-1] == "]"
    assert otherwise.rows[3][3] == "3"
    for written, mark in ((printed, "†"), (markdown, "†"), (latex, r"$\dagger$")):
        text = " ".join(written(values).replace("\\%", "%").replace("\\", "").split())
        mark = mark.replace("\\", "")
        assert f"18–64{mark}" in text, text
        assert f"{mark} {why}" in text and case in text
        assert text.count(mark) == 2
        assert why not in written(results())


def test_a_kl_efficiency_has_an_interval_or_is_too_few():
    values = results()
    values["policies"][0]["kl_efficiency_interval"] = [0.524, 0.696]
    values["policies"][1] |= {"kl_efficiency": None, "kl_efficiency_note": "too few prompts"}
    policies, *_ = tables(values)
    assert [row[2] for row in policies.rows] == ["61% [52, 70]", "too few", ""]
