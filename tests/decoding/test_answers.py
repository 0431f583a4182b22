"""Answers of responses: numbers in any script and form, choices, and no answer at all."""

import re
from fractions import Fraction

import pytest
from contracts import law
from hypothesis import given
from hypothesis import strategies as st

from infalign import DataError
from infalign.decoding.answers import load_answers, numeric_answer

READ = [
    ("The total is 1,000.", 1000),
    ("The total is 1000.0 dollars", 1000),
    ("It costs $1,234,567.50.", Fraction("1234567.5")),
    ("First 3, then 4, so 12 in all.", 12),
    ("a loss of -$2.50", Fraction(-5, 2)),
    ("a loss of $-2.50", Fraction(-5, 2)),
    ("₹ 1,00,000 and ¥500", 500),
    ("The range 3-5", 5),
    ("The range 3–5", 5),
    ("+5", 5),
    ("about .5", Fraction(1, 2)),
    ("one half, 1/2", Fraction(1, 2)),
    ("2 1/2 cups", Fraction(5, 2)),
    ("3\n1/2", Fraction(1, 2)),
    ("½", Fraction(1, 2)),
    ("2½ or 2 ½", Fraction(5, 2)),
    ("3⁄4", Fraction(3, 4)),
    ("1.5e3 in all", 1500),
    ("1.5 × 10^3", 1500),
    (r"1.5 \times 10^{-3}", Fraction("0.0015")),
    ("6.02 · 10²³", Fraction("6.02e23")),
    ("10⁶", 10**6),
    ("2^10", 1024),
    ("$1.5 million in all", 1_500_000),
    ("2 Billion", 2 * 10**9),
    ("3 lakh rupees", 300_000),
    ("3 millions of 5 people", 5),
    ("x = - 5", 5),  # a hyphen with a space, after anything, may be a dash
    ("the answer is - 5", -5),
    ("the answer is x = - 5", -5),
    (r"\boxed{x = - 5}", -5),
    (r"\boxed{- \frac{1}{2}}", Fraction(-1, 2)),
    (r"\boxed{\text{5 cm}}", 5),
    (r"\boxed{\mathbf{7}}", 7),
    ("10^{400000}", None),
    (r"so \boxed{42}, not 7", 42),
    (r"\boxed{1} and then \boxed{2}", 2),
    (r"\boxed{\frac{3}{4}}", Fraction(3, 4)),
    (r"\boxed{-\dfrac12}", Fraction(-1, 2)),
    (r"$2\frac{1}{2}$", Fraction(5, 2)),
    (r"\boxed{x = 7}", 7),
    (r"\boxed{10{,}000\text{ cm}}", 10000),
    (r"\boxed{10\,000}", 10000),
    (r"\boxed{1{,}234.5}", Fraction("1234.5")),
    (r"\boxed{5\text{ cm}^2}", 5),
    (r"\boxed{90^\circ}", 90),
    (r"\boxed{\$5}", 5),
    (r"\boxed{12 dollars}", 12),
    (r"\boxed{5} and \boxed{unfinished", 5),
    (r"} \boxed{5} and 3 {", 5),
    (r"\fbox{\text{so } \boxed{8}} of 9", 8),
    ("The answer is 12 of the 30 apples.", 12),
    ("The answer is 3 + 4 = 7.", 7),
    ("The answer is 5!", 5),
    ("The answer is a 5", 5),
    ("**Answer:** 42\nThat took 3 steps.", 42),
    ("The answer is plain\nto see: 8", 8),
    ("work #### 1,234", 1234),
    ("the answer is 1. No: the answer is 2, not 3", 2),
    ("2 of H2O", 2),
    ("La respuesta es 7, no 8", 7),
    ("Die Antwort lautet 7, nicht 8", 7),
    ("Ответ: 42 из 50", 42),
    ("答案是5，不是6", 5),
    ("答案：１２，不是３", 12),
    ("共有3个", 3),
]
NONE = {
    "no number": "no number",
    "empty": "",
    "version": "v1.2.3",
    "exponent": "1e99999999999",
    "too long": "9" * 5000,
    "subscript": "foo_1",
    "power of x": "x^2",
    "superscript of x": "x²",
    "text in a box": r"\boxed{\text{no solution}} since 0 < 3",
    "empty box": r"\boxed{} since 0 < 3",
    "choice": "The answer is (B), see page 3",
    "bare choice": "Of 4, the answer is C.",
    "choice of a box": r"Of 4, \boxed{\textbf{(B)}}",
    "multiple of pi": r"\boxed{2\pi}",
    "pi in a sentence": "The answer is 2π, from 3 steps.",
    "part of a fraction": r"the answer is \frac{\pi}{2}",
    "root": "the answer is √2",
    "root in latex": r"the answer is \sqrt{2}",
    "root in a box": r"\boxed{\sqrt{2}}",
    "sum": r"\boxed{3+4}",
    "variable": r"\boxed{2x}",
    "two numbers": r"\boxed{5 \text{ and } 7}",
    "pair": r"\boxed{(3,5)}",
    "fraction of a fraction": r"\boxed{\frac{1}{\frac{2}{3}}}",
}


@pytest.mark.parametrize(("text", "answer"), READ, ids=[ascii(text) for text, _ in READ])
def test_answers_are_read_however_they_are_written(text, answer):
    assert numeric_answer(text) == answer


@pytest.mark.parametrize("text", NONE.values(), ids=NONE)
def test_a_text_without_one_number_as_its_answer_has_none(text):
    assert numeric_answer(text) is None


@pytest.mark.parametrize("form", ["20%", "20 %", "20\u202f%", "20 percent", "20 per cent", "٢٠٪"])
def test_percent_is_a_hundredth(form):
    assert numeric_answer(f"so {form}") == numeric_answer("0.2") == Fraction(1, 5)
    assert numeric_answer("20 percentage points") == 20
    assert numeric_answer(r"\boxed{20\%}") == Fraction(1, 5)
    assert numeric_answer("5‰") == Fraction(5, 1000)


SPACES = "\u00a0\u2007\u2009\u202f"
GROUPED = [
    *[(f"1{space}234{space}567", 1234567) for space in SPACES],
    *[(f"1{space}234,5", Fraction("1234.5")) for space in SPACES],
    *[(f"1{mark}234{mark}567.5", Fraction("1234567.5")) for mark in "'’ʼ_"],
    ("1.234.567", 1234567),
    ("1.234,56", Fraction("1234.56")),
    ("1.234,567", Fraction("1234.567")),
    ("12,34,567", 1234567),
    ("1,00,000", 100000),
    ("1\u066c234\u066b5", Fraction("1234.5")),
    ("10 000", 10000),
    ("1 000 000,50", 1000000.5),
    ("100 200 300", 300),  # three numbers
    ("1.234", Fraction("1.234")),
    ("5'10", 10),
    ("1, 2, 3", 3),
]
AMBIGUOUS = ["3,5", "3,50", "0,123", "1,2345", "12345,678", "1,2,3", "1.2.3", "1,23,456,789.1.2"]


@pytest.mark.parametrize(("text", "number"), GROUPED, ids=[ascii(text) for text, _ in GROUPED])
def test_groups_of_digits_are_one_number(text, number):
    assert numeric_answer(f"The cost: {text} in all") == number


@pytest.mark.parametrize("text", AMBIGUOUS)
def test_a_number_that_can_be_read_in_two_ways_is_no_answer(text):
    for form in (text, f"the answer is {text}.", rf"\boxed{{{text}}}"):
        assert numeric_answer(form) is None


@law
@given(st.integers(-(10**9), 10**9), st.integers(0, 3))
def test_a_number_reads_the_same_in_every_notation(whole, zeros):
    plain, grouped = str(whole), f"{whole:,}"
    decimals = f"{whole}.{'0' * zeros}" if zeros else plain
    for text in (
        plain,
        grouped,
        decimals,
        rf"\boxed{{{grouped}}}",
        f"{2 * whole}/2",
        f"${grouped}",
        f"{100 * whole} %",
        f"{whole}e0",
        rf"{whole} \times 10^0",
    ):
        assert numeric_answer(f"The answer is {text}.") == whole
        assert numeric_answer(f"7 and {text} is it") == whole


ZEROS = "0٠۰߀०০੦૦୦௦౦೦൦๐໐༠၀០᠐０𝟎"
"""Zero in many scripts; the other digits follow it."""

DECIMALS = st.decimals(-(10**9), 10**9, allow_nan=False, allow_infinity=False, places=4)


@law
@given(DECIMALS, st.sampled_from(ZEROS), st.sampled_from("-−–﹣－"), st.sampled_from("٬,'’\u202f"))
def test_a_number_reads_the_same_in_every_script(number, zero, minus, group):
    text = f"{number:,}".translate({ord("0") + d: chr(ord(zero) + d) for d in range(10)})
    text = text.replace(",", group).replace("-", minus)
    for form in (text, f"so {text}.", rf"\boxed{{{text}}}", f"答案是{text}。"):
        assert numeric_answer(form) == Fraction(number)


@law
@given(st.text())
def test_any_text_has_an_answer_or_none(text):
    assert isinstance(numeric_answer(text), Fraction | None)
    assert isinstance(numeric_answer("1" + ",000" * 2000 + text), Fraction | None)


@law
@given(st.text("0123456789,.' _-+/%^{}\\fracboxed()eE \u202f\n", max_size=40))
def test_any_text_of_digits_and_separators_has_an_answer_or_none(text):
    answer = numeric_answer(text)
    assert isinstance(answer, Fraction | None)
    if answer is not None:
        assert re.search("[0-9]", text)


ALONE = [  # what is written around a number and leaves it as it is
    ("5 cm", 5),
    ("5cm^2", 5),
    ("5m", 5),
    ("3 m/s", 3),
    ("3m/s", 3),
    ("20 °C", 20),
    ("90^\\circ", 90),
    ("the 3rd one", 3),
    ("7pm", 7),
    ("5/hour", 5),
    ("$5/hour", 5),
    ("**5**", 5),
    ("**5!**", 5),
    ("*7* (seven)", 7),
    ("12 (3 dozen)", 12),
    ("5 - because 3 are left", 5),
    ("5-year-old", 5),
    ("5+ years", 5),
    ("5! That is all", 5),
    ("5!! 🎉", 5),
    ("5 - a guess", 5),
    ("3 times a day", 3),
    ("3 + 4 = 7", 7),
    ("(5)", 5),
    (r"\(5\)", 5),
    (r"$5$", 5),
    (r"5\text{ cm}", 5),
    ("5cc", 5),
    ("5个", 5),
    ("1/2 of it", Fraction(1, 2)),
    ("2^10", 1024),
    ("-7", -7),
    ("minus 7", -7),
    ("negative 1/2", Fraction(-1, 2)),
    ("1/2 or 0.5", Fraction(1, 2)),
    ("50% or 1/2", Fraction(1, 2)),
    ("<b>5</b>", 5),
    ("5 and nothing more", 5),
    ("5 to be exact", 5),
    ("5 or so", 5),
    ("about 5", 5),
]


@pytest.mark.parametrize(("text", "number"), ALONE, ids=[ascii(text) for text, _ in ALONE])
def test_units_words_and_marks_leave_a_number_as_it_is(text, number):
    assert numeric_answer(f"The answer is {text}") == number


SMALL = st.integers(2, 99)
AROUND = [
    "{n}:{m:02}",
    "{n}:{m:02} pm",
    "{n}x",
    "{n}x + {m}",
    "{n} x + {m}",
    "${n}x+{m}$",
    "{n}m + {m}",
    "{n}xy",
    "{n}i",
    "{n}e",
    "{n}k",
    "0x{n}F",
    "{n}_{m}",
    "{n}!/{m}",
    "${n}!$",
    "{n}! ways",
    "{n}*{m}",
    "{n}**{m}",
    "{n} * {m}",
    "{n}×{m}",
    r"{n} \times {m}",
    r"{n} \cdot x",
    "{n} + {m}",
    "{n}+{m}",
    "{n} - {m}",
    "{n}-{m}",
    "{n}/0",
    "{n}/(x + {m})",
    "{n}/x",
    "{n}({m})",
    "{n}(x + {m})",
    "(-{n})^{m}",
    "({n})^{m}",
    "({n})({m})",
    "({n}, {m})",
    "({n}; x)",
    "±{n}",
    r"\pm {n}",
    "+/-{n}",
    "plus or minus {n}",
    "log {n}",
    "sqrt({n})",
    "the square root of {n}",
    r"{n}\frac{{x}}{{2}}",
    r"{n}\sin x",
    "x + {n}",
    "x+{n}",
    "x^2 - {n}",
    "(a + b) * {n}",
    "{n} squared",
    "{n} plus {m}",
    "{n} times {m}",
    "negative -{n}",
    "{n} or -1",
    "{n} or 0.5",
    "x = 1 or x = {n}",
    "x = {n} or x = 1",
    "$x = 1$ and $y = {n}$",
    "x = 1, y = {n}",
    "${n}$ or $1$",
    "{n} and 1",
    "{n} to 100",
    "{n} cm to 1 m",
    "between {n} and 100",
    "either {n} or 1",
    "not {n}",
    "less than {n}",
    "more than ${n}",
    "greater than or equal to {n}",
    "at least {n}",
    "{n} or more",
    "{n} dollars or less",
    "x < {n}",
    "x<={n}",
    "x >= {n}",
    "x != {n}",
    r"x \le {n}",
    "≥ {n}",
]


@pytest.mark.parametrize("form", AROUND)
@law
@given(SMALL, SMALL)
def test_an_expression_around_a_number_is_not_that_number(form, n, m):
    text = form.format(n=n, m=m)
    assert numeric_answer(f"The answer is {text}") not in (n, -n)
    assert numeric_answer(f"The answer is {text}.") not in (n, -n)
    assert numeric_answer(rf"\boxed{{{text}}}") not in (n, -n)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("We get {}.", 5),
        ("Step 3: {}", 5),
        ("They have 2 + 3 = {} apples", 5),
        ("In the end 1.\n- {}", 5),
        ("She keeps {}!", 5),
        ("We meet at 10:30 with {}", 5),
        ("We get 3x + {}.", None),
        ("We get 3x - {}", None),
        ("It is {}x", None),
        ("It is at 10:{}", None),
        ("The ratio is 3:{}", None),
        ("We get 2 * {}", None),
        ("We get 12 - {}", None),
        ("It is 3 or {}", None),
        ("It is 1/2 and 0.5, or {}", 5),
        ("It is at least {}", None),
    ],
)
def test_the_last_number_counts_where_it_stands_alone(text, number):
    assert numeric_answer(text.format(5)) == number


def test_different_answers_do_not_vote_together():
    for one, other in (("10:05", "10:30"), ("3x + 2", "3x + 5"), ("minus 7", "7")):
        values = [numeric_answer(f"The answer is {text}.") for text in (one, other)]
        assert values[0] != values[1] or values[0] is None


def test_answers_are_loaded_by_name():
    assert load_answers("numeric") is numeric_answer
    assert load_answers("python:os.path:basename")("a/b") == "b"
    for wrong in ("letters", "python:os.path:nothing", "python:x"):
        with pytest.raises(DataError, match=f"The answers '{wrong}' cannot be loaded"):
            load_answers(wrong)
