"""What decoding and evaluation ask of a model: samples from a policy, rewards of responses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Conversation = Sequence[dict]
"""Chat messages, `{"role": …, "content": …}`, ending with the user's."""


@dataclass(frozen=True)
class Response:
    """One sampled response."""

    text: str
    tokens: tuple[int, ...] = ()
    """Token ids as sampled, with the end token if it was reached; empty where a server does not
    tell them."""

    logprob: float = float("nan")
    """Log-probability of the tokens under the sampling distribution, in nats; nan if not known."""


class Sampler(Protocol):
    """A policy that answers conversations by independent sampling."""

    def sample(
        self,
        conversations: Sequence[Conversation],
        n: int,
        *,
        seed: int,
        keys: Sequence[str] | None = None,
    ) -> list[list[Response]]:
        """`n` independent responses to each conversation.

        Response k to a prompt follows from the seed, the prompt's key and k: it is the same in any
        company, and the first ones of more are those of fewer.

        - `keys`: one name for each conversation, all different, such as prompt ids; "0", "1", …
          unless given.
        """


class Scorer(Protocol):
    """A reward: TRL's reward function, called with keywords only."""

    def __call__(
        self, *, prompts: Sequence[Conversation], completions: Sequence[Conversation], **columns
    ) -> Sequence[float]:
        """One finite reward per completion; any scale, more is better."""
