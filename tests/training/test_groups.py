"""A step with shared prompts is TRL's own step, with fewer tokens processed."""

import warnings

import pytest
import torch
from datasets import Dataset
from enumerable import EnumerableModel
from peft import get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from infalign.training.groups import GroupGRPO, GroupRLOO
from infalign.training.weights import lora

pytestmark = pytest.mark.pins

PROMPTS, GROUP = ["abcab", "c", "ba", "bcabc"], 4


def reward(prompts, completions, **columns):
    return [float(c.count("b")) for c in completions]


class Caught(TrainerCallback):
    """The gradient of the step."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradient = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}


def step(folder, trainer_type, family="llama", rank=0, **options):
    """What one step of size 0 scores, logs and computes, and the number of tokens it processes."""
    made = EnumerableModel.make(folder / family, seed=1, family=family)
    tokenizer = AutoTokenizer.from_pretrained(made.path)
    tokenizer.pad_token = tokenizer.eos_token
    kind = RLOOConfig if issubclass(trainer_type, RLOOTrainer) else GRPOConfig
    caught, read, seen = Caught(), [], {}
    options = {"gradient_checkpointing": False, "temperature": 0.8, "beta": 0.7} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TRL's own, of transformers' old names
        torch.manual_seed(0)
        trainer = trainer_type(
            model=get_peft_model(AutoModelForCausalLM.from_pretrained(made.path), lora(rank))
            if rank
            else str(made.path),
            reward_funcs=reward,
            args=kind(
                str(folder / "out"),
                max_steps=1,
                per_device_train_batch_size=GROUP * len(PROMPTS),
                num_generations=GROUP,
                max_completion_length=3,
                learning_rate=0.0,
                max_grad_norm=0.0,
                save_strategy="no",
                report_to="none",
                use_cpu=True,
                bf16=False,
                disable_tqdm=True,
                **options,
            ),
            train_dataset=Dataset.from_list([{"prompt": word} for word in PROMPTS]),
            processing_class=tokenizer,
            callbacks=[caught],
        )
        score = trainer._generate_and_score_completions

        def watched(inputs):
            output = score(inputs)
            seen.update(output)
            return output

        trainer._generate_and_score_completions = watched
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
        assert torch.equal(gradient[name], value), name
