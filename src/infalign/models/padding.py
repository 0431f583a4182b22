"""Whether padding before a text changes what a model says about the text."""

from weakref import WeakSet

import torch
from transformers import PreTrainedModel

from infalign.errors import DataError

from .logits import positions

__all__ = ["require_hidden_padding"]

PADDING = 8
"""Padding tokens of the probe: more than a short convolution spans."""

LEAST = 1e-3
"""Difference in nats below which no model is refused."""

NOISE = 10
"""A model is refused only if padding before a text changes this many times as much as rounding."""

_hiding: WeakSet[torch.nn.Module] = WeakSet()
"""The models that passed."""


def require_hidden_padding(model, pad: int, who: str) -> None:
    """Raises DataError if `model` gives a text other log-probabilities with padding before it.

    Prompts of different lengths become one batch with padding on the left, which the attention mask
    should hide. Some recurrent models read it, so a response would depend on the prompts beside it.

    A text of four tokens is read alone, with padding before it, and with padding after it. The last
    cannot change a causal model's log-probabilities by more than rounding, whatever the precision,
    so it tells how much rounding there is. A model is tried once, in evaluation mode, and left as
    it was. Models of other libraries, and weights that are spread over processes, are not tried.

    - `pad`: the padding token.
    - `who`: the model's name in errors.
    """
    inner = getattr(model, "get_base_model", lambda: model)()
    if not isinstance(inner, PreTrainedModel) or model in _hiding:
        return
    weight = model.get_input_embeddings().weight
    if weight.is_meta or not weight.shape[0]:
        return
    training = [part for part in model.modules() if part.training]
    model.eval()
    try:
        devices = [weight.device] if weight.is_cuda else []
        with torch.no_grad(), torch.random.fork_rng(devices):
            changed, rounding = _differences(model, pad, weight)
    finally:
        for part in training:
            part.training = True
    precision = getattr(model, "dtype", torch.float32)
    if changed > max(LEAST, 16 * torch.finfo(precision).eps, NOISE * rounding):
        kind = getattr(model.config, "model_type", type(model).__name__)
        raise DataError(
            f"{who} (of type {kind}) reads padding as a part of the text: {PADDING} padding tokens "
            f"before a text change the log-probability of a token by {changed:.2g} nats on "
            f"average, and rounding by {rounding:.1g}. Prompts of different lengths are padded to "
            "one, so a response would depend on the prompts beside it, and its log-probability "
            "would be wrong. Use a model whose attention mask hides padding. To sample without "
            "training, use a server that reads every prompt by itself: http://HOST/v1#MODEL."
        )
    _hiding.add(model)


def _differences(model, pad: int, weight: torch.Tensor) -> tuple[float, float]:
    """How much padding before a text, and padding after it, changes its log-probabilities.

    Each is the mean of the absolute change over the model's own next token, at the token of the
    text where it is largest, in nats.
    """
    size = weight.shape[0]
    # From the middle of the vocabulary; special tokens are mostly at its ends.
    text = [size // 3, size // 2, 2 * size // 3, size // 4]
    fill, on = [pad if pad < size else 0] * PADDING, [1] * len(text)
    off = [0] * PADDING
    alone, before, after = (
        _logprobs(model, torch.tensor([ids], device=weight.device), mask)
        for ids, mask in ((text, on), (fill + text, off + on), (text + fill, on + off))
    )
    # Counted from the end: adapters may put a prompt of their own before the text.
    before, after = before[-len(text) :], after[-len(fill + text) : -PADDING]
    alone = alone[-len(text) :]
    chances = alone.exp()
    changed, rounding = (
        # Tokens that are impossible have infinite logits in some models.
        float(torch.where(chances > 0, chances * (alone - x).abs(), 0.0).sum(-1).max())
        for x in (before, after)
    )
    return changed, rounding


def _logprobs(model, ids: torch.Tensor, mask: list[int]) -> torch.Tensor:
    """Log-probabilities of the token after each place, shape (tokens, vocabulary)."""
    attention = torch.tensor([mask], device=ids.device)
    output = model(input_ids=ids, attention_mask=attention, **positions(model, attention))
    return output.logits[0].float().log_softmax(-1)
