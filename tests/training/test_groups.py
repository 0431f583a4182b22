"""A step with shared prompts is TRL's own step, with fewer tokens processed."""

import pytest
import torch
from enumerable import EnumerableModel
from peft import get_peft_model
from single_step import Caught, single_step
from transformers import AutoModelForCausalLM
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from infalign.training.groups import GroupGRPO, GroupRLOO
from infalign.training.weights import lora

pytestmark = pytest.mark.pins

PROMPTS, GROUP = ["abcab", "c", "ba", "bcabc"], 4


def step(folder, trainer_type, family="llama", rank=0, **options):
    """What one step of size 0 scores, logs and computes, and the number of tokens it processes."""
    made = EnumerableModel.make(folder / family, seed=1, family=family)
    kind = RLOOConfig if issubclass(trainer_type, RLOOTrainer) else GRPOConfig
    caught, read = Caught(), []
    options = {"gradient_checkpointing": False, "beta": 0.7, "callbacks": [caught]} | options
    torch.manual_seed(0)
    if rank:
        base = AutoModelForCausalLM.from_pretrained(made.path)
        options["model"] = lambda: get_peft_model(base, lora(rank))
    with single_step(trainer_type, kind, made.path, folder, PROMPTS, GROUP, **options) as made_step:
        trainer, seen = made_step
        hook = trainer.model.get_input_embeddings().register_forward_hook(
            lambda module, inputs, output: read.append(inputs[0].numel())
        )
        trainer.train()
        hook.remove()
    return seen, caught.gradient, sum(read)


@pytest.mark.parametrize(
    ("ours", "theirs", "family", "rank"),
    [
        (GroupRLOO, RLOOTrainer, "llama", 0),
        (GroupRLOO, RLOOTrainer, "llama", 2),
        (GroupRLOO, RLOOTrainer, "mistral", 0),
        (GroupGRPO, GRPOTrainer, "llama", 0),
    ],
)
def test_scores_and_gradients_are_those_of_trl(tmp_path, ours, theirs, family, rank):
    shared, gradient, few = step(tmp_path, ours, family, rank)
    whole, expected, many = step(tmp_path, theirs, family, rank)
    assert few < 0.75 * many
    for name in ("prompt_ids", "completion_ids", "completion_mask"):
        assert torch.equal(shared[name], whole[name]), name
    for name in {"old_logps", "ref_logps", "ref_per_token_logps", "advantages"} & whole.keys():
        if isinstance(whole[name], torch.Tensor):
            assert torch.allclose(shared[name], whole[name], atol=1e-5), name
    assert gradient.keys() == expected.keys() and any(g.abs().max() > 0 for g in gradient.values())
    for name, value in expected.items():
        assert torch.allclose(gradient[name], value, atol=1e-5), name


@pytest.mark.parametrize(
    ("family", "options"), [("mamba", {}), ("llama", {"gradient_checkpointing": True})]
)
def test_models_without_a_repeatable_cache_take_their_own_way(tmp_path, family, options):
    shared, gradient, tokens = step(tmp_path, GroupRLOO, family, **options)
    whole, expected, same = step(tmp_path, RLOOTrainer, family, **options)
    # To ask a Mamba model whether its cache can be repeated takes two tokens, for each of 2 models.
    assert tokens - same in (0, 2, 4)
    assert torch.equal(shared["completion_ids"], whole["completion_ids"])
    for name, value in expected.items():
        # Rotary angles are rounded otherwise where positions do not count the padding.
        assert torch.allclose(gradient[name], value, atol=1e-5), name


@pytest.mark.parametrize(
    ("trainer_type", "rank"), [(GroupRLOO, 0), (GroupRLOO, 2), (GroupGRPO, 0), (GroupGRPO, 2)]
)
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set:UserWarning")  # PEFT's own
def test_learned_positions_do_not_count_the_padding(tmp_path, trainer_type, rank):
    own, gradient, _ = step(tmp_path, trainer_type, "gpt2", rank, gradient_checkpointing=True)
    shared, expected, _ = step(tmp_path, trainer_type, "gpt2", rank)
    assert torch.equal(own["completion_ids"], shared["completion_ids"])
    for name in expected:
        assert torch.allclose(gradient[name], expected[name], atol=1e-5), name
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "gpt2").eval()
    kept = [own[name].bool() for name in ("prompt_mask", "completion_mask")]
    assert not kept[0].all()  # some prompts are padded
    scored = {"old_logps", "ref_logps", "ref_per_token_logps"} & own.keys()
    assert scored
    for row, (prompt, of_prompt, answer, of_answer) in enumerate(
        zip(own["prompt_ids"], kept[0], own["completion_ids"], kept[1], strict=True)
    ):
        prompt, answer = prompt[of_prompt], answer[of_answer]
        with torch.no_grad():
            logits = model(torch.cat([prompt, answer])[None]).logits[0, len(prompt) - 1 : -1]
        exact = (logits / 0.8).log_softmax(-1).gather(1, answer[:, None])[:, 0]
        for name in scored:
            got = own[name][row]
            got = got if got.ndim == 0 else (got * of_answer).sum()
            assert torch.allclose(got, exact.sum(), atol=1e-4), name
