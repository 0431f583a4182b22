"""What a reward is given: the text of a response, and the form of prompts and completions.

Calibration, training, evaluation, decoding, red teaming and the adapters of other frameworks all
use these functions, so a reward gets the same text for the same tokens on every path.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import DataError

__all__ = ["completion_of", "conversation_of", "decoded", "finished", "in_form_of", "text_of"]

Messages = Sequence[Mapping[str, Any]]
"""Chat messages, `{"role": …, "content": …}`."""


def decoded(tokenizer, responses: Sequence[Sequence[int]], *, strip: bool = False) -> list[str]:
    """The texts of responses, from their token ids.

    Special tokens are left out; everything else is as the tokenizer decodes it, white space at both
    ends included. TRL, verl and vLLM decode alike.

    - `responses`: token ids up to the end token, without padding.
    - `strip`: remove white space at both ends.
    """
    texts = (tokenizer.decode(list(ids), skip_special_tokens=True) for ids in responses)
    return [finished(text, strip=strip) for text in texts]


def finished(text: str, *, strip: bool) -> str:
    """A response's text; without white space at both ends if `strip` is true.

    >>> finished("  return a + b\\n", strip=False)
    '  return a + b\\n'
    """
    return text.strip() if strip else text


def conversation_of(prompt: str | Messages) -> list[dict]:
    """A prompt as chat messages; a string is one message of the user.

    >>> conversation_of("A color?")
    [{'role': 'user', 'content': 'A color?'}]
    """
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [dict(message) for message in prompt]


def completion_of(text: str) -> list[dict]:
    """A response as chat messages: one message of the assistant.

    >>> completion_of("Green.")
    [{'role': 'assistant', 'content': 'Green.'}]
    """
    return [{"role": "assistant", "content": text}]


def in_form_of(prompt: str | Messages, text: str) -> str | list[dict]:
    """A response as the completion that rewards get with this prompt: its text if the prompt is a
    text, one message of the assistant if the prompt is a list of messages.

    >>> in_form_of("A color?", "Green.")
    'Green.'
    >>> in_form_of(conversation_of("A color?"), "Green.")
    [{'role': 'assistant', 'content': 'Green.'}]
    """
    return text if isinstance(prompt, str) else completion_of(text)


def text_of(completion: str | Messages) -> str:
    """The text of a completion, which is a string or ends with the assistant's message.

    Raises DataError for a completion that consists of more than text, such as tool calls or a
    thought that was split off: it has no text that equals the one that was calibrated.

    >>> text_of("Green."), text_of(completion_of("Green."))
    ('Green.', 'Green.')
    """
    if isinstance(completion, str):
        return completion
    last = completion[-1]
    more = sorted(k for k, v in last.items() if k not in ("role", "content") and v)
    if len(completion) > 1 or more or not isinstance(last.get("content"), str):
        raise DataError(
            f"A completion must be one message with a text; got {len(completion)}, the last with "
            f"{', '.join(sorted(last))}. Rewards are calibrated on whole responses: train "
            "without tools, and without a tokenizer that splits responses into fields."
        )
    return last["content"]
