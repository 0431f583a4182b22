"""GRPO, made to follow the objective: against exact laws and the gradient worked out by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from enumerable import EnumerableModel
from single_step import LONGEST, Caught, count_b, single_step, tokenizer_of

from infalign.models.loading import tokenize
from infalign.models.logits import collate, response_logits
from infalign.training.kl_control import GRPOSteps, KLController, LogRatioReward
from infalign.training.weights import saved_state

pytestmark = pytest.mark.pins

PROMPTS, GROUP, BETA, TEMPERATURE = ["ab", "c", "ba", "bc"], 4, 0.7, 0.8


@pytest.fixture(scope="module")
def step(tmp_path_factory):
    """One step away from the reference, of size 0."""
    folder = tmp_path_factory.mktemp("grpo")
    reference = EnumerableModel.make(folder / "reference", seed=1)
    policy = EnumerableModel.make(folder / "policy", seed=2, scale=0.3, near=reference)
    tokenizer = tokenizer_of(reference.path)
    divergence = LogRatioReward(reference.model(torch.float32), tokenizer, TEMPERATURE)
    steps, caught = GRPOSteps(divergence), Caught()
    controller = KLController(0.5, BETA, steps)
    options = {"callbacks": [controller, caught], "temperature": TEMPERATURE}
    options |= {"reward_funcs": steps.rewards(count_b)} | steps.options(BETA)
    kinds = steps.trainer_type, steps.arguments_type
    with single_step(*kinds, reference.path, folder, PROMPTS, GROUP, **options) as (trainer, seen):
        steps.trainer = trainer
        trainer.model.load_state_dict(saved_state(policy.path))
        trainer.train()
    tokens = [
        [int(i) for i, on in zip(ids, mask, strict=True) if on]
        for ids, mask in zip(seen["completion_ids"], seen["completion_mask"], strict=True)
    ]
    return SimpleNamespace(
        laws={w: [m.law(w, TEMPERATURE) for m in (policy, reference)] for w in PROMPTS},
        policy=policy,
        tokenizer=tokenizer,
        prompts=seen["prompts"],
        tokens=tokens,
        texts=["".join(" abc"[i] for i in row if i) for row in tokens],
        advantages=seen["advantages"].numpy().reshape(-1, GROUP),
        gradient=caught.gradient,
        log=next(row for row in trainer.state.log_history if "reward" in row),
        controller=controller,
        weights=trainer.reward_weights,
    )


def exact(step):
    """log π/π_ref of what was drawn, from the listed laws."""
    return np.array([
        np.log(step.laws[w][0][t] / step.laws[w][1][t])
        for w, t in zip(step.prompts, step.texts, strict=True)
    ])  # fmt: skip


def test_the_log_ratio_of_the_sequence_is_subtracted_from_the_reward(step):
    k1 = exact(step)
    assert np.abs(k1).max() > 0.2
    rewards = (np.array([t.count("b") for t in step.texts]) - BETA * k1).reshape(-1, GROUP)
    assert step.advantages == pytest.approx(rewards - rewards.mean(1, keepdims=True), abs=1e-4)


@pytest.mark.parametrize(("size", "read"), [(3, [3, 3, 2]), (256, [8])])
def test_no_more_sequences_are_read_at_once_than_in_a_batch_of_the_step(step, size, read):
    model, seen = step.policy.model(torch.float32), []
    model.register_forward_hook(lambda *call: seen.append(len(call[2].logits)))
    divergence = LogRatioReward(step.policy.model(torch.float32), step.tokenizer, TEMPERATURE)
    args = SimpleNamespace(per_device_train_batch_size=size)
    divergence.trainer = SimpleNamespace(model=model, args=args)
    values = divergence(step.prompts[:8], [""] * 8, completion_ids=step.tokens[:8])
    assert seen == read and values == pytest.approx([0.0] * 8, abs=1e-5)


def test_the_gradient_is_that_of_summed_log_probabilities(step):
    # No other KL, no clipping, no division by a sequence's own length.
    model = step.policy.model(torch.float32)
    ids = tokenize(step.tokenizer, step.prompts)["input_ids"]
    ids, mask, in_response = collate(ids, step.tokens, step.tokenizer.pad_token_id)
    length = in_response.shape[1]
    logits = response_logits(model, ids, mask, length, TEMPERATURE).log_softmax(-1)
    logprob = (logits.gather(2, ids[:, -length:, None])[..., 0] * in_response).sum(1)
    advantages = torch.tensor(step.advantages.ravel(), dtype=torch.float32)
    (-(advantages * logprob).mean() / LONGEST).backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(step.gradient[name], parameter.grad, atol=1e-5), name
    assert max(g.abs().max() for g in step.gradient.values()) > 1e-3


def test_the_controller_reads_and_steers_it(step):
    assert step.log["infalign/sequence_kl"] == pytest.approx(exact(step).mean(), abs=1e-4)
    assert step.controller.beta != BETA
    assert float(step.weights[1]) == pytest.approx(-step.controller.beta)
