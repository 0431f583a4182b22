"""Answers compared as mathematics: one value for all ways to write the same."""

import sys
import threading
from fractions import Fraction
from itertools import combinations

import pytest

from infalign import MissingExtraError
from infalign.decoding.answers import load_answers
from infalign.decoding.expressions import math_answer

SAME = [
    [r"\frac{1}{2}", "0.5", r"\frac12", r"50\%", "1/2", r"\frac{\pi}{2\pi}", r"2^{-1}"],
    [r"2\pi", r"\pi \cdot 2", r"\frac{4\pi}{2}"],
    [r"\sqrt{8}", r"2\sqrt2", r"\frac{4}{\sqrt{2}}"],
    ["x^2+2x+1", "(x+1)^2", "1 + x(x + 2)"],
    ["y^2+2y+1"],
    [r"(a+b)(a-b)", "a^2 - b^2"],
    [r"\{1,2\}", r"\{2, 1\}", r"1 \text{ or } 2"],
    ["(1,2)", "(1, 2)", r"\left(1,\frac{4}{2}\right)"],
    ["(2,1)"],
    ["[1,2]"],
    ["(1,2,3)"],
    ["(3,2,1)"],
    [r"[0,\infty)", r"x \in [0,\infty)"],
    ["5", "x=5", r"5\text{ cm}", "x-x+5", r"\frac{\log 32}{\log 2}", "3+2"],
    [r"\text{no solution}", r"\text{No solution.}"],
    [r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}\frac22\\2\end{pmatrix}"],
    ["x>2", "2<x"],
    [r"x \ge 2"],
    ["B", r"\text{B}", "(B)", r"\textbf{(B)}", "(b)"],
    ["b"],
    [r"\pm 2", r"\{-2,2\}"],
    ["y=2x+1", "y = 1+2x"],
    [r"\infty"],
    [r"-\infty"],
    ["n!"],
    [r"9^{9^{9^9}}"],
    ["10^{100000}"],
    [r"\sum_{k=1}^{1000000000} k"],
    ["1,234", "1{,}234", "1234"],
]


def boxed(text):
    return math_answer(rf"so \boxed{{{text}}}")


def test_equal_answers_share_a_value_and_different_ones_do_not():
    values = [{boxed(text) for text in texts} for texts in SAME]
    assert [len(v) for v in values] == [1] * len(SAME)
    for a, b in combinations(values, 2):
        assert a.isdisjoint(b)


def test_equality_is_transitive_over_all_pairs_of_forms():
    # math-verify itself calls 20 % equal to 20 and to 0.2, but not 20 to 0.2.
    answers = [boxed(text) for text in (r"20\%", "20", "0.2", r"\frac{1}{5}", r"20\text{ percent}")]
    for a in answers:
        for b in answers:
            for c in answers:
                assert not (a == b and b == c) or a == c
    assert answers[0] == answers[2] == answers[3] != answers[1]


def test_an_answer_without_a_box_follows_the_mark_or_is_the_last_number():
    assert math_answer("The answer is (B).") == math_answer("Answer: **B**") == "B"
    assert math_answer("The answer is $2\\pi$.") == boxed(r"\pi 2")
    assert math_answer("3 and then 4 apples") == 4
    assert math_answer(r"\boxed{x = 7}, not 8") == Fraction(7)
    for nothing in ("", r"\boxed{}", "nothing"):
        assert math_answer(nothing) is None
    assert str(boxed(r"\sqrt{8}")) == r"\sqrt{8}"  # as the response writes it


def test_answers_are_compared_in_threads_too():
    found = []
    thread = threading.Thread(target=lambda: found.append(boxed("(t+1)^2")))
    thread.start()
    thread.join()
    assert found == [boxed("t^2+2t+1")]


def test_without_the_library_its_name_is_said(monkeypatch):
    assert load_answers("math") is math_answer
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(MissingExtraError, match=r'pip install "infalign\[answers\]"'):
        load_answers("math")
