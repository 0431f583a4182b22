"""Answers of models that think in their text, wherever the model runs."""

import numpy as np
import pytest

from infalign import BestOfN, CalibrationStore, ConfigError
from infalign._thinking import TAGS, answer_after_thinking
from infalign.config import parse_config
from infalign.decoding import decode
from infalign.errors import DataError
from infalign.frameworks.opened import open_scorer
from infalign.models.after_thinking import AfterThinking, unconditioned
from infalign.models.hf import LanguageModel
from infalign.models.interfaces import Response
from infalign.models.samplers import load_sampler

ASKED = [[{"role": "user", "content": f"Question {i}?"}] for i in range(3)]


@pytest.mark.parametrize(("begin", "end"), TAGS)
@pytest.mark.parametrize("answer", ["B", "  code\n", "", "two\n\nlines\n"])
def test_the_answer_is_the_part_after_the_thought(begin, end, answer):
    for complete in (True, False):
        for text in (
            f"{begin}Hm.{end}\n\n{answer}",
            f" {begin}\n{end}{answer}",
            f"A? No.{end}\n \n{answer}",
            f"{begin}a{end}{begin}b{end}\n{answer}",
        ):
            assert answer_after_thinking(text, complete=complete) == answer
        for text in (f"{begin}Hm. B", f"{begin}a{end}\n{begin}b"):
            assert answer_after_thinking(text, complete=complete) is None
    assert answer_after_thinking("B", complete=True) == "B"
    assert answer_after_thinking("I think", complete=False) is None


class Thinks:
    """Draws a thought and, except for some seeds and keys, an answer after it."""

    def __init__(self, cut):
        self.cut, self.calls = cut, []

    def sample(self, conversations, n, *, seed, keys=None):
        self.calls.append((seed, list(keys)))
        return [[self.one(f"{seed} {key} {k}") for k in range(n)] for key in keys]

    def one(self, name):
        chance = np.random.default_rng(list(name.encode())).random()
        if chance < self.cut:
            return Response("<think>I would", tuple(range(8)), -3.0)
        return Response(f"<think>Hm.</think>\n\n {name} ", tuple(range(5)), -2.0)


def made(cut, **options):
    given = {"source": "M", "max_new_tokens": 8, "strip": False, "ask_again": 0, **options}
    return AfterThinking(Thinks(cut), **given)


def test_tokens_and_log_probability_remain_those_of_the_whole_response():
    rows = made(0.0).sample(ASKED, 2, seed=1, keys=["a", "b", "c"])
    assert rows[1][1] == Response(" 1 b 1 ", (0, 1, 2, 3, 4), -2.0)
    assert made(0.0, strip=True).sample(ASKED, 1, seed=1)[2][0].text == "1 2 0"


def test_thoughts_that_were_cut_off_are_counted_and_drawn_again_with_other_seeds(caplog):
    with pytest.raises(DataError, match=r"^M gave no answer in \d of 12 responses: 'length'"):
        made(0.4).sample(ASKED, 4, seed=1)
    with pytest.raises(DataError, match=r"in 12 of 12 responses, after 2 more requests for each"):
        made(1.0, ask_again=2).sample(ASKED, 4, seed=1)
    again = made(0.4, ask_again=40)
    rows = again.sample(ASKED, 4, seed=1)
    assert "under the condition that it answers" in caplog.text
    first = Thinks(0.4).sample(ASKED, 4, seed=1, keys=["0", "1", "2"])
    for old, new in zip(first, rows, strict=True):
        for o, r in zip(old, new, strict=True):
            assert r.text and (len(o.tokens) == 8 or r.text in o.text)
    seeds = [seed for seed, _ in again.sampler.calls]
    assert len(set(seeds)) == len(seeds) > 1
    keys = [key for _, keys in again.sampler.calls[1:2] for key in keys]
    assert len(set(keys)) == len(keys)


def test_a_local_model_is_wrapped_and_its_kl_is_measured_unless_it_was_asked_again():
    options = {"answer": "after-thinking", "max_new_tokens": 3}
    plain = load_sampler("bundled:language-model", **options)
    assert isinstance(plain, AfterThinking) and isinstance(unconditioned(plain), LanguageModel)
    again = load_sampler("bundled:language-model", ask_again=1, **options)
    assert unconditioned(again) is again
    with pytest.raises(DataError, match=r"The model 'bundled:language-model' gave no answer in"):
        plain.sample(ASKED[:1], 2, seed=0)


@pytest.mark.parametrize("made_with", [{}, {"sampling": {"answer": "whole"}}, {"sampling": {}}])
def test_a_store_of_answers_refuses_whole_responses_and_the_reverse(made_with):
    whole = CalibrationStore.from_rewards(["a"], [[1.0, 2.0]], made_with)
    after = {"sampling": {"strip": False, "answer": "after-thinking"}}
    answers = CalibrationStore.from_rewards(["a"], [[1.0, 2.0]], after)
    whole.require_answer("whole")
    answers.require_answer("after-thinking")
    with pytest.raises(DataError, match=r"`sampling.answer` whole, but responses are scored with"):
        whole.require_answer("after-thinking")
    source = {"store": answers, "transform": "identity", "reward": lambda **columns: [1.0]}
    with pytest.raises(DataError, match=r"`sampling.answer` after-thinking, but responses are"):
        open_scorer(**source)
    with pytest.raises(DataError, match=r"`sampling.answer` whole, but responses are scored with"):
        decode(
            BestOfN(2),
            made(0.0),
            lambda **columns: [1.0] * 2,
            ASKED[:1],
            seed=0,
            prompt_ids=["a"],
            calibration=whole,
        )


def test_a_run_does_not_train_on_parts_of_responses():
    config = {
        "model": "bundled:language-model",
        "reward": "bundled:helpful",
        "prompts": {"file": "bundled:helpful"},
        "kl": 1.0,
        "sampling": {"answer": "after-thinking"},
    }
    with pytest.raises(ConfigError, match=r"`sampling.answer` is after-thinking, but training"):
        parse_config(config)
    parse_config({**config, "model": "http://127.0.0.1:1/v1#m"})
