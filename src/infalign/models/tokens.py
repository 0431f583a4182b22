"""Whether two models write with the same tokens, which a KL between them needs."""

from dataclasses import dataclass
from typing import Any

from infalign._look import Shown
from infalign.errors import DataError

__all__ = ["Tokens", "require_same_tokens"]

WITHOUT_KL = "evaluate without KL: --no-kl, or `evaluate.kl_samples: 0` in a configuration"
"""What to do with models that have no KL."""


@dataclass(frozen=True)
class Tokens(Shown):
    """The tokens that a model can write."""

    who: str
    """The model's name in errors."""

    size: int
    """The number of its logits, which may exceed the number of tokens."""

    names: dict[int, str]
    """The tokens by id."""

    @classmethod
    def of(cls, tokenizer: Any, config: Any, who: str) -> "Tokens":
        """The tokens of a model by its tokenizer and configuration."""
        size = config.get_text_config().vocab_size
        vocabulary = tokenizer.get_vocab().items()
        return cls(who, size, {i: name for name, i in vocabulary if i < size})


def require_same_tokens(policy: Tokens, reference: Tokens) -> None:
    """Raises DataError if an id is one token for the policy and another for the reference.

    The numbers of logits may differ, since embeddings are often padded to a round size; ids without
    a token, and tokens that only one of the models has, are judged by their probability
    (`sequence_kl`). How a text becomes tokens may differ too: a KL is that of the tokens drawn.
    """
    shared = policy.names.keys() & reference.names.keys()
    other = sorted(i for i in shared if policy.names[i] != reference.names[i])
    if other:
        first = other[0]
        raise DataError(
            f"{policy.who} and {reference.who[:1].lower()}{reference.who[1:]} write with different "
            f"tokens, so they have no KL: id {first} is {policy.names[first]!r} for the policy and "
            f"{reference.names[first]!r} for the reference ({len(other)} of {len(shared)} ids "
            f"differ). Use a reference with the policy's tokenizer, or {WITHOUT_KL}."
        )
