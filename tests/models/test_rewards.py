"""Rewards that are Python functions: what they may return, and how they are misread."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from infalign import DataError
from infalign.models.functions import PythonFunction
from infalign.models.python_reward import TRIES, PythonReward
from infalign.models.rewards import load_reward, score
from infalign.shaping import checked_output, constant

TEXTS = ["hello", "a", "ab"]
QUESTION = [{"role": "user", "content": "q"}]


def scored(function, texts=TEXTS):
    reward = PythonReward(PythonFunction(function, "reward", "python:mine:f"))
    return score(reward, [QUESTION], [texts], ["p"])[0].tolist()


RETURNED = {
    "list": [0.5, 1, 2],
    "tuple": (0.5, 1, 2),
    "array": np.array([0.5, 1, 2]),
    "half": np.array([0.5, 1, 2], np.float16),
    "tensor": torch.tensor([0.5, 1, 2]),
    "bfloat16": torch.tensor([0.5, 1, 2], dtype=torch.bfloat16),
    "gradient": torch.tensor([0.5, 1, 2], requires_grad=True),
    "column": torch.tensor([[0.5], [1], [2]]),
    "scalars": [torch.tensor(0.5), np.float32(1), np.int64(2)],
    "of one entry": [torch.tensor([0.5]), np.array([1]), torch.tensor(2, dtype=torch.bfloat16)],
    "booleans": [0.5, True, 2],
    "exact": [Fraction(1, 2), Decimal("1"), Decimal("2.0")],
}


@pytest.mark.parametrize("returned", RETURNED.values(), ids=RETURNED)
def test_numbers_of_any_library_are_rewards(returned):
    assert scored(lambda **columns: returned) == [0.5, 1, 2]
    assert checked_output(returned, TEXTS, "f").dtype == float


def test_truth_values_of_any_library_are_rewards():
    for returned in (
        [np.bool_(True), np.False_, torch.tensor(True)],
        np.array([True, False, True]),
    ):
        assert scored(lambda returned=returned, **columns: returned) == [1, 0, 1]


REFUSED = {
    "none": [1, None, 2],
    "text": [1, "2", 3],
    "nan": [1, float("nan"), 2],
    "infinite": [1, torch.tensor(float("-inf")), 2],
    "complex": [1, 1j, 2],
    "complex array": np.array([1, 1j, 2]),
    "too large": [1, 10**400, 2],
    "decimal nan": [1, Decimal("sNaN"), 2],
    "lists": [[1], [2], [3]],
    "pairs": torch.ones(3, 2),
    "pairs in a list": [torch.ones(2)] * 3,
    "masked": np.ma.masked_array([1.0, 2.0, 3.0], [0, 1, 0]),
    "short": [1, 2],
    "number": 1.0,
    "scalar": torch.tensor(1.0),
    "generator": (float(i) for i in range(3)),
    "dict": {0: 1, 1: 2, 2: 3},
    "set": {1, 2, 3},
    "word": "123",
    "nothing": None,
}


@pytest.mark.parametrize("returned", REFUSED.values(), ids=REFUSED)
def test_anything_else_is_refused_with_the_name_of_the_function(returned):
    def judge_of_mine(**columns):
        return returned

    with pytest.raises(DataError, match=r"reward function `judge_of_mine` must return"):
        scored(judge_of_mine)


async def waits(completions, **columns):
    return [float(len(c[-1]["content"])) for c in completions]


async def of_a_running_loop():
    return checked_output(waits([[{"content": t}] for t in TEXTS]), TEXTS, "waits").tolist()


def test_an_async_function_is_awaited_also_inside_a_running_loop():
    import asyncio

    assert scored(waits) == [5, 1, 2]
    assert asyncio.run(of_a_running_loop()) == [5, 1, 2]


MISREAD = {
    "length": lambda prompts, completions, **columns: [len(c) / 10 for c in completions],
    "words": lambda completions, **columns: [float("a" in c) for c in completions],
    "prompts": lambda prompts, completions: [
        float(c == p) for p, c in zip(prompts, completions, strict=True)
    ],
}


@pytest.mark.parametrize("function", MISREAD.values(), ids=MISREAD)
def test_a_function_that_reads_messages_as_text_is_refused_with_the_remedy(function):
    texts = ["hello", "a", "q"]
    with pytest.raises(
        DataError, match=r"reads completions as text.*all 3 .* c\[-1\]\['content'\]"
    ):
        scored(function, texts)


READ = {
    "messages": lambda completions, **columns: [
        float("z" in c[-1]["content"]) for c in completions
    ],
    "either": lambda completions, **columns: [
        float(len(c) > 9) if isinstance(c, str) else 0.0 for c in completions
    ],
    "neither": lambda completions, **columns: [1.0] * len(completions),
}


@pytest.mark.parametrize("function", READ.values(), ids=READ)
def test_a_reward_that_is_constant_for_another_reason_is_not_refused(function):
    assert len(set(scored(function))) == 1


def test_a_function_is_asked_again_only_while_it_is_suspected():
    calls = []

    def counted(completions, **columns):
        calls.append(type(completions[0]))
        return [float(c[-1]["content"] == "z") if isinstance(c, list) else 0.0 for c in completions]

    reward = PythonReward(PythonFunction(counted, "reward", "python:mine:counted"))
    score(reward, [QUESTION], [["z", "a"]], ["p"])  # two values: it reads messages
    score(reward, [QUESTION], [["b", "a"]], ["p"])
    assert calls == [list, list]
    reward, calls[:] = PythonReward(PythonFunction(counted, "reward", "python:mine:counted")), []
    for _ in range(TRIES + 3):
        score(reward, [QUESTION], [["b", "a"]], ["p"])
    assert calls.count(str) == TRIES
    score(reward, [QUESTION], [["a", "a"]], ["p"])  # one text only: nothing to tell apart
    assert calls.count(str) == TRIES


def test_a_reward_keeps_the_name_of_its_function(tmp_path):
    file = tmp_path / "named.py"
    file.write_text(
        "def politeness(completions, **columns):\n    return [1.0] * len(completions)\n"
    )
    assert load_reward(f"{file}:politeness").__name__ == "politeness"


def test_a_constant_reward_is_told_from_one_that_ranks_and_from_equal_texts():
    assert constant("r", [1.0, 1.0, 1.0], ["a", "b", "b"]) == (
        "The reward r gives 1 to all 3 responses, of which 2 are different: it ranks none of them "
        "above another. Check the reward."
    )
    assert constant("r", [1.0, 2.0], ["a", "b"]) is None
    assert constant("r", [1.0, 1.0], ["a", "a"]) is None
    assert constant("r", [float("nan")] * 2, ["a", "b"]) is None
    assert constant("r", [], []) is None
