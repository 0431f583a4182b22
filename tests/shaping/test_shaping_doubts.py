"""Warnings about batches from which nothing can be learned: once, with the cause and the remedy."""

import logging
import pickle

import numpy as np
import pytest

from infalign import BestOfN, CalibrationStore, GroupShapedReward, Identity, ShapedReward
from infalign.shaping.doubts import PATIENCE

K = 8
STORE = CalibrationStore.from_rewards(["a", "b"], np.arange(2.0 * K).reshape(2, K))


class Given:
    """A reward that returns what it was made with."""

    __name__ = "given"

    def __init__(self, rewards):
        self.rewards = rewards

    def __call__(self, prompts, completions, **columns):
        return list(self.rewards)


def warnings_of(caplog, rewards, *, times=1, procedure=None, make=ShapedReward, ids="aabb"):
    caplog.clear()
    reward = Given(rewards)
    if make is ShapedReward:
        shaped = ShapedReward(reward, STORE, Identity(), procedure=procedure)
    else:
        shaped = make(reward, STORE, procedure)
    with caplog.at_level(logging.WARNING, "infalign"):
        for _ in range(times):
            shaped(list(ids), ["x"] * len(ids), prompt_id=list(ids))
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("rewards", "side"), [([90, 91, 92, 95], "above"), ([-5, -6, -9, -7], "below")]
)
@pytest.mark.parametrize("make", [ShapedReward, GroupShapedReward])
def test_rewards_beyond_all_of_the_reference_are_said_once(caplog, rewards, side, make):
    procedure = None if make is ShapedReward else BestOfN(1)
    (message,) = warnings_of(caplog, rewards, times=3, make=make, procedure=procedure)
    assert f"All 4 rewards of a batch, {min(rewards)} to {max(rewards)}, lie {side} all" in message
    assert "those of the first are 0 to 7" in message and "calibrate again" in message


@pytest.mark.parametrize(
    "rewards",
    [
        [90, 91, 92, 14],  # one is inside
        [-5, 3, 90, 95],
        [-5, 95, 90, -5],  # outside, on both sides
    ],
)
def test_other_batches_are_not_doubted(caplog, rewards):
    assert warnings_of(caplog, rewards, times=2 * PATIENCE) == []


def test_too_few_responses_to_judge(caplog):
    assert warnings_of(caplog, [90, 95], ids="aa") == []


@pytest.mark.parametrize(("times", "expected"), [(PATIENCE - 1, 0), (PATIENCE, 1), (9, 1)])
def test_equal_rewards_of_every_prompt_are_said_after_some_batches(caplog, times, expected):
    messages = warnings_of(caplog, [3, 3, 12, 12], times=times)
    assert len(messages) == expected
    assert all("advantages are 0" in m and "3 to 12" in m for m in messages)


@pytest.mark.parametrize(("n", "expected"), [(8, 0), (9, 1)])
def test_fewer_samples_than_the_procedure_draws(caplog, n, expected):
    messages = warnings_of(caplog, [3, 4, 12, 13], times=2, procedure=BestOfN(n))
    assert len(messages) == expected
    assert all("K = 8" in m and "best-of-n:9" in m and "36 or more" in m for m in messages)


def test_a_reward_that_has_warned_is_picklable_and_stays_silent(caplog):
    shaped = ShapedReward(Given([90, 91, 92, 95]), STORE, Identity())
    arguments = (list("aabb"), ["x"] * 4)
    with caplog.at_level(logging.WARNING, "infalign"):
        shaped(*arguments, prompt_id=list("aabb"))
        pickle.loads(pickle.dumps(shaped))(*arguments, prompt_id=list("aabb"))
    assert len(caplog.records) == 1
