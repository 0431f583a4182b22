"""Constant rewards are said with their likely cause, in numbers without nan."""

import re
import warnings

import pytest

from infalign import CalibrationStore
from infalign.calibration import choose
from infalign.calibration.constant import constant_rewards

CASES = {
    "none": ([[0, 1], [1, 2]], None),
    "one sample each": ([[0], [1]], None),
    "all": ([[1, 1, 1], [1, 1]], "constant on each of 2 prompts, such as 1 on the first: no policy "
            "can be trained on it. It gives every response the same reward"),
    "by prompt": ([[1, 1], [2, 2], [3, 3]], "constant on each of 3 .* It differs between prompts"),
    "failed": ([[0, 0], [0, 1], [5]], "constant on 1 of 2 prompts, such as 0 on 'p0': nothing can "
               "be learned from these. They have the lowest reward of all: .* too hard"),
    "passed": ([[0, 1], [1, 1], [1, 1]], "2 of 3 prompts, such as 1 .* the highest reward"),
    "pass or fail": ([[0, 1], [1, 1], [0, 0]], "the lowest or the highest .*`calibration.samples`"),
    "default": ([[0, 1], [0.5, 0.5], [2, 3]], "such as 0.5 on 'p1': .* It differs between prompts"),
}  # fmt: skip


def store(rewards):
    return CalibrationStore.from_rewards([f"p{i}" for i in range(len(rewards))], rewards)


@pytest.mark.parametrize("case", CASES)
def test_prompts_on_which_a_reward_is_constant_are_said_with_the_likely_cause(case):
    rewards, words = CASES[case]
    found = constant_rewards(store(rewards), lambda ids: [["a", "b"] for _ in ids])
    if words is None:
        assert found is None
    else:
        assert re.match(f"The reward r is .*{words}", found.words("r")), found.words("r")


def test_texts_that_are_all_the_same_are_the_cause():
    asked = []

    def texts(ids):
        asked.extend(ids)
        return [["same", "same"] for _ in ids]

    found = constant_rewards(store([[0, 1], *[[1, 1]] * 100]), texts)
    assert found.count == 100 and "one and the same text: raise `sampling.temp" in found.cause
    assert asked == [f"p{i}" for i in range(1, 65)]


@pytest.mark.parametrize("case", CASES)
def test_the_choice_of_a_calibrator_says_no_nan_and_warns_of_nothing(case):
    rewards, _ = CASES[case]
    width = max(map(len, rewards))
    filled = [[*map(float, row), *[float("nan")] * (width - len(row))] for row in rewards]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reason = choose(filled).reason
    assert "nan" not in reason and "inf" not in reason
    constant = case in ("all", "by prompt")
    assert ("all rewards of a prompt are equal" in reason) == constant
