"""Processing of a prompt once for all of its responses."""

from collections.abc import Sequence

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from .logits import collate, positions

__all__ = [
    "depends_on_length",
    "prompt_cache",
    "repeats",
    "shared_inputs",
    "shared_logits",
    "sharing",
]

REPEATABLE = {DynamicLayer, DynamicSlidingWindowLayer}
"""Cache layers that hold only keys and values, by exact type. A derived class may also hold a
recurrent state, which is not repeated along with keys and values."""

BY_LENGTH = {"dynamic", "longrope"}
"""Rotary embeddings whose angles depend on the length of the text that is read at once."""


def sharing(model) -> PreTrainedModel | None:
    """The language model in `model`, with its adapters, if it can share prompts; None where
    adapters put a prompt of their own before ours."""
    adapters = getattr(model, "peft_config", None)
    if adapters and hasattr(model, "get_base_model"):
        if any(adapter.is_prompt_learning for adapter in adapters.values()):
            return None
        model = model.get_base_model()
    return model if repeats(model) else None


def depends_on_length(model: PreTrainedModel) -> bool:
    """Whether a model reads a token differently if the text, or a longer one beside it, goes on."""
    config = model.config.get_text_config()
    own = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = [own, *(value for value in own.values() if isinstance(value, dict))]
    return any(kind.get("rope_type", kind.get("type")) in BY_LENGTH for kind in kinds)


def repeats(model) -> bool:
    """Whether a model's whole state after a prompt is a cache that can be repeated."""
    if not isinstance(model, PreTrainedModel) or depends_on_length(model):
        return False
    two = torch.ones((1, 2), dtype=torch.long, device=model.device)
    with torch.no_grad():
        output = model.base_model(input_ids=two, attention_mask=two, use_cache=True)
    cache = getattr(output, "past_key_values", None)
    return isinstance(cache, DynamicCache) and {type(x) for x in cache.layers} <= REPEATABLE


def prompt_cache(model, ids: torch.Tensor, mask: torch.Tensor) -> DynamicCache:
    """The cache of all but the last token of each prompt, for a model that `repeats`.

    - `ids`, `mask`: shape (prompts, P), padded on the left, P ≥ 2.
    """
    before = mask[:, :-1]
    return model.base_model(
        input_ids=ids[:, :-1],
        attention_mask=before,
        use_cache=True,
        **positions(model.base_model, before),
    ).past_key_values


def shared_inputs(
    model,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    owners: Sequence[int],
    pad: int,
) -> tuple[torch.Tensor, torch.Tensor, dict]:
    """Inputs of `model` whose outputs predict the tokens of each response; gradients flow through
    the prompts.

    - `prompts`, `responses`: token ids, at least one of each.
    - `owners`: index of each response's prompt in `prompts`.

    Returns response ids and mask, shape (responses, R), padded on the right, and the inputs by
    name.
    """
    ids, mask, _ = (x.to(model.device) for x in collate(prompts, [()] * len(prompts), pad))
    answers, of_response, _ = (
        x.to(model.device) for x in collate([()] * len(responses), responses, pad)
    )
    rows, read = torch.tensor(owners, device=model.device), {}
    if ids.shape[1] > 1:
        read["past_key_values"] = prompt_cache(model, ids, mask)
        read["past_key_values"].batch_select_indices(rows)
    whole = torch.cat([mask[rows], of_response[:, :-1]], 1)
    places = {name: x[:, -answers.shape[1] :] for name, x in positions(model, whole).items()}
    inputs = {
        "input_ids": torch.cat([ids[rows, -1:], answers[:, :-1]], 1),
        "attention_mask": whole,
        **read,
        **places,
    }
    return answers, of_response, inputs


def shared_logits(
    model,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    owners: Sequence[int],
    pad: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Response ids and mask as in `shared_inputs`, and the logits that predict the responses'
    tokens, shape (responses, R, vocabulary)."""
    answers, of_response, inputs = shared_inputs(model, prompts, responses, owners, pad)
    return answers, of_response, model(**inputs, use_cache=True).logits
