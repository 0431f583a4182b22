"""Logits of given tokens, and the sampling distribution that follows from logits."""

import inspect
from collections.abc import Sequence

import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from infalign import _check

__all__ = ["check_top_p", "collate", "positions", "raw_logits", "response_logits", "sampling_law"]


def check_top_p(name: str, value) -> float:
    """`value` as a float in (0, 1]."""
    value = _check.real(name, value)
    if not 0 < value <= 1:
        raise ValueError(f"`{name}` must lie in (0, 1]; got {value:g}. 1 keeps every token.")
    return value


def sampling_law(temperature: float, top_p: float) -> LogitsProcessorList:
    """The processors that turn a model's logits into unnormalized logits of the sampling
    distribution.

    `top_p` keeps the smallest set of most probable tokens whose total probability, after the
    temperature, is at least `top_p`; all other logits become −inf.
    """
    steps = LogitsProcessorList()
    if temperature != 1:
        steps.append(TemperatureLogitsWarper(float(temperature)))
    if top_p < 1:
        steps.append(TopPLogitsWarper(float(top_p)))
    return steps


def positions(model, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Position ids of a padded batch as an argument of `model`, if it has such an argument."""
    takes = inspect.signature(model.forward).parameters
    if "position_ids" in takes or any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        return {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    return {}


def collate(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], pad: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Prompts and responses as one batch: prompts padded on the left, responses on the right.

    Returns input ids and attention mask of shape (batch, P + R), and the response mask of shape
    (batch, R).
    """
    left, right = max(map(len, prompts)), max(map(len, responses))
    ids, mask, of_response = [], [], []
    for prompt, response in zip(prompts, responses, strict=True):
        before, after = left - len(prompt), right - len(response)
        ids.append([pad] * before + list(prompt) + list(response) + [pad] * after)
        mask.append([0] * before + [1] * (len(prompt) + len(response)) + [0] * after)
        of_response.append([1] * len(response) + [0] * after)
    return torch.tensor(ids), torch.tensor(mask), torch.tensor(of_response)


def response_logits(model, ids, mask, length: int, temperature: float) -> torch.Tensor:
    """Logits that predict the last `length` tokens, at the sampling temperature."""
    return raw_logits(model, ids, mask, length).float() / temperature


def raw_logits(model, ids, mask, length: int) -> torch.Tensor:
    """Logits that predict the last `length` tokens, at temperature 1."""
    output = model(
        input_ids=ids, attention_mask=mask, logits_to_keep=length + 1, **positions(model, mask)
    )
    return output.logits[:, :-1]
