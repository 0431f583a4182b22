"""The reward function for OpenRLHF, called as OpenRLHF does, without OpenRLHF."""

from concurrent.futures import ThreadPoolExecutor

import framework_run as given
import numpy as np
import pytest
from framework_run import REPLIES

import infalign as ia
from infalign.frameworks import openrlhf
from infalign.frameworks.callback import TrainingStopped


def test_openrlhf_calls_from_threads_and_they_share_calls(folder, text, calls):
    reward_func = openrlhf.reward_function(run=str(folder), window=60, batch=16)
    labels = {"a": "a", "b": '{"prompt_id": "b"}', "c": ""}  # the last one by its text

    def one(reply):
        prompt = text.prompt(given.messages(reply[0]))
        answer = reward_func([f"{prompt}{reply[1]}<|end|>"], [prompt], [labels[reply[0]]])
        assert list(answer) == ["rewards", "scores", "extra_logs"]
        assert answer["rewards"].shape == answer["scores"].shape == (1,)
        logs = {name: value.item() for name, value in answer["extra_logs"].items()}
        assert logs["quantile"] == answer["scores"].item()
        return {"score": answer["rewards"].item(), **logs}

    replies = REPLIES * 4
    with ThreadPoolExecutor(16) as pool:
        scores = list(pool.map(one, replies))
    for own, reply in zip(scores, replies, strict=True):
        assert own == pytest.approx(given.expected(*reply), rel=1e-6)  # single precision
    assert sorted(calls) == [4, 12]  # of one form each


def test_openrlhf_is_stopped_by_what_its_except_does_not_catch(folder, text):
    reward_func = openrlhf.reward_function(run=str(folder))
    prompt = text.prompt(given.messages("a"))
    with pytest.raises(TrainingStopped, match="prompt_id 'nobody' is not one of the 5"):
        reward_func([prompt + "red"], [prompt], ["nobody"])
    with pytest.raises(TrainingStopped, match=r"does not contain its prompt.*truncated to"):
        reward_func([prompt[9:] + "red"], [prompt], ["a"])
    with pytest.raises(TrainingStopped, match=r"DataError: .* is not a designed run"):
        openrlhf.reward_function(run=str(folder / "calibration"))
    with pytest.raises(TrainingStopped, match=r"Name the policy: reward_function\(model="):
        openrlhf.reward_function(server="http://127.0.0.1:9")


def test_responses_come_out_of_queries_without_special_tokens(text):
    prompt = text.prompt(given.messages("a"))
    for reply in ("red", " red", "red \n", "", "\n"):
        for query in (reply, f"{reply}<|end|>", f"{reply}<|end|><|pad|>", f"{reply}<|end|>more"):
            assert text.response(prompt + query, prompt) == reply
            assert text.response(f"<|pad|><|pad|>{prompt}{query}", prompt) == reply
    assert text.response(f"{prompt}r<|user|>e<|pad|>d<|end|>", prompt) == "red"
    ids = text.tokenizer(prompt + "red<|end|>", add_special_tokens=False)["input_ids"]
    assert text.response(text.tokenizer.decode(ids), prompt) == "red"


@pytest.mark.parametrize("kl", [0.01, 0.5])
@pytest.mark.parametrize("spec", ["best-of-n:2", "best-of-n:64", "worst-of-n:32"])
def test_the_clip_range_clips_no_reward_minus_its_baseline(spec, kl):
    transform = ia.design(ia.parse_procedure(spec), kl=kl).transform
    span = openrlhf.clip_range(transform, 64)
    assert span >= 10 and span == int(span)
    shaped = transform(np.linspace(0, 1, 1001))
    # Of a pair the baseline is the other one's reward: no difference is larger.
    assert shaped.max() - shaped.min() <= span
    if span > 10:
        assert shaped.max() - shaped.min() > span - 1


def test_a_clip_range_above_openrlhfs_default_is_a_warning(caplog, folder):
    steep = ia.design(ia.WorstOfN(32), kl=0.5).transform
    pieces = {"reward": given.length, "prompts": str(folder / "prompts.jsonl")}
    openrlhf.reward_function(
        store=given.reference(), transform=steep, model=given.model_folder(), **pieces
    )
    assert "--reward.clip_range -32 32" in caplog.text
