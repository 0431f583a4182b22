"""Loading of models and tokenizers of the transformers library, and the text that they read."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoTokenizer
from transformers.utils import cached_file

from infalign.errors import DataError

from .interfaces import Conversation


def load(loader, path, trust_remote_code: bool, what: str, **options):
    """`loader.from_pretrained(path)`, or a DataError that names the model."""
    with _named_errors(path, what):
        return loader.from_pretrained(path, trust_remote_code=trust_remote_code, **options)


def commit(path: str, what: str) -> str:
    """The commit of the model with id `path` on the hub, or in the local cache.

    - `what`: the model's name in errors.

    Raises DataError if the model does not exist.
    """
    file = hub_file(path, "config.json") or hub_file(path, "adapter_config.json")
    if file is None:
        with _named_errors(path, what):
            cached_file(path, "config.json")  # raises with the reason
    return Path(str(file)).parent.name  # …/snapshots/COMMIT/config.json


def hub_file(path: str, name: str) -> Path | None:
    """A file of the model with id `path` on the hub; None if there is no such file or model."""
    try:
        file = cached_file(path, name)
    except (OSError, ValueError):
        return None
    return None if file is None else Path(file)


@contextmanager
def _named_errors(path: str | Path, what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        kind = "folder" if Path(path).is_dir() else "folder, or hub id that could be reached"
        raise DataError(
            f"{what} {str(path)!r} is not a {kind} that transformers can load: "
            f"{str(error).splitlines()[0]}"
        ) from error


def device() -> str:
    """The device for models: the first accelerator, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def dtype() -> torch.dtype:
    """The precision of models: bfloat16 on an accelerator, single precision on CPUs, where bfloat16
    is mostly slower."""
    return torch.bfloat16 if device() == "cuda" else torch.float32


def load_tokenizer(path, trust_remote_code=False, what="The model"):
    """The tokenizer of `path`, with a padding token."""
    tokenizer = load(AutoTokenizer, path, trust_remote_code, what)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def prompt_text(tokenizer, messages: Conversation) -> str:
    """A conversation as text that ends where the response begins.

    Raises DataError for more than one message without a chat template, which is needed to join
    them.
    """
    if tokenizer.chat_template is None:
        return single_message(messages, "The model")
    return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)


def single_message(messages: Conversation, who: str) -> str:
    """The text of a conversation of one message.

    - `who`: the reader's name in errors.
    """
    if len(messages) > 1:
        raise DataError(
            f"{who} has no chat template to read a conversation with; the prompt that begins "
            f"{messages[0]['content'][:60]!r} has {len(messages)} messages. Use prompts of one "
            "message, or give its tokenizer a chat template."
        )
    return messages[0]["content"]


def tokenize(tokenizer, texts: Sequence[str], **options):
    """Texts of `prompt_text` as token ids.

    A chat template has already written the special tokens; plain text gets the tokenizer's own, as
    in TRL's training.
    """
    return tokenizer(list(texts), add_special_tokens=tokenizer.chat_template is None, **options)
