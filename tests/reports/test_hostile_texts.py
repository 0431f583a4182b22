"""Names and texts of others in every form of the results: tables, page and figures."""

import contextlib
import io
import json
import re
from html.parser import HTMLParser

import hostile
import pytest
from matplotlib.text import Text
from test_reports import results
from test_responses import rows
from test_tables import printed

from infalign._check import visible
from infalign.cli.show import Form, print_results
from infalign.reports import drawing, plots
from infalign.reports.origin import Cost, Origin
from infalign.reports.page import render
from infalign.reports.responses import MOST_BYTES, _fitted
from infalign.reports.tables import latex, markdown

every_text = pytest.mark.parametrize("text", hostile.TEXTS.values(), ids=hostile.TEXTS)


def named(text):
    """Results in which every name is `text`."""
    values = results()
    values |= {"judge": text, "model": text, "reward": text, "gold": {text: text}}
    for number, policy in enumerate(values["policies"]):
        policy |= {"label": f"{number}{text}" if number else text, "transform": text}
        policy["gold"] = {text: policy["gold"]["gold"]}
    for family in values["by_n"].values():
        family["win_rates"][text] = family["win_rates"].pop("gold")
    for example in values["examples"]:
        example["prompt"] = text
        for response in example["responses"]:
            response |= {"label": text, "text": text}
    values["decisions"] = [d | {"reward": "reward"} for d in values["decisions"][::2]]
    return values


@every_text
def test_tables_of_the_terminal_show_names_escaped_and_whole(text):
    out = printed(named(text), width=160)
    assert hostile.steering(out) == []
    shown = re.sub(r"\s", "", out)
    assert re.sub(r"\s", "", visible(text))[:20] in shown
    assert "91.2[89.4,93.0]" in shown and "95.1" in shown


@every_text
def test_no_name_is_markup_in_markdown(text):
    out = markdown(named(text))
    assert hostile.steering(out) == []
    rows = [line for line in out.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows} == {6}
    plain = re.sub(r"\\(.)", "", out.replace("\\\\", ""))  # without escaped signs
    titles = [line for line in plain.splitlines() if line.startswith("**")]
    assert all(re.fullmatch(r"\*\*[^*]*\*\*", line) for line in titles)
    for sign in ("<", ">", "`", "$", "&", "{", "~", "](", "://"):
        assert sign not in plain, sign


@every_text
def test_no_name_is_a_command_in_latex(text):
    out = latex(named(text))
    assert hostile.steering(out) == []
    known = r"textbackslash|textasciitilde|textasciicircum|textasciigrave|textbar|textless"
    known += r"|textgreater|begin|end|toprule|midrule|bottomrule|pm|times"
    lines = [line for line in out.splitlines() if not line.startswith("%")]  # titles are comments
    commands = set(re.findall(r"\\([a-zA-Z]+)", re.sub(r"\\\\", " ", "\n".join(lines))))
    assert commands <= set(known.split("|"))
    body = [line for line in out.splitlines() if line.endswith(r"\\")]
    counts = {len(re.findall(r"(?<!\\)&", line)) for line in body}
    assert counts == {4}
    assert all(line[:1] not in "[*" for line in out.splitlines() if line)
    assert len(out.splitlines()) == len(latex(named("x")).splitlines())
    for line in lines:
        bare = re.sub(r"\\[\\{}&%$#_]", "", line)
        assert bare.count("{") == bare.count("}") and "%" not in bare and "#" not in bare


class Texts(HTMLParser):
    """Tags of a page, and all its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.attributes = [], "", []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attributes]

    def handle_data(self, data):
        self.text += data


def hostile_page(text, prompts=1):
    """A page in which every name and every text is `text`."""
    stored = text.encode("utf-8", "backslashreplace").decode()  # Parquet holds no half pairs
    table = rows(prompts, text=stored)
    names = [name.replace("gold", stored) for name in table.column_names]
    return render(
        named(text),
        provenance={"name": text, text: "y"},
        config=text,
        origin=Origin(text, text, [Cost(text, 1, 2, 3.0)]),
        responses=_fitted(table.rename_columns(names), MOST_BYTES),
        files=[(text.encode("utf-8", "replace").decode(), text)],
    )


def test_the_page_shows_every_text_and_runs_none():
    plain = Texts(hostile_page("x"))
    for text in hostile.TEXTS.values():
        page = hostile_page(text)
        seen = Texts(page)
        assert hostile.steering(page) == []
        assert visible(text, "\n\t") in seen.text
        assert seen.tags == plain.tags and set(seen.attributes) == set(plain.attributes)
        assert not {name for name in seen.attributes if name.startswith("on")}
        assert "https://" not in page


FIGURES = ("$x$ a_$b", r"$\frac{ \x1b[31m \ud83d \u202e 日本 \n", "n" * 300)


@pytest.mark.parametrize("text", FIGURES, ids=ascii)
@pytest.mark.parametrize("draw", [plots.win_rate, plots.by_n])
def test_a_figure_draws_every_name_as_it_is(text, draw, tmp_path):
    text = text.replace(r"\x1b", "\x1b").replace(r"\ud83d", "\ud83d").replace(r"\u202e", "\u202e")
    figure = draw(named(text))
    drawing.save_png(figure, tmp_path / "figure.png")
    shown = [t.get_text() for t in figure.findobj(Text)]
    assert hostile.steering("".join(shown)) == []
    legend = figure.legends[0].get_texts()[0].get_text()
    assert legend == drawing.label(text) and len(legend) <= 36


def test_machine_output_is_exact(monkeypatch, tmp_path):
    for text in hostile.TEXTS.values():
        values = named(text)
        monkeypatch.setattr("infalign.reports.page.results_of", lambda _, values=values: values)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            print_results(tmp_path, Form.json)
        assert json.loads(out.getvalue()) == json.loads(json.dumps(values))
        assert hostile.steering(out.getvalue()) == []
