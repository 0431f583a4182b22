"""One spelling, and sentences that read at once: words that pages and code avoid."""

import ast
import re

import pytest
from pages import ROOT

BRITISH = re.compile(
    r"""\b\w*(
    (maxim|minim|optim|regular|normal|initial|general|parametr|organ|summar|recogn|util|penal
    |standard|random|serial|token|vector|symmetr|memor|categor|discret|factor|linear|quant|student
    |character|visual|final|emphas|real|local|central|stabil|neutral|synchron|custom|categor)
    (is(e|es|ed|ing|er|ers|able)|isations?)
    |analys(e|ed|ing|er|ers)
    |(col|neighb|behavi|fav|hon|lab|flav|hum|rum|harb)ours?(ed|ing|ite|able|hood)?
    |(label|model|travel|signal|level|channel|fuel)l(ed|ing|er)
    |catalogue|centre|licence|defence|offence|artefact|whilst|learnt|spelt|programme
    )\b""",
    re.X | re.I,
)
ANALYSES = {"analyses", "analyser"}  # the plural of analysis is American, too

RIDDLES = re.compile(
    r"\b(unless given|so many\b(?! )|the first so many|by so many|as of (?=`|[A-Z])|there twice"
    r"|(?<!there )(?-i:is|are) (?-i:none)\b|held against|lend each other|what any policy"
    r"|(is|are) told\b|is found out|stands? there)",
    re.I,
)
"""Phrases that readers had to read twice: put the subject first, and use the field's noun."""

JARGON = {"found", "told", "kept"}
"""Names that say nothing: `optimum`, `estimate`, `message`, `selected` say what the value is."""

PROSE = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("docs/*.py")),
    *sorted(ROOT.glob("bundled_models/*.py")),
    *sorted(ROOT.glob("evidence/*.py")),
    *sorted(ROOT.glob("evidence/*.md")),
    *sorted(ROOT.glob("examples/**/*.*")),
    *(
        f
        for end in ("py", "md", "html", "js", "yaml")
        for f in sorted(ROOT.glob(f"src/**/*.{end}"))
    ),
]
PRINTED = {"docs/demo.md"}
"""Pages that show what a program printed when it was run."""

CODE = [f for f in PROSE if f.suffix == ".py"]


def name(file):
    return str(file.relative_to(ROOT))


def checked(files):
    return [f for f in files if name(f) not in PRINTED]


def hits(pattern, text):
    lines = enumerate(text.splitlines(), 1)
    return [f"{i}: {m[0]}" for i, line in lines for m in pattern.finditer(line)]


@pytest.mark.parametrize("file", checked(PROSE), ids=name)
def test_spelling_is_american(file):
    lines = hits(BRITISH, file.read_text(encoding="utf-8"))
    assert [line for line in lines if line.split()[-1].lower() not in ANALYSES] == []


@pytest.mark.parametrize("file", checked(PROSE), ids=name)
def test_no_sentence_is_a_riddle(file):
    assert hits(RIDDLES, file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("file", checked(CODE), ids=name)
def test_names_say_what_they_hold(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.Name | ast.arg | ast.Attribute)]
    named = [
        (n.lineno, getattr(n, "id", None) or getattr(n, "arg", None) or getattr(n, "attr", None))
        for n in nodes
    ]
    assert [f"{line}: {word}" for line, word in named if word in JARGON] == []


def test_the_patterns_find_what_they_are_for():
    british = "regularised maximises initialisation neighbours unlabelled analysed behaviour"
    assert len(BRITISH.findall(british)) == 7
    american = "raises otherwise noise promised regularized neighbors labeled hours your four"
    assert not BRITISH.findall(american)
    assert RIDDLES.search("Of the batch unless given.") and not RIDDLES.search("a table of methods")
