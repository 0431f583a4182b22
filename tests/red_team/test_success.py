"""Tests of success: a threshold, a function of lists, or a function of one attempt."""

import json
import sys

import numpy as np
import pytest

from infalign import storage
from infalign.errors import DataError
from infalign.prompts import Prompt
from infalign.red_team.success import SuccessTest

USER = "user"
PROMPTS = [
    Prompt("a", ({"role": USER, "content": "one"},), {"target": "x", "level": 1}, plain=True),
    Prompt("b", ({"role": USER, "content": "two"},), {"target": "y", "level": None}, plain=True),
]
TEXTS = [["x", "y", "xy"], ["x", "y", ""]]
EXPECTED = [[True, False, True], [False, True, False]]


def each(prompt, response, target):
    return target in response


def each_with_all(prompt, response, **columns):
    assert columns == {"prompt_id": "a", "target": "x", "level": 1} or columns["target"] == "y"
    return columns["target"] in response


def lists(prompts, completions, target, **columns):
    assert prompts == ["one"] * 3 + ["two"] * 3
    assert columns == {"prompt_id": [*"aaabbb"], "level": [1] * 3 + [None] * 3}
    return [t in c for t, c in zip(target, completions, strict=True)]


def arrays(completions, target):
    return np.array([t in c for t, c in zip(target, completions, strict=True)])


async def later(prompts, completions, target):
    return [t in c for t, c in zip(target, completions, strict=True)]


@pytest.mark.parametrize("function", [each, each_with_all, lists, arrays, later])
def test_columns_reach_a_function_of_either_form(function):
    test = SuccessTest(function=function)
    test.require_columns(PROMPTS)
    rewards, successes = test(PROMPTS, TEXTS)
    assert successes.tolist() == EXPECTED and np.isnan(rewards).all()


def test_messages_reach_a_function_of_lists_as_messages():
    def own(prompts, completions):
        assert prompts[0] == [{"role": USER, "content": "one"}]
        return [c[-1]["content"] == "x" for c in completions]

    prompt = Prompt("a", ({"role": USER, "content": "one"},))
    assert SuccessTest(function=own)([prompt], [["x", "y"]])[1].tolist() == [[True, False]]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda prompts, completions: [True], "got 1 for 6 attempts"),
        (lambda prompts, completions: True, r"must return a list .*; got True for 6"),
        (lambda prompts, completions: [1] * 6, r"must return True or False; got 1 \(6 of 6"),
        (lambda prompt, response: None, "must return True or False; got None"),
    ],
)
def test_other_values_are_refused(function, words):
    with pytest.raises(DataError, match=words):
        SuccessTest(function=function)(PROMPTS, TEXTS)


@pytest.mark.parametrize(
    "function", [lambda prompt, response, answer: True, lambda completions, answer: [True]]
)
def test_a_column_that_is_missing_is_named(function):
    with pytest.raises(DataError, match=r"needs `answer`, .* their columns are `level`, `target`"):
        SuccessTest(function=function).require_columns(PROMPTS)


def test_other_columns_test_the_stored_attempts_again(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "mine.py").write_text(
        "def broke(prompts, completions, target):\n    return [t == 'yes' for t in target]\n"
    )

    def attack(*targets):
        rows = [{"prompt": f"{i}?", "target": t} for i, t in enumerate(targets)]
        (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        code, _, errors = cli(
            *("red-team", "--model", "bundled:language-model", "--prompts", "p.jsonl", "--out"),
            *("out", "--attempts", 2, "--augment", "none", "--max-new-tokens", 2, "--success"),
            "mine.py:broke",
        )
        assert code == 0, errors
        rows = storage.read_table(tmp_path / "out" / "none.parquet")
        return rows["success"].to_pylist(), rows["completion"].to_pylist(), errors

    first, responses, _ = attack("yes", "no")
    second, again, errors = attack("no", "yes")
    assert first == [True, True, False, False] == second[::-1] and responses == again
    assert "columns of the prompts of its success changed" in " ".join(errors.split())
    sys.modules.pop("mine", None)
