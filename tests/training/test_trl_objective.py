"""What the installed TRL does: the objective that the package promises is RLOO's own."""

import numpy as np
import pytest
from enumerable import EnumerableModel
from single_step import single_step
from trl import RLOOConfig, RLOOTrainer

from infalign.training.weights import saved_state

pytestmark = pytest.mark.pins

PROMPTS, GROUP, BETA, TEMPERATURE = ["ab", "c", "ba", "bc"], 4, 0.7, 0.8


@pytest.fixture(scope="module")
def step(tmp_path_factory):
    """A step of RLOO, away from the reference: both laws, what was drawn, and its advantages."""
    folder = tmp_path_factory.mktemp("trl")
    reference = EnumerableModel.make(folder / "reference", seed=1)
    policy = EnumerableModel.make(folder / "policy", seed=2, scale=0.3, near=reference)
    options = {"beta": BETA, "temperature": TEMPERATURE}
    with single_step(
        RLOOTrainer, RLOOConfig, reference.path, folder, PROMPTS, GROUP, **options
    ) as (trainer, seen):
        trainer.model.load_state_dict(saved_state(policy.path))
        trainer.train()
    rows = zip(seen["completion_ids"], seen["completion_mask"], strict=True)
    texts = ["".join(" abc"[i] for i, on in zip(ids, mask, strict=True) if on and i)
             for ids, mask in rows]  # fmt: skip
    logged = next(row for row in trainer.state.log_history if "kl" in row)
    return reference, policy, seen["prompts"], texts, seen["advantages"].numpy(), seen, logged


def test_rloo_subtracts_the_log_ratio_of_the_sequence_from_the_reward(step):
    # An installed TRL whose KL is not k1 in the reward would train on another objective.
    reference, policy, prompts, texts, advantages, _, _ = step
    laws = {w: [m.law(w, TEMPERATURE) for m in (policy, reference)] for w in PROMPTS}
    k1 = np.array([
        np.log(laws[w][0][t] / laws[w][1][t]) for w, t in zip(prompts, texts, strict=True)
    ])  # fmt: skip
    assert np.abs(k1).max() > 0.2
    rewards = (np.array([t.count("b") for t in texts]) - BETA * k1).reshape(-1, GROUP)
    others = (rewards.sum(1, keepdims=True) - rewards) / (GROUP - 1)
    assert advantages.reshape(-1, GROUP) == pytest.approx(rewards - others, abs=1e-4)


def test_groups_follow_each_other_and_are_whole(step):
    prompts = step[2]
    for start in range(0, len(prompts), GROUP):
        assert len(set(prompts[start : start + GROUP])) == 1


def test_the_logged_kl_is_per_token(step):
    reference, policy, prompts, texts, _, seen, logged = step
    laws = {w: [m.law(w, TEMPERATURE) for m in (policy, reference)] for w in PROMPTS}
    total = sum(np.log(laws[w][0][t] / laws[w][1][t]) for w, t in zip(prompts, texts, strict=True))
    assert logged["kl"] == pytest.approx(total / int(seen["completion_mask"].sum()), abs=1e-4)
