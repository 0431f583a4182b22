"""The interfaces of models for decoding and evaluation: a policy samples, a reward scores."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from infalign._look import Shown
from infalign.seeds import derived

__all__ = ["Response", "Sampler", "Scorer", "sample_from"]

Conversation = Sequence[dict]
"""Chat messages, `{"role": …, "content": …}`; the last is the user's."""


QUESTION = {"role": "user", "content": "What is two plus two?"}
ANSWER = {"role": "assistant", "content": "It makes four."}
"""A conversation that models are probed with before they are used."""

FAKE = "I would rather not say.", "The answer is 4: two and two make four."
"""Responses that the functions of a user are tried on before any model writes one."""


@dataclass(frozen=True)
class Response(Shown):
    """One sampled response."""

    text: str
    """White space at both ends belongs to it, unless its sampler strips."""

    tokens: tuple[int, ...] = ()
    """Token ids as sampled, with the end token if it was reached; empty if a server does not report
    them."""

    logprob: float = float("nan")
    """Log-probability of the tokens under the sampling distribution, in nats; nan if unknown."""

    missing: str = ""
    """Why there is no answer, such as `length` for a thought that was cut off; empty if there is
    one. A sampler returns a response without an answer only where it is asked to."""


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

        Response k to a prompt depends only on the seed, the prompt's key and k, not on the other
        conversations or on `n`.

        - `keys`: one name for each conversation, all different, such as prompt ids. Default: "0",
          "1", …

        A sampler may also take `first`, the number of the first response to each prompt.
        """


def sample_from(
    sampler: Sampler,
    conversations: Sequence[Conversation],
    n: int,
    first: int,
    *,
    seed: int,
    keys: Sequence[str],
) -> list[list[Response]]:
    """`n` more responses to each conversation, after `first` that were drawn before.

    A sampler that takes `first` continues its own responses: they are those that `first + n` at
    once would have ended with. Any other sampler, such as a server's model, draws independent ones
    with a seed of their own.
    """
    if not first:
        return sampler.sample(conversations, n, seed=seed, keys=keys)
    if "first" in inspect.signature(sampler.sample).parameters:
        return sampler.sample(conversations, n, seed=seed, keys=keys, first=first)  # type: ignore[call-arg]
    return sampler.sample(conversations, n, seed=derived(seed, "from", first), keys=keys)


class Scorer(Protocol):
    """A reward with the signature of TRL's reward functions, called with keyword arguments only.

    A prompt is a text or a list of chat messages, as it was written, whether or not the policy has
    a chat template. Its completion has the same form: a text, or a list of one message of the
    assistant. Columns are lists with one entry per completion: `prompt_id`, and the other columns
    of the prompts.
    """

    def __call__(
        self,
        *,
        prompts: Sequence[str | Conversation],
        completions: Sequence[str | Conversation],
        **columns,
    ) -> Sequence[float]:
        """One finite reward per completion, on any scale; higher is better."""
