"""A sampler whose responses are the parts after their thoughts."""

from collections.abc import Sequence
from dataclasses import replace

from infalign import _check
from infalign._thinking import answer_after_thinking
from infalign.seeds import derived, prompt_keys
from infalign.text import finished

from .interfaces import Conversation, Response, Sampler, sample_from
from .unanswered import Place, with_answers

__all__ = ["AfterThinking", "unconditioned"]


class AfterThinking:
    """`sampler`, a model that thinks in its text, as a `Sampler` of its answers.

    The text of a response is the part after its thought; tokens and log-probability remain those of
    the whole response.

    - `source`: the model's name in messages.
    - `max_new_tokens`: the sampler's own. A response of that length was cut off.
    - `strip`, `ask_again`: as in `ServerModel`.

    Sampling raises DataError for responses whose thought was cut off every time.
    """

    answer = "after-thinking"

    def __init__(
        self, sampler: Sampler, *, source: str, max_new_tokens: int, strip: bool, ask_again: int
    ):
        self.sampler, self.source, self.strip = sampler, source, strip
        self.max_new_tokens = max_new_tokens
        self.ask_again = _check.count("ask_again", ask_again, at_least=0)

    def sample(
        self,
        conversations: Sequence[Conversation],
        n: int,
        *,
        seed: int,
        keys: Sequence[str] | None = None,
        first: int = 0,
    ) -> list[list[Response]]:
        """`n` answers to each conversation, as `LanguageModel.sample`."""
        keys = prompt_keys(keys, conversations)
        drawn = sample_from(self.sampler, conversations, n, first, seed=seed, keys=keys)

        def again(places: Sequence[Place], attempt: int) -> list[Response]:
            rows = self.sampler.sample(
                [conversations[i] for i, _ in places],
                1,
                seed=derived(seed, "again", attempt),
                keys=[f"{first + k} {keys[i]}" for i, k in places],
            )
            return [self._answer(row[0]) for row in rows]

        return with_answers(
            [[self._answer(r) for r in row] for row in drawn],
            again,
            ask_again=self.ask_again,
            unanswered="error",
            source=self.source,
            keys=keys,
            max_new_tokens=self.max_new_tokens,
        )

    def _answer(self, response: Response) -> Response:
        complete = len(response.tokens) < self.max_new_tokens
        text = answer_after_thinking(response.text, complete=complete)
        if text is None:
            return replace(response, text="", missing="length" if not complete else "no end")
        return replace(response, text=finished(text, strip=self.strip))


def unconditioned(sampler: Sampler) -> Sampler:
    """The model behind `AfterThinking`, if responses are drawn from it under no condition."""
    if isinstance(sampler, AfterThinking) and not sampler.ask_again:
        return sampler.sampler
    return sampler
