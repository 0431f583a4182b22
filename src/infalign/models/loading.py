"""Models and tokenizers of the transformers library: where they come from, what they read."""

from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoTokenizer
from transformers.utils import cached_file

from infalign.errors import DataError

from .interfaces import Conversation


def load(loader, path, trust_remote_code: bool, what: str, **options):
    """`loader.from_pretrained(path)`, or a DataError that says what could not be loaded."""
    with _told(path, what):
        return loader.from_pretrained(path, trust_remote_code=trust_remote_code, **options)


def commit(path: str, what: str) -> str:
    """The commit of what the hub, or its cache here, has under the id `path`.

    Raises DataError, which calls it `what`, when there is no such model.
    """
    with _told(path, what):
        return Path(cached_file(path, "config.json")).parent.name  # …/snapshots/COMMIT/config.json


@contextmanager
def _told(path, what: str):
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        kind = "folder" if Path(path).is_dir() else "folder, or hub id that could be reached"
        raise DataError(
            f"{what} {str(path)!r} is not a {kind} that transformers can load: "
            f"{str(error).splitlines()[0]}"
        ) from error


def device() -> str:
    """Where models go: the first accelerator, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def dtype() -> torch.dtype:
    """The precision models run in: half on an accelerator; on most CPUs half is slower."""
    return torch.bfloat16 if device() == "cuda" else torch.float32


def load_tokenizer(path, trust_remote_code=False, what="The model"):
    """The tokenizer of `path`, with a padding token."""
    tokenizer = load(AutoTokenizer, path, trust_remote_code, what)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def prompt_text(tokenizer, messages: Conversation) -> str:
    """A conversation as text that ends where the response begins.

    Raises DataError for more than one message where no chat template says how to join them.
    """
    if tokenizer.chat_template is None:
        return single_message(messages, "The model")
    return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)


def single_message(messages: Conversation, who: str) -> str:
    """The text of a conversation of one message; `who` reads it."""
    if len(messages) > 1:
        raise DataError(
            f"{who} has no chat template to read a conversation with; the prompt that begins "
            f"{messages[0]['content'][:60]!r} has {len(messages)} messages. Use prompts of one "
            "message, or give its tokenizer a chat template."
        )
    return messages[0]["content"]


def tokenize(tokenizer, texts: Sequence[str], **options):
    """Texts of `prompt_text` as token ids.

    A chat template has written its special tokens already; plain text gets the tokenizer's, which
    is what TRL does while training.
    """
    return tokenizer(list(texts), add_special_tokens=tokenizer.chat_template is None, **options)
