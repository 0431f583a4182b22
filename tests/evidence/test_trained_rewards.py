"""What is measured of a reward, and what is written of its scores."""

import json

import numpy as np
import pytest


def test_accuracy_is_averaged_within_a_prompt_first():
    from preferences import Pair
    from reward_table import correct, estimate

    pairs = [Pair((name,), "yes", "no") for name in ("b", "a", "b", "b")]
    scores = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 1.0], [0.0, 1.0]])
    assert correct(scores, pairs).tolist() == [0.0, pytest.approx((1 + 0.5 + 0) / 3)]
    value, low, high = estimate(scores, pairs)
    assert value == pytest.approx(0.25) and 0 <= low < value < high <= 1


def test_older_turns_are_left_out_where_a_conversation_is_long():
    from preferences import Pair
    from rewards import LONGEST, messages

    class Words:
        def apply_chat_template(self, chat):
            return {"input_ids": [w for m in chat for w in m["content"].split()]}

    long = "word " * (LONGEST - 10)
    pair = Pair((long, "answer", "last question"), "a reply", "another")
    assert [m["role"] for m in messages(pair, "a reply", Words())] == [
        *("user", "assistant", "user", "assistant")
    ]
    chat = messages(pair, "a reply " * 6, Words())
    assert [m["content"] for m in chat] == ["last question", "a reply " * 6]
    alone = Pair((long * 2,), "a reply", "another")
    assert len(messages(alone, "a reply", Words())) == 2


def test_the_template_of_minilm_writes_its_own_special_tokens():
    from jinja2 import Template
    from rewards import TRUNKS

    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    text = Template(TRUNKS["minilm"].template).render(messages=chat)
    assert text == "[CLS]Hi[SEP]Hello[SEP]"


def test_the_two_families_learn_from_different_halves():
    from rewards import TRUNKS

    assert {trunk.half for trunk in TRUNKS.values()} == {"a", "b"}


@pytest.mark.parametrize(
    ("name", "tasks"),
    [
        ("helpful-minilm", ("helpful", "harmless")),
        ("tldr-smollm2", ("tldr",)),
        ("length", ("helpful", "harmless", "tldr")),
    ],
)
def test_a_reward_scores_prompts_of_its_own_data(name, tasks):
    from scores import tasks_of

    assert tasks_of(name) == tasks


def test_scores_are_written_and_read_as_worlds(tmp_path):
    from exact_worlds import scored
    from scores import as_text

    rows = {key: {"id": key, "rewards": {"length": [1.0, 2.5]}} for key in ("b", "a")}
    path = tmp_path / "samples.json"
    path.write_text(as_text(rows))
    assert [row["id"] for row in json.loads(path.read_text())["prompts"]] == ["a", "b"]
    (world,) = (load(tmp_path) for load in scored(path).values())
    assert world.name == "SmolLM2, length" and world.rewards.tolist() == [[1, 2.5], [1, 2.5]]
