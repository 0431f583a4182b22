"""Loading of models and tokenizers of the transformers library, and the text that they read."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import cached_file

from infalign import _check
from infalign.errors import DataError, InfalignError
from infalign.manifest import require_as_written

from .checkpoints import (
    adapter_of,
    adapter_weights,
    first_line,
    hub_file,
    require_adapter,
    require_files,
    require_one_output,
    require_weights,
    stored_shapes,
    without_reports,
)
from .interfaces import Conversation

__all__ = [
    "commit",
    "device",
    "in_template",
    "judged_text",
    "load_config",
    "load_model",
    "load_tokenizer",
    "outline",
    "prompt_text",
    "single_message",
    "tokenize",
]


def load_model(loader, path, trust_remote_code: bool, what: str, **options):
    """The model at `path`, whose weights are all stored weights of the role that `loader` loads.

    - `loader`: `AutoModelForCausalLM` or `AutoModelForSequenceClassification`; the latter with one
      output.
    - `what`: the model's noun in errors.

    Raises DataError if the model does not exist, lacks weights or is of another kind.
    """
    who = f"{what} {str(path)!r}"
    adapter = adapter_of(path, who)
    base = adapter.base if adapter else path
    config = load_config(path, trust_remote_code, what)
    require_files(base, config, who)
    if loader is AutoModelForSequenceClassification:
        options["num_labels"] = 1
    with without_reports():
        with _named_errors(base, what, path):
            model, loading = loader.from_pretrained(
                base,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # named below, with both shapes
                **options,
            )
        if loader is AutoModelForSequenceClassification:
            require_one_output(loading, getattr(config, "id2label", None), who)
        given = adapter_weights(path, who) if adapter else ()
        require_weights(model, loading, loader, who, given)
        if adapter:
            with _named_errors(path, what, path):
                changed = model.load_adapter(str(path))
            require_adapter(changed.to_dict(), who, adapter)
    return model


def outline(loader, path, trust_remote_code: bool, what: str) -> Any:
    """The model at `path` without data in its weights, after the checks of `load_model`.

    Only names and shapes of the weights are read. None where they cannot be read without loading
    them: in other formats, quantized, or on the hub and not yet in the cache.
    """
    who = f"{what} {str(path)!r}"
    adapter = adapter_of(path, who)
    base = adapter.base if adapter else path
    config = load_config(path, trust_remote_code, what)
    require_files(base, config, who)
    shapes = stored_shapes(base, who)
    if not shapes or getattr(config, "quantization_config", None):
        return None
    labels, options = getattr(config, "id2label", None), {}
    if loader is AutoModelForSequenceClassification:
        options["num_labels"] = 1
    with without_reports():
        with _named_errors(base, what, path):
            own = AutoConfig.from_pretrained(base, trust_remote_code=trust_remote_code, **options)
            with torch.device("meta"):
                kind = type(loader.from_config(own, trust_remote_code=trust_remote_code))
            model, loading = kind.from_pretrained(
                None,
                config=own,
                state_dict=shapes,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                device_map={"": "meta"},
            )
        if loader is AutoModelForSequenceClassification:
            require_one_output(loading, labels, who)
        require_weights(model, loading, loader, who, adapter_weights(path, who) if adapter else ())
    return model


def load_config(path, trust_remote_code: bool, what: str) -> Any:
    """The configuration of a model, or of an adapter's base model."""
    require_as_written(Path(path))
    adapter = adapter_of(path, f"{what} {str(path)!r}")
    base = adapter.base if adapter else path
    with _named_errors(base, what, path):
        return AutoConfig.from_pretrained(base, trust_remote_code=trust_remote_code)


def commit(path: str, what: str) -> str:
    """The commit of the model with id `path` on the hub, or in the local cache.

    - `what`: the model's name in errors.

    Raises DataError if the model does not exist.
    """
    file = hub_file(path, "config.json") or hub_file(path, "adapter_config.json")
    if file is None:
        with _named_errors(path, what, path):
            cached_file(path, "config.json")  # raises with the reason
    return Path(str(file)).parent.name  # …/snapshots/COMMIT/config.json


@contextmanager
def _named_errors(path: str | Path, what: str, asked: str | Path) -> Iterator[None]:
    """Errors of the library as a DataError that names the model.

    - `path`: what is loaded: `asked`, or the base model of the adapter `asked`.
    """
    try:
        yield
    except (InfalignError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        kind = "folder" if Path(path).is_dir() else "folder, or hub id that could be reached"
        of = "" if str(path) == str(asked) else f", the base model of the adapter {str(asked)!r},"
        remedy = ""
        if "trust_remote_code" in str(error):
            remedy = " If you trust it, set `trust_remote_code: true` (--trust-remote-code)."
        raise DataError(
            f"{what} {str(path)!r}{of} is not a {kind} that transformers can load: "
            f"{first_line(error)}.{remedy}"
        ) from error


def device() -> str:
    """The device for models: the first accelerator, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_tokenizer(path, trust_remote_code=False, what="The model"):
    """The tokenizer of `path`, with a padding token that the model has an embedding for.

    Padding is masked wherever it is used, so any token serves.
    """
    who = f"{what} {str(path)!r}"
    config, adapter = load_config(path, trust_remote_code, what), adapter_of(path, who)
    missing = f"{who} has no tokenizer"
    if adapter:
        missing = (
            f"{who} is an adapter of the base model {adapter.base!r} without a tokenizer of its "
            f"own. Save the base model's beside it: AutoTokenizer.from_pretrained({adapter.base!r})"
            f".save_pretrained({str(path)!r})"
        )
    try:
        with _named_errors(path, what, path):
            # The adapter's folder may have no configuration that tells the tokenizer's class.
            tokenizer = AutoTokenizer.from_pretrained(
                path, trust_remote_code=trust_remote_code, **({"config": config} if adapter else {})
            )
    except DataError as error:
        if adapter or "instantiate the backend tokenizer" in str(error):
            raise DataError(missing + ".") from error
        raise
    # Without files, the library makes an empty tokenizer of some classes.
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise DataError(
            missing + "."
            if adapter
            else f"{missing}: its vocabulary is empty. Save the tokenizer "
            "that the model was trained with into the folder."
        )
    known = getattr(config.get_text_config(), "vocab_size", None)
    if tokenizer.pad_token_id is None or (known and tokenizer.pad_token_id >= known):
        end = tokenizer.eos_token_id
        usable = end is not None and not (known and end >= known)
        tokenizer.pad_token = tokenizer.eos_token if usable else tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def prompt_text(tokenizer, messages: Conversation) -> str:
    """A conversation as text that ends where the response begins.

    Raises DataError for more than one message without a chat template, which is needed to join
    them, and for a conversation that the template refuses.
    """
    if tokenizer.chat_template is None:
        return single_message(messages, "The model")
    return in_template(tokenizer, messages, "The model", add_generation_prompt=True)


def in_template(tokenizer, messages: Conversation, what: str, **options) -> str:
    """A conversation in a tokenizer's chat template.

    - `what`: the noun of the tokenizer's model in errors.
    - `options`: further arguments of `apply_chat_template`.

    Raises DataError for messages without text, and for a conversation that the template refuses.
    """
    who = f"{what} {tokenizer.name_or_path!r}"
    for place, message in enumerate(messages):
        content = message.get("content")
        if not isinstance(content, str) and not (content is None and message.get("tool_calls")):
            raise DataError(
                f"{who} reads text; message {place} of the prompt {_shown(messages)} has the "
                f"content {_check.short(content)}. Give it as a string."
            )
    try:
        return tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
    except Exception as error:  # a template is a program: it can fail in any way
        roles = ", ".join(str(m.get("role")) for m in messages)
        raise DataError(
            f"The chat template of {who[:1].lower()}{who[1:]} refuses the prompt "
            f"{_shown(messages)} with the roles {_check.short(roles)}: {first_line(error)}. "
            "Change the prompt, or the template in chat_template.jinja."
        ) from error


def judged_text(tokenizer, messages: Conversation, reply: str, what: str) -> str:
    """A prompt and its response as a classifier reads them: in its chat template, or without one as
    two lines.

    - `what`: the classifier's noun in errors.
    """
    if tokenizer.chat_template is None:
        return f"{single_message(messages, what + ' model')}\n{reply}"
    return in_template(tokenizer, [*messages, {"role": "assistant", "content": reply}], what)


def _shown(messages: Conversation) -> str:
    """The user's last message, shortened."""
    asked = [m for m in messages if m.get("role") == "user"] or list(messages)
    return _check.short(asked[-1].get("content") if asked else None)


def single_message(messages: Conversation, who: str) -> str:
    """The text of a conversation of one message.

    - `who`: the reader's name in errors.
    """
    if len(messages) > 1:
        raise DataError(
            f"{who} has no chat template to read a conversation with; the prompt that begins "
            f"{str(messages[0].get('content'))[:60]!r} has {len(messages)} messages. Use prompts "
            "of one message, or give its tokenizer a chat template."
        )
    content = messages[0].get("content") if messages else None
    if not isinstance(content, str):
        raise DataError(
            f"{who} reads text; a prompt has the content {_check.short(content)}. Give it as a "
            "string."
        )
    return content


def tokenize(tokenizer, texts: Sequence[str], **options):
    """Texts of `prompt_text` as token ids.

    A chat template has already written the special tokens; plain text gets the tokenizer's own, as
    in TRL's training.
    """
    return tokenizer(list(texts), add_special_tokens=tokenizer.chat_template is None, **options)
