"""The shaped reward by hand, and what it says when it cannot shape."""

import pickle

import numpy as np
import pytest

from infalign import CalibrationStore, DataError, Exponential, Identity, Log, Probit, ShapedReward
from infalign.shaping import AsCalibrated, MonitoredReward

STORE = CalibrationStore.from_rewards(["p", "q"], [[1, 2, 3, 4], [10, 20, 30, 40]])
PROMPTS, COMPLETIONS, IDS = ["P", "P", "Q"], ["ab", "abcdefghi", "abc"], ["p", "p", "q"]
# Lengths 2, 9, 3. Quantiles: (1 + 1/2)/4 = .375; above all = 1; below all = 0.


def length(prompts, completions, **columns):
    return [float(len(c)) for c in completions]


class Answer:
    """A reward function that returns what it is given."""

    def __init__(self, value):
        self.value = value

    def __call__(self, prompts, completions, **columns):
        return self.value


def shape(reward, transform=None, **options):
    shaped = ShapedReward(reward, STORE, transform or Identity(), **options)
    return shaped(prompts=PROMPTS, completions=COMPLETIONS, prompt_id=IDS)


# add-half: (rank + 1/2) / 5, ranks 1 to 2, 4 and 0; ∫ log u = u log u - u.
SMOOTHED_LOGS = [
    (0.5 * np.log(0.5) - 0.5 - 0.3 * np.log(0.3) + 0.3) / 0.2,
    np.log(0.9),
    np.log(0.1),
]


def test_shaped_rewards_by_hand():
    assert shape(length) == [0.375, 1, 0]
    # The first ties with one reward, from quantile .25 to .5: the mean of (4^u - 1) / 3 there is
    # ((4^.5 - 4^.25) / log 4 / .25 - 1) / 3.
    tied = ((2 - 4**0.25) / np.log(4) / 0.25 - 1) / 3
    assert shape(length, Exponential(np.log(4))) == pytest.approx([tied, 1, 0])
    assert shape(length, Log(), smoothing="add-half") == pytest.approx(SMOOTHED_LOGS)


STRIPPED = {"temperature": 1.0, "strip": True}
FORMER = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 8, "batch_size": 4}  # of version 0.1


@pytest.mark.parametrize("sampling", [STRIPPED, FORMER])
@pytest.mark.parametrize("form", [str, lambda text: [{"role": "assistant", "content": text}]])
def test_a_store_of_stripped_responses_refuses_white_space_at_the_ends(sampling, form):
    store = CalibrationStore.from_rewards(["a"], [[1.0, 2.0]], {"sampling": sampling})
    asked = {"prompts": ["", ""], "prompt_id": ["a", "a"]}
    reward = ShapedReward(Answer([1.5, 3.0]), store, Identity())
    assert reward(completions=[form("x"), form("a\n b")], **asked) == [0.5, 1.0]
    with pytest.raises(DataError, match=r"'y\\n' at completion 1 \(1 of 2 have some\)"):
        reward(completions=[form("x"), form("y\n")], **asked)
    stripping = AsCalibrated(reward, {}, strip=True)
    assert stripping(completions=[form("x"), form("y\n")], **asked) == [0.5, 1.0]
    assert stripping.__name__ == "shaped_Answer"


@pytest.mark.parametrize(
    "completion",
    [
        [{"role": "assistant", "content": "x", "tool_calls": [{"name": "f"}]}],
        [{"role": "assistant", "content": "x", "reasoning_content": "Hm."}],
        [{"role": "assistant", "content": "x"}, {"role": "tool", "content": "y"}],
        [{"role": "assistant", "content": None}],
    ],
)
def test_a_completion_that_is_more_than_a_text_is_not_what_was_calibrated(completion):
    asked = {"prompts": [""], "completions": [completion], "prompt_id": ["a"]}
    with pytest.raises(DataError, match="A completion must be one message with a text; got"):
        AsCalibrated(ShapedReward(length, STORE, Identity()), {}, strip=False)(**asked)


def test_the_result_is_a_list_of_floats():
    rewards = shape(length)
    assert type(rewards) is list and {type(r) for r in rewards} == {float}


@pytest.mark.parametrize("values", [(2, 9, 3), np.array([2, 9, 3]), np.float32([2, 9, 3])])
def test_a_reward_may_return_any_row_of_numbers(values):
    assert shape(Answer(values)) == [0.375, 1, 0]


def test_a_shaped_reward_survives_pickling():
    shaped = pickle.loads(pickle.dumps(ShapedReward(length, STORE, Exponential(3.0))))
    again = shaped(prompts=PROMPTS, completions=COMPLETIONS, prompt_id=IDS)
    assert again == shape(length, Exponential(3.0))
    assert shaped.__name__ == "shaped_length"


def test_a_reward_without_a_name_goes_by_its_class():
    assert ShapedReward(Answer([]), STORE, Identity()).__name__ == "shaped_Answer"


def test_the_reward_sees_every_column_of_the_data_set():
    seen = {}

    def reward(prompts, completions, **columns):
        seen.update(columns, prompts=prompts, completions=completions)
        return [1.0] * len(completions)

    shaped = ShapedReward(reward, STORE, Identity())
    shaped(prompts=["P"], completions=["x"], completion_ids=[[5]], prompt_id=["p"], answer=["42"])
    assert seen == {
        "prompts": ["P"],
        "completions": ["x"],
        "completion_ids": [[5]],
        "prompt_id": ["p"],
        "answer": ["42"],
    }


@pytest.mark.parametrize(
    ("reward", "returned"),
    [
        (ShapedReward(length, STORE, Identity()), [0.375, 1, 0]),
        (ShapedReward(length, STORE, Log(), smoothing="add-half"), SMOOTHED_LOGS),
        (MonitoredReward(length, STORE), [2, 9, 3]),
    ],
    ids=["bounded", "smoothed", "raw"],
)
def test_what_is_logged_is_the_same_whatever_is_trained_on(reward, returned):
    logged = {}
    rewards = reward(PROMPTS, COMPLETIONS, log_metric=logged.__setitem__, prompt_id=IDS)
    assert rewards == pytest.approx(list(returned))
    # Raw (2 + 9 + 3)/3; mid-ranks (.375 + 1 + 0)/3; two of three outside all reference samples.
    assert logged == pytest.approx(
        {
            "infalign/raw_reward": 14 / 3,
            "infalign/quantile": 1.375 / 3,
            "infalign/saturated": 2 / 3,
        }
    )


def test_another_column_may_name_the_prompts():
    shaped = ShapedReward(length, STORE, Identity(), key="row")
    assert shaped(prompts=["P"], completions=["abc"], row=["p"]) == [0.625]
    with pytest.raises(DataError) as caught:
        shaped(prompts=["P"], completions=["abc"], prompt_id=["p"], answer=["42"])
    assert str(caught.value) == (
        "The data set has no column `row`, which names each prompt of the calibration store; "
        "its columns are ['answer', 'prompt_id']. Add it, or pass `key=`."
    )


def test_unknown_prompts_are_named():
    shaped = ShapedReward(length, STORE, Identity())
    with pytest.raises(DataError, match=r"prompt_id 'x' is not in the .* prompts you train on"):
        shaped(prompts=["P"], completions=["abc"], prompt_id=["x"])


@pytest.mark.parametrize("transform", [Log(), Probit()], ids=repr)
def test_an_unbounded_transform_needs_smoothing(transform):
    with pytest.raises(ValueError) as caught:
        ShapedReward(length, STORE, transform)
    assert str(caught.value) == (
        "`transform` must be finite at 0 and 1, where plain mid-ranks can fall; got "
        f'{transform.spec}. Use smoothing="add-half", or a bounded transform.'
    )


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_missing_reward_is_refused_with_its_completion(value):
    with pytest.raises(DataError) as caught:
        shape(Answer([1.0, value, 2.0]))
    why = " None means 'not applicable' in TRL; here every response needs a rank."
    assert str(caught.value) == (
        f"The reward function `Answer` must return finite numbers; got {value!r} for completion 1 "
        f"of prompt 'p' (1 of 3 are not): 'abcdefghi'.{why * (value is None)} Repair the reward, "
        "or filter such completions."
    )


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ([1.0, 2.0], "got 2 for 3 completions"),
        ([], "got 0 for 3 completions"),
        (1.0, "got a float"),
        (None, "got a NoneType"),
        ("abc", "got a str"),
    ],
)
def test_one_number_per_completion_is_needed(value, got):
    with pytest.raises(DataError) as caught:
        shape(Answer(value))
    assert str(caught.value) == (
        f"The reward function `Answer` must return one number per completion; {got}."
    ).replace("return one", "return a list of one" if "got a " in got else "return one")


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (["good", 1.0, 2.0], "'good'"),
        ([1.0, "good", 2.0], "'good'"),
        (["1", "2", "3"], "'1'"),  # a text is not repaired into a number
        ([[1.0], 2.0, 3.0], r"\[1.0\]"),
        ([[1.0], [2.0], [3.0]], r"\[1.0\]"),
    ],
)
def test_a_reward_that_is_no_number_is_refused(value, got):
    with pytest.raises(DataError, match=f"`Answer` must return finite numbers; got {got}"):
        shape(Answer(value))


def test_a_dictionary_is_no_list_of_rewards():
    with pytest.raises(DataError, match="The reward function `Answer` must return"):
        shape(Answer({"a": 1.0, "b": 2.0, "c": 3.0}))
