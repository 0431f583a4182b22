"""The page of an analysis says what the curves say, and shows texts of others as texts."""

import json
import re

import numpy as np
import pytest
from hostile import TEXTS

from infalign.analysis import Samples, analyze
from infalign.analysis.page import analysis_page, verdict_sentence


def analysis(*names, shift=1.0, prompts=40):
    rng = np.random.default_rng(0)
    ids = [f"p{i}" for i in range(prompts)]
    return analyze(
        Samples("base", ids, rng.normal(size=(prompts, 4))),
        [Samples(name, ids, rng.normal(shift, size=(prompts, 4))) for name in names],
    )


def data(page):
    return json.loads(re.search(r'id="plots">(.*?)</script>', page, re.S)[1])


def test_the_curves_are_those_of_the_analysis():
    own = analysis("rl")
    page = analysis_page(own, command="infalign analyze --policy 'a b'")
    plots = data(page)
    assert [p["title"] for p in plots] == ["best-of-n: win rate, %", "worst-of-n: win rate, %"]
    rows = plots[0]["curves"][0]["sizes"]
    assert [row["value"] for row in rows] == own.curve("rl", "best-of-n").values.tolist()
    assert "rl under best-of-n wins at n = 1–4." in page
    assert "infalign analyze --policy &#39;a b&#39;" in page
    assert 'src="' not in page


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        (1.0, "rl under best-of-n wins at n = 1–4."),
        (-1.0, "rl under best-of-n loses at n = 1–4. The first n that loses is 1."),
        (0.0, "rl under best-of-n: the data cannot tell, at any n."),
    ],
)
def test_a_sentence_says_what_a_curve_shows(shift, words):
    assert verdict_sentence(analysis("rl", shift=shift).curve("rl", "best-of-n")) == words


@pytest.mark.parametrize("kind", TEXTS)
def test_names_of_others_are_texts(kind):
    text = TEXTS[kind]
    page = analysis_page(analysis(text, "other", prompts=6), command=text)
    assert page.count("<script") == 2  # the data, and the page's own
    assert "\x1b" not in page
    assert "<img" not in page
