"""Reward functions as people have them: what they are called with, and what they may return."""

import logging

import numpy as np
import pytest

from infalign import CalibrationStore, DataError, Identity, ShapedReward
from infalign.models.inspection import inspect_judge, inspect_reward
from infalign.models.rewards import load_reward
from infalign.prompts import Prompt, require_scorable, score_responses
from infalign.shaping import reward_call

SOURCE = """
import numpy as np, torch

def right(texts, answers):
    return [float(text == answer) for text, answer in zip(texts, answers)]

def strict(completions, answer): return right(completions, answer)
def everything(prompts, completions, **kw): return right(completions, kw["answer"])
def by_name(*, answer, completions): return right(completions, answer)
def with_default(completions, answer, tests=None, other=7):
    assert tests is None and other == 7
    return right(completions, answer)
async def waits(completions, answer, **kw): return right(completions, answer)
def arrays(completions, answer, **kw): return np.array(right(completions, answer))
def tensors(completions, answer, **kw): return torch.tensor(right(completions, answer))
def scalars(completions, answer): return [torch.tensor(r) for r in right(completions, answer)]
def logs(completions, answer, log_metric, log_extra=None):
    log_metric("mean", 1.0); log_extra("answer", answer)
    return right(completions, answer)
class Kind:
    def __call__(self, completions, answer): return right(completions, answer)
instance = Kind()
method = Kind().__call__

def reads_messages(prompts, completions, answer):
    assert prompts[0][0]["role"] == "user"
    return right([c[-1]["content"] for c in completions], answer)
def messages_get(completions, answer):
    return right([c[-1].get("content") for c in completions], answer)
def either(completions, answer):
    assert len({type(c) for c in completions}) == 1
    return right([c if isinstance(c, str) else c[0]["content"] for c in completions], answer)

def ends_well(completions, **kw): return [float(c[-1] == ".") for c in completions]
def boxed(completions, **kw):
    import re
    found = re.compile("boxed{(.+)}").search
    return [float(c[-1] == "}" and found(c).group(1) == "4") for c in completions]
def messages_end_well(completions, **kw):
    return [float(c[-1]["content"].endswith(".")) for c in completions]

def lacks(completions, tests, answer): ...
def needs_ids(completions, completion_ids): ...
def none(completions, **kw): return [None, *[1.0] * (len(completions) - 1)]
def judge(prompts, first, second, rubric): ...
def fails(completions, **kw): return kw["tests"]
"""
GOOD = ["strict", "everything", "by_name", "with_default", "waits", "logs", "instance", "method"]
GOOD += ["arrays", "tensors", "scalars"]
TEXTS = [["4", "5"], ["6", "7"]]


def prompts(*plain):
    asked = ({"role": "user", "content": "?"},)
    return [
        Prompt(f"p{i}", asked, {"answer": str(4 + 3 * i)}, form) for i, form in enumerate(plain)
    ]


@pytest.fixture(autouse=True)
def _module(tmp_path, monkeypatch):
    (tmp_path / "people.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    reward_call._warn_of_messages.cache_clear()


def scored(name, asked):
    reward = load_reward(f"python:people:{name}")
    require_scorable(reward, asked)
    return [row.tolist() for row in score_responses(reward, asked, TEXTS)]


@pytest.mark.parametrize("name", GOOD)
def test_a_function_gets_the_columns_it_names_and_may_return_any_row_of_numbers(name):
    assert scored(name, prompts(True, True)) == [[1, 0], [0, 1]]


@pytest.mark.parametrize("name", ["strict", "everything", "by_name", "logs", "waits"])
def test_a_users_own_trainer_calls_a_function_alike(name):
    own = vars(__import__("people"))[name]
    store = CalibrationStore.from_rewards(["p0", "p1"], [[0.0, 0.5]] * 2)
    said, passed = {}, {"completion_ids": [[1]] * 4, "trainer_state": object()}
    values = ShapedReward(own, store, Identity())(
        prompts=["?"] * 4,
        completions=["4", "5", "6", "7"],
        prompt_id=["p0", "p0", "p1", "p1"],
        answer=["4", "4", "7", "7"],
        log_metric=said.__setitem__,
        log_extra=said.__setitem__,
        **passed,
    )
    assert values == [1.0, 0.25, 0.25, 1.0]
    assert ("answer" in said) == (name == "logs")


@pytest.mark.parametrize("name", ["either", "strict"])
def test_texts_and_messages_are_scored_in_calls_of_their_own(name):
    if name == "either":
        assert scored(name, prompts(True, False)) == [[1, 0], [0, 1]]
    else:  # reads texts, and is called with messages for one of the prompts
        with pytest.raises(DataError, match=r"`strict` reads completions as text, but the prompts"):
            scored(name, prompts(True, False))


@pytest.mark.parametrize("name", ["reads_messages", "messages_get"])
@pytest.mark.parametrize("plain", [True, False])
def test_a_function_of_messages_gets_messages_and_is_told_that_trainers_pass_texts(
    name, plain, caplog
):
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert scored(name, prompts(plain, plain)) == [[1, 0], [0, 1]]
    assert [r.getMessage()[:48] for r in caplog.records] == plain * [
        f"The reward {name} cannot read texts, so it gets chat messages"[:48]
    ]


@pytest.mark.parametrize("scored_before", [True, False])
@pytest.mark.parametrize(
    ("name", "texts", "said"),
    [
        (
            "ends_well",
            [["Yes.", "No"], ["", "So."]],
            r"IndexError.* It scores other texts, and fails on completion 2 of prompt 'p1', ''\. "
            r"Let the reward function handle empty responses\.",
        ),
        (
            "ends_well",
            [["", ""], ["", ""]],
            r"fails on completion 0 of prompt 'p0', ''\. Let the reward function handle empty",
        ),
        (
            "boxed",
            [["set {4}", "{}"], ["none", "}"]],
            r"AttributeError.*fails on completion 0 of prompt 'p0', 'set \{4\}'\. "
            r"Let the reward function handle such texts\.",
        ),
    ],
)
@pytest.mark.parametrize("loaded", [True, False])
def test_an_error_on_one_text_is_that_error_whatever_the_function_gives_to_messages(
    name, texts, said, loaded, scored_before, caplog
):
    # All of these score every message 0.
    reward = load_reward(f"python:people:{name}")
    own = reward.function.function
    reward = reward if loaded else lambda **columns: own(**columns)
    asked = prompts(True, True)
    if scored_before:
        good = [["x.", "x"], ["\\boxed{4}", "x."]]
        expected = {"ends_well": [[1, 0], [0, 1]], "boxed": [[0, 0], [1, 0]]}[name]
        assert [row.tolist() for row in score_responses(reward, asked, good)] == expected
    for _ in range(2):
        with pytest.raises(DataError, match=said):
            score_responses(reward, asked, texts)
    assert not caplog.records


def test_a_function_of_messages_is_known_by_any_text_and_stays_one(caplog):
    asked = prompts(True, True)
    reward = load_reward("python:people:messages_end_well")
    for texts, rewards in (
        ([["", ""], ["", ""]], [[0, 0], [0, 0]]),
        ([["", "So."], ["No", ""]], [[0, 1], [0, 0]]),
    ):
        assert [row.tolist() for row in score_responses(reward, asked, texts)] == rewards
    assert len(caplog.records) == 1


def test_a_trial_of_a_reward_logs_nothing_more_and_takes_few_calls():
    calls, logged = [], []

    def reward(completions, log_metric):
        calls.append(len(completions))
        log_metric("mean", 1.0)
        return [float(c[0] == "y") for c in completions]

    store = CalibrationStore.from_rewards(["p"], [[0.0, 0.5]])
    texts = ["yes", *["no"] * 62, ""]
    with pytest.raises(DataError, match=r"fails on completion 63 of prompt 'p', ''"):
        ShapedReward(reward, store, Identity())(
            prompts=["?"] * 64,
            completions=texts,
            prompt_id=["p"] * 64,
            log_metric=lambda *metric: logged.append(metric),
        )
    assert calls == [64, 64, 32, 16, 8, 4, 2, 1, 1]
    assert logged == [("mean", 1.0)]


def test_an_error_of_another_kind_is_the_first_one():
    with pytest.raises(DataError, match=r"`fails` .* failed: KeyError: 'tests' \(people.py"):
        scored("fails", prompts(True, True))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "lacks",
            r"`lacks`.* needs `tests`, which no column .* their columns are `answer`\.",
        ),
        ("needs_ids", r"reward `needs_ids`.* needs `completion_ids`; .* exists while TRL trains"),
    ],
)
def test_a_parameter_that_nothing_provides_is_named_before_anything_is_sampled(name, words):
    for check in (
        lambda: require_scorable(load_reward(f"python:people:{name}"), prompts(True)),
        lambda: require_scorable(vars(__import__("people"))[name], prompts(True)),
        lambda: inspect_reward(f"python:people:{name}", columns=["answer"]),
        lambda: inspect_judge(f"reward:python:people:{name}", columns=["answer"]),
    ):
        with pytest.raises(DataError, match=words):
            check()


def test_a_judge_that_lacks_a_column_is_named():
    with pytest.raises(
        DataError, match=r"The judge `judge` .* needs `rubric`.*their columns are `answer`"
    ):
        inspect_judge("python:people:judge", columns=["answer"])
    inspect_judge("python:people:judge", columns=["rubric"])


def test_none_is_refused_with_its_meaning():
    with pytest.raises(DataError, match=r"got None for completion 0 .*'not applicable' in TRL"):
        scored("none", prompts(True, True))


def test_columns_of_no_prompt_are_none_for_the_others():
    seen = []

    def reward(completions, answer, **columns):
        seen.append((answer, columns))
        return np.zeros(len(completions))

    asked = [*prompts(True), Prompt("x", ({"role": "user", "content": "?"},), {"b": 1}, True)]
    score_responses(reward, asked, TEXTS)
    ((answer, columns),) = seen
    assert answer == ["4", "4", None, None] and columns["b"] == [None, None, 1, 1]
