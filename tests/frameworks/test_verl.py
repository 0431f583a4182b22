"""The reward function and the reward manager for verl, called as verl does, without verl."""

import asyncio
from functools import partial

import framework_run as given
import numpy as np
import pytest
from framework_run import REPLIES, assert_scores, verl_samples

from infalign import CalibrationStore
from infalign.frameworks import verl
from infalign.frameworks.callback import TrainingStopped
from infalign.frameworks.verl_manager import ShapedRewardManager


def test_verl_awaits_a_plain_coroutine_function_whose_samples_share_calls(folder, calls):
    assert asyncio.iscoroutinefunction(verl.compute_score)  # what verl looks for
    replies = REPLIES * 16
    scores = verl_samples(replies, run=str(folder), window=60, batch=64)
    assert_scores(scores, [given.expected(*reply) for reply in replies])
    assert sorted(calls) == [16, 48]  # of one form each
    assert {tuple(f) for f in scores} == {("score", "raw_reward", "quantile")}


@pytest.mark.parametrize(
    ("extra_info", "message"),
    [
        ({"prompt_id": "nobody"}, "DataError: prompt_id 'nobody' is not one of the 5 prompts"),
        ({"index": 3}, r"no `extra_info\['prompt_id'\]`.* it has \['index'\]"),
        (None, r"it has \[\]"),
    ],
)
def test_verl_stops_at_an_unknown_prompt(folder, extra_info, message):
    with pytest.raises(TrainingStopped, match=message):
        asyncio.run(verl.compute_score("", "x", "", extra_info, run=str(folder)))
    assert not issubclass(TrainingStopped, Exception)  # a manager of verl turns those into 0


ASKED = [{"role": "user", "content": "A color?"}]


class Batch:
    """What verl's DataProto is to a reward manager."""

    def __init__(self, batch, non_tensor_batch):
        self.batch, self.non_tensor_batch = batch, non_tensor_batch

    def __getitem__(self, index):
        return self


class Letters:
    """A tokenizer of letters."""

    def decode(self, ids, skip_special_tokens):
        assert skip_special_tokens
        return "".join(chr(i) for i in ids)


def test_the_manager_for_verl_scores_what_the_mask_leaves(folder):
    import torch

    async def score(**columns):
        return await verl.compute_score(**columns, run=str(folder))

    tensors = {
        "prompts": torch.zeros(1, 2, dtype=torch.long),
        "responses": torch.tensor([[ord("r"), ord("e"), ord("d"), 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 0, 0]]),
    }
    item = dict(tensors, responses=tensors["responses"][0])
    item["attention_mask"] = tensors["attention_mask"][0]
    manager = ShapedRewardManager(None, Letters(), score, None, None)
    conversation = np.array(given.messages("a"), dtype=object)
    for columns in ({"extra_info": {"prompt_id": "a"}}, {"raw_prompt": conversation}):
        answer = asyncio.run(manager.run_single(Batch(item, columns)))
        assert_scores([answer["reward_extra_info"]], [given.expected("a", "red")])
        assert answer["reward_score"] == answer["reward_extra_info"]["score"]
    placed = manager.assemble_rm_scores(Batch(tensors, {}), [0.5])
    assert placed.tolist() == [[0, 0, 0.5, 0, 0]]


@pytest.mark.parametrize("known", [{"reward_model": {"ground_truth": "red"}}, {}])
def test_a_reward_gets_the_ground_truth_through_the_manager_as_through_verls_own(known):
    import torch

    def reward(completions, ground_truth, data_source, **columns):
        assert data_source == ["colors"]
        pairs = zip(completions, ground_truth, strict=True)
        return [float(c[0]["content"] == truth) for c, truth in pairs]

    store = CalibrationStore.from_rewards(["a"], [[0.0, 0.0, 1.0]])
    parts = {"store": store, "transform": "identity", "reward": reward}
    sample = {"data_source": "colors", "extra_info": {"prompt_id": "a", "messages": ASKED}}
    tensors = {"responses": torch.tensor([[*map(ord, "red")]]), "attention_mask": torch.ones(1, 3)}
    item = Batch({k: v[0] for k, v in tensors.items()}, sample | known)
    manager = ShapedRewardManager(None, Letters(), partial(verl.compute_score, **parts))
    answer = asyncio.run(manager.run_single(item))
    truth = known.get("reward_model", {}).get("ground_truth")
    own = verl.compute_score("colors", "red", truth, sample["extra_info"], **parts)
    assert answer["reward_extra_info"] == asyncio.run(own)
    assert answer["reward_extra_info"]["raw_reward"] == float(truth == "red")
