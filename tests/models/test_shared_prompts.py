"""A prompt read once for all of its responses gives what reading it each time does."""

import numpy as np
import pytest
import torch
from enumerable import EnumerableModel
from peft import PromptTuningConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments

from infalign.models.logits import collate, raw_logits
from infalign.models.shared_prompts import depends_on_length, repeats, shared_logits, sharing
from infalign.training.offline import TaskTrainer, _bundles
from infalign.training.weights import with_adapters

pytestmark = [
    pytest.mark.pins,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # PEFT's
]

PROMPTS = [[1, 2, 3, 1, 2], [3], [2, 2]]
OWNERS = [0, 0, 0, 1, 2, 2]
RESPONSES = [[1, 0], [2, 3, 1], [0], [3, 0], [1, 1, 1], [2, 0]]


@pytest.mark.parametrize(
    ("family", "rank"), [("llama", 0), ("llama", 2), ("gpt2", 0), ("mistral", 0)]
)
def test_logits_and_gradients_are_those_of_whole_sequences(tmp_path, family, rank):
    torch.manual_seed(0)
    model = EnumerableModel.make(tmp_path, seed=3, family=family).model(torch.float32)
    model = with_adapters(model, rank)
    own = sharing(model)
    found = []
    for shared in (True, False):
        if shared:
            ids, kept, logits = shared_logits(own, PROMPTS, RESPONSES, OWNERS, 0)
        else:
            ids, mask, kept = collate([PROMPTS[i] for i in OWNERS], RESPONSES, 0)
            logits = raw_logits(model, ids, mask, kept.shape[1])
            ids = ids[:, -kept.shape[1] :]
        chosen = logits.log_softmax(-1).gather(2, ids[..., None])[..., 0]
        total = (chosen * kept).sum(1)
        model.zero_grad()
        (total * torch.arange(1.0, 7.0)).sum().backward()
        learned = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        gradients = {name: gradient.clone() for name, gradient in learned.items()}
        found.append((total.detach(), gradients))
    (ours, our_gradients), (theirs, their_gradients) = found
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert any(gradient.abs().max() > 0 for gradient in our_gradients.values())
    for name, gradient in our_gradients.items():
        assert torch.allclose(gradient, their_gradients[name], atol=1e-4), name


def test_prompts_of_one_token_have_nothing_to_share(tmp_path):
    model = EnumerableModel.make(tmp_path, seed=3).model(torch.float32)
    _, kept, logits = shared_logits(model, [[3], [1]], RESPONSES[:3], [0, 0, 1], 0)
    ids, mask, _ = collate([[3], [3], [1]], RESPONSES[:3], 0)
    alone = raw_logits(model, ids, mask, kept.shape[1])
    assert torch.allclose(logits[kept == 1], alone[kept == 1], atol=1e-5)


@pytest.mark.parametrize(
    ("rope", "shares"),
    [
        ({"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}, False),
        ({"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}, True),
    ],
)
def test_a_model_that_reads_a_token_by_the_length_of_its_text_shares_nothing(rope, shares):
    config = LlamaConfig(
        vocab_size=9,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=4,
        initializer_range=1.0,
        rope_parameters=rope,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    assert repeats(model) is shares is not depends_on_length(model)
    text = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        longer = model(torch.cat([text, text], 1)).logits[:, :3]
        assert torch.allclose(model(text).logits, longer, atol=1e-5) is shares


def test_adapters_that_put_a_prompt_before_ours_share_nothing(tmp_path):
    model = EnumerableModel.make(tmp_path, seed=3).model(torch.float32)
    virtual = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    assert sharing(get_peft_model(model, virtual)) is None


@pytest.mark.parametrize("rank", [0, 2])
def test_offline_training_processes_a_prompt_once_for_its_responses(tmp_path, rank):
    own = EnumerableModel.make(tmp_path, seed=3)
    trainer = TaskTrainer(
        with_adapters(own.model(torch.float32), rank),
        TrainingArguments(str(tmp_path / "out"), report_to="none", use_cpu=True),
        loss=lambda log_ratio, batch: log_ratio.square().mean(),
        temperature=1.0,
        pad=0,
    )
    read = []
    trainer.model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: read.append(inputs[0].numel())
    )
    rows = {"prompts": PROMPTS[:1], "owners": [0] * 6, "responses": RESPONSES}
    batch = {"prompt_ids": ["p"], "reference_logprob": torch.zeros(6), **rows}
    shared = trainer.compute_loss(trainer.model, batch)
    tokens, trainer.language = sum(read), None
    read.clear()
    assert torch.allclose(shared, trainer.compute_loss(trainer.model, batch), atol=1e-5)
    assert (tokens, sum(read)) == (4 + 6 * 3, 6 * (5 + 3))


def test_a_model_that_remembers_otherwise_is_known(tmp_path):
    assert not repeats(EnumerableModel.make(tmp_path, seed=3, family="mamba").model(torch.float32))


@pytest.mark.parametrize("width", [1, 2, 16])
def test_every_row_is_in_one_bundle_of_its_prompt(width):
    owners = np.random.default_rng(0).integers(7, size=100)
    bundles = _bundles(owners, width, seed=0)
    assert sorted(row for _, rows in bundles for row in rows) == list(range(100))
    for owner, rows in bundles:
        assert (owners[rows] == owner).all() and len(rows) <= max(1, 8 // width)
    # As few as there can be.
    size = max(1, 8 // width)
    assert len(bundles) == sum(-(-count // size) for count in np.bincount(owners))
