"""How much a model can read: its positions and its vocabulary."""

from collections.abc import Sequence
from typing import Any

from infalign.errors import DataError

from .interfaces import Conversation
from .loading import prompt_text, tokenize

__all__ = ["positions_of", "prompt_ids", "require_known", "require_room"]

STATED = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")
"""Keys of configurations for the number of positions."""

UNBOUNDED = 10**9
"""A tokenizer's `model_max_length` above it says that there is none."""


def positions_of(model: Any, tokenizer: Any) -> int | None:
    """The number of tokens that a model can read at most, or None without a limit.

    RoBERTa and its kin count positions from the padding index + 1 on, so the first ones of their
    table are never used. A model without a limit of its own has its tokenizer's, if that has one.
    """
    config = model.config.get_text_config()
    stated = [getattr(config, name, None) for name in STATED]
    limits = [n for n in stated if isinstance(n, int) and n > 0][:1]
    for name, module in model.named_modules():
        offset = getattr(module, "padding_idx", None)
        if name.rpartition(".")[2] == "position_embeddings" and offset is not None:
            limits.append(module.num_embeddings - offset - 1)
    if limits:
        return min(limits)
    own = getattr(tokenizer, "model_max_length", None)
    return own if isinstance(own, int) and 0 < own < UNBOUNDED else None


def prompt_ids(
    model: Any | None,
    tokenizer: Any,
    conversations: Sequence[Conversation],
    keys: Sequence[str],
    new: int,
    who: str,
) -> list[list[int]]:
    """The token ids of prompts that `model` can read with room for `new` more tokens.

    - `model`: only its configuration and modules are read, not its weights; None for a model that
      is not known, whose limits are not checked.
    - `keys`: the prompts' names in errors.
    """
    texts = [prompt_text(tokenizer, c) for c in conversations]
    rows = tokenize(tokenizer, texts)["input_ids"] if texts else []
    if model is not None:
        require_known(model, tokenizer, rows, who)
        require_room(rows, keys, positions_of(model, tokenizer), new, who)
    return rows


def require_known(model: Any, tokenizer: Any, rows: Sequence[Sequence[int]], who: str) -> None:
    """Raises DataError for token ids that the model has no embedding for, and for empty texts.

    An accelerator would fail on them without a word on the cause, and for all later work.
    """
    size = model.get_input_embeddings().weight.shape[0]
    for place, ids in enumerate(rows):
        if not ids:
            raise DataError(f"{who} reads no token of text {place}: it is empty.")
        largest = max(ids)
        if largest >= size:
            raise DataError(
                f"The tokenizer of {who[:1].lower()}{who[1:]} has tokens that the model has not: "
                f"text {place} holds {tokenizer.convert_ids_to_tokens(largest)!r} with the id "
                f"{largest}, and the model knows {size} tokens. Use the tokenizer that the model "
                "was trained with, or resize the model's embeddings."
            )


def require_room(
    rows: Sequence[Sequence[int]], keys: Sequence[str], limit: int | None, new: int, who: str
) -> None:
    """Raises DataError for prompts that leave no room for a response of full length.

    - `rows`: token ids of each prompt.
    - `keys`: the prompts' names in errors.
    - `new`: maximum number of tokens of a response.
    """
    long = [i for i, ids in enumerate(rows) if limit is not None and len(ids) + new > limit]
    if long:
        worst = max(long, key=lambda i: len(rows[i]))
        raise DataError(
            f"{who} has {limit} positions; prompt {keys[worst]!r} has {len(rows[worst])} tokens, "
            f"and a response may have {new} ({len(long)} of {len(rows)} prompts are too long). "
            "Lower `max_new_tokens`, or leave long prompts out."
        )
