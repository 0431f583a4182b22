"""Lengths of a source have one unit, and lengths in different units are not compared."""

import json

import numpy as np
import pytest

from infalign.analysis import (
    Samples,
    analyze,
    join_verdicts,
    judge,
    read_samples,
    read_verdicts,
)
from infalign.errors import ArgumentError, DataError


def rows(tokens=lambda number: number + 5, texts=True):
    """Two prompts with three samples each; `tokens` gives the count of each sample, or None."""
    made = [{"prompt_id": p, "reward": float(i)} for p in "ab" for i in range(3)]
    for number, row in enumerate(made):
        if (count := tokens(number)) is not None:
            row["n_tokens"] = count
        if texts:
            row["response"] = "x" * (100 + number)
    return made


def read(path, made, name="rl", **options):
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return read_samples(str(path), name, **options)


def by_prompt(start):
    return [[start, start + 1, start + 2], [start + 3, start + 4, start + 5]]


def test_a_column_that_every_sample_has_is_the_length(tmp_path):
    own = read(tmp_path / "a.jsonl", rows())
    assert (own.lengths.tolist(), own.length_unit) == (by_prompt(5), "tokens")


def test_lengths_in_csv_files_are_numbers(tmp_path):
    (tmp_path / "a.csv").write_text("id,reward,length,response\na,1,7,xx\na,2,9,xxx\n")
    own = read_samples(str(tmp_path / "a.csv"), "rl")
    assert (own.lengths.tolist(), own.length_unit) == ([[7, 9]], "length")


def test_where_the_column_has_gaps_the_lengths_are_those_of_the_responses(tmp_path):
    own = read(tmp_path / "a.jsonl", rows(lambda number: 5 if number else None))
    assert (own.lengths.tolist(), own.length_unit) == (by_prompt(100), "characters")
    assert (
        "lengths are those of the responses, in characters: `n_tokens` gives none for 1 of 6 "
        "samples"
    ) in own.notes


def test_only_samples_that_are_read_count_as_gaps(tmp_path):
    made = rows(lambda number: number + 5 if number else None)
    made[0]["finish_reason"] = "length"
    own = read(tmp_path / "a.jsonl", made, drop=["truncated"])
    assert own.length_unit == "tokens"


def test_without_the_length_of_some_sample_there_are_none(tmp_path):
    made = rows(lambda number: 5 if number else None)
    del made[1]["response"], made[2]["response"]
    own = read(tmp_path / "a.jsonl", made)
    assert own.lengths is None and own.length_unit is None
    assert (
        "lengths are left out: `n_tokens` gives none for 1 of 6 samples, and 2 of 6 samples have "
        "no response"
    ) in own.notes
    del made[3:]
    for row in made:
        row.pop("n_tokens", None)
    own = read(tmp_path / "a.jsonl", made)
    assert own.lengths is None
    assert "lengths are left out: 2 of 3 samples have no response" in own.notes
    silent = read(tmp_path / "b.jsonl", rows(lambda number: None, texts=False))
    assert silent.lengths is None and not any("length" in note for note in silent.notes)


@pytest.mark.parametrize("texts", [True, False])
def test_a_column_without_any_length_is_stated(tmp_path, texts):
    made = [row | {"n_tokens": None} for row in rows(lambda number: None, texts=texts)]
    own = read(tmp_path / "a.jsonl", made)
    assert own.length_unit == ("characters" if texts else None)
    assert own.notes[-1].endswith(": `n_tokens` gives none for 6 of 6 samples")


def test_wide_rows_have_one_unit_too(tmp_path):
    row = {"prompt_id": "a", "rewards": [1, 2], "response": ["x", "xx"], "n_tokens": [5, None]}
    own = read(tmp_path / "a.jsonl", [row])
    assert (own.lengths.tolist(), own.length_unit) == ([[1, 2]], "characters")


def test_counts_have_no_lengths(tmp_path):
    own = read(tmp_path / "a.jsonl", [{"id": 1, "c": 1, "n": 3}])
    assert own.lengths is None and own.length_unit is None
    assert not any("length" in note for note in own.notes)


@pytest.mark.parametrize("length", ["short", "1,000", "12 tokens", -1, "-1", True, [5]])
def test_values_that_are_no_lengths_are_counted_or_refused_where_the_column_is_named(
    tmp_path, length
):
    made = rows(lambda number: number + 5 if number else length)
    own = read(tmp_path / "a.jsonl", made)
    assert (own.lengths.tolist(), own.length_unit) == (by_prompt(100), "characters")
    assert "`n_tokens` gives none for 1 of 6 samples, such as " in own.notes[-1]
    assert own.notes[-1].endswith("a.jsonl, line 1)")
    with pytest.raises(DataError, match=r"a.jsonl, line 1: `n_tokens` must be a length.*got"):
        read(tmp_path / "a.jsonl", made, columns={"length": "n_tokens"})


def test_infinite_lengths_are_refused(tmp_path):
    with pytest.raises(DataError, match="`n_tokens` must be a length"):
        read(tmp_path / "a.jsonl", rows(lambda number: "1e999"))


@pytest.mark.parametrize("word", ["", "NaN", "null", "None", "n/a"])
def test_words_for_a_missing_length_are_gaps(tmp_path, word):
    made = rows(lambda number: number + 5 if number else word)
    own = read(tmp_path / "a.jsonl", made, columns={"length": "n_tokens"})
    assert own.length_unit == "characters"


def test_tokens_are_not_compared_with_characters(tmp_path):
    base = read(tmp_path / "base.jsonl", rows(), "base")
    made = rows(lambda number: None)
    analysis = analyze(base, [read(tmp_path / "rl.jsonl", made)])
    assert not analysis.at_equal_length
    assert analysis.length_notes["rl"].startswith(
        "lengths are left out: those of base are in tokens, those of rl in characters."
    )
    both = [
        read(tmp_path / f"{name}.jsonl", own, name, columns={"length": "response"})
        for name, own in (("base", rows()), ("rl", made))
    ]
    characters = analyze(both[0], both[1:])
    assert characters.at_equal_length and not characters.length_notes


def test_columns_of_tokens_may_have_different_names(tmp_path):
    base = read(tmp_path / "base.jsonl", rows(), "base")
    made = [{"completion_tokens": row.pop("n_tokens"), **row} for row in rows()]
    analysis = analyze(base, [read(tmp_path / "rl.jsonl", made)])
    assert analysis.at_equal_length and not analysis.length_notes
    made = [{"length": row.pop("completion_tokens"), **row} for row in made]
    analysis = analyze(base, [read(tmp_path / "rl.jsonl", made)])
    assert not analysis.at_equal_length
    assert (
        "of base are in tokens, those of rl in the unit of `length`"
        in (analysis.length_notes["rl"])
    )


def test_lengths_of_one_side_only_are_stated():
    scores = np.arange(8.0).reshape(2, 4)

    def notes(ours, theirs):
        base, rl = (
            Samples(name, ("a", "b"), scores, **own)
            for name, own in (("base", theirs), ("rl", ours))
        )
        return analyze(base, [rl]).length_notes.get("rl", "")

    known = {"lengths": scores + 1}
    assert notes(known, known) == notes({}, {}) == ""
    one_side = notes({}, known)
    assert "those of base are in a unit without a name, those of rl unknown" in one_side
    assert "--column length=NAME" in one_side
    assert "Give both the same `length_unit`." in notes(known | {"length_unit": "tokens"}, known)


def test_units_are_texts():
    with pytest.raises(ArgumentError, match="`length_unit` must be a string"):
        Samples("a", ("p",), [[1.0]], length_unit=1)


def judged(path, made, first="response_a", second="response_b"):
    """Verdicts on two responses, which have values in two columns."""
    sides = {"model_a": "rl", "model_b": "base", "winner": "model_a"}
    path.write_text(
        "".join(
            json.dumps({"id": i} | sides | {first: a, second: b}) + "\n"
            for i, (a, b) in enumerate(made)
        )
    )
    named = {"first-response": first, "second-response": second}
    return read_verdicts(str(path), columns=named)


TEXTS = [("xxxx", "xx"), ("x", "xxx")]
MESSAGE = "The responses of all verdicts must be texts, or counts in one unit"


@pytest.mark.parametrize(
    ("columns", "made", "unit", "differences"),
    [
        (("response_a", "response_b"), TEXTS, "characters", [2, -2]),
        (("tokens_a", "tokens_b"), [(9, 5), (1, 2)], "tokens", [4, -1]),
        (("tokens_a", "tokens_b"), [("9", "10"), ("1", "2.0")], "tokens", [-1, -1]),
        (("n_chars", "response_b"), [(9, "xx"), (1, "xxx")], "characters", [7, -2]),
        (("size_a", "size_b"), [(9, 5), (1, 2)], "size_a and size_b", [4, -1]),
        (("response_a", "response_b"), [("9", "10"), ("xx", "x")], "characters", [-1, 1]),
    ],
)
def test_lengths_of_two_responses_have_one_unit(tmp_path, columns, made, unit, differences):
    own = judged(tmp_path / "a.jsonl", made, *columns)
    assert (own.length_unit, own.differences.tolist()) == (unit, differences)
    panel = judge(own, reference="base").panels["rl"]
    assert panel.length is not None and len(own.notes) == 1


@pytest.mark.parametrize(
    ("columns", "made", "units"),
    [
        (("tokens_a", "response_b"), [(90, "xx"), (80, "x")], "in tokens against characters for 2"),
        (
            ("tokens_a", "size_b"),
            [(90, 2), (80, 3)],
            "in tokens against the unit of `size_b` for 2",
        ),
        (
            ("tokens_a", "tokens_b"),
            [(90, 80), (80, 70), ("some text", "a text")],
            "in tokens for 2, in characters for 1",
        ),
        (
            ("response_a", "response_b"),
            [*TEXTS, (90, "xx")],
            "in characters for 2, in the unit of `response_a` against characters for 1",
        ),
    ],
)
def test_a_number_is_not_subtracted_from_the_characters_of_a_text(tmp_path, columns, made, units):
    own = judged(tmp_path / "a.jsonl", made, *columns)
    assert own.length_unit is None and np.isnan(own.differences).all()
    note = f"lengths are left out: those of {len(made)} verdicts are {units}. {MESSAGE}"
    result = judge(own, reference="base")
    assert result.notes[1] == note and result.panels["rl"].length is None


@pytest.mark.parametrize("value", [None, -1, True, [5], 10**400, "", "N/A"])
def test_a_verdict_without_a_length_leaves_the_others(tmp_path, value):
    own = judged(tmp_path / "a.jsonl", [(9, 5), (value, 2)], "tokens_a", "tokens_b")
    np.testing.assert_array_equal(own.differences, [4, np.nan])
    assert own.length_unit == "tokens"
    assert "lengths are known for 1 of 2" in judge(own, reference="base").notes[-2]


def test_sources_of_verdicts_with_other_units_have_no_lengths_together(tmp_path):
    texts = judged(tmp_path / "a.jsonl", TEXTS)
    tokens = judged(tmp_path / "b.jsonl", [(9, 5), (1, 2)], "tokens_a", "tokens_b")
    both = join_verdicts([texts, texts])
    assert both.length_unit == "characters" and both.differences.tolist() == [2, -2] * 2
    both = join_verdicts([texts, tokens])
    assert both.length_unit is None and np.isnan(both.differences).all()
    assert both.notes[-1] == (
        "lengths are left out: the sources have them in characters and tokens"
    )
    silent = judged(tmp_path / "c.jsonl", [(None, None)])
    assert join_verdicts([silent, tokens]).length_unit == "tokens"
