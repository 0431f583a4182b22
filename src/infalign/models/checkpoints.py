"""Whether stored weights are those of the model that is asked for.

The transformers library initializes missing weights at random and drops weights that the model has
no place for, with a notice at most. A language model then works as a reward with random scores, and
a reward model as a policy with random tokens.
"""

import json
import logging
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.utils import cached_file

from infalign import _check
from infalign.errors import DataError

__all__ = [
    "Adapter",
    "adapter_of",
    "adapter_weights",
    "first_line",
    "hub_file",
    "require_adapter",
    "require_files",
    "require_merged",
    "require_one_output",
    "require_weights",
    "stored_shapes",
    "without_reports",
]

HEADS = {
    AutoModelForCausalLM: ("language-model head", "language model", "tokens"),
    AutoModelForSequenceClassification: ("score head", "sequence classifier", "rewards"),
}
"""The head of a role, the kind of model that has it, and what is random without it."""

CLASSIFIER_HEADS = re.compile(r"(^|\.)(score|classifier|classification_head|v_head|value_head)\.")

CAUSAL_MASKS = re.compile(r"(attn|attention)\.bias$")
"""Masks of the first GPTs, which old versions of the library saved as if they were weights."""


@dataclass(frozen=True)
class Adapter:
    """An adapter as PEFT writes it: a folder with changes to the weights of a base model."""

    base: str
    """Folder or hub id of the base model."""


def adapter_of(path: str | Path, who: str) -> Adapter | None:
    """The adapter at `path`, or None for a whole model.

    Raises DataError for an adapter that names no base model, and for a folder that holds a whole
    model as well.
    """
    file = _file(path, "adapter_config.json")
    if file is None:
        return None
    try:
        base = json.loads(file.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError) as error:
        raise DataError(
            f"{who} is an adapter whose adapter_config.json is not valid: {error}."
        ) from None
    if not isinstance(base, str) or not base:
        raise DataError(
            f"{who} is an adapter whose adapter_config.json names no base model. Set "
            "`base_model_name_or_path`, or merge the adapter into its base model."
        )
    if _weight_files(path):
        raise DataError(
            f"{who} holds both a whole model and an adapter of {base!r}, and nothing says whether "
            "the adapter is merged into the weights already. Delete adapter_config.json if it is; "
            "otherwise move the adapter to a folder of its own."
        )
    return Adapter(base)


def require_merged(path: str | Path, who: str, use: str) -> None:
    """Raises DataError for an adapter, which cannot `use` by itself."""
    adapter = adapter_of(path, who)
    if adapter:
        raise DataError(
            f"{who} is an adapter of {adapter.base!r}, which cannot {use} by itself. Merge it into "
            "its base model: PeftModel.merge_and_unload, then save_pretrained."
        )


def _file(path: str | Path, name: str) -> Path | None:
    """A file of a folder or of a hub model; None if there is no such file or model."""
    if not Path(path).is_dir():
        return hub_file(str(path), name)
    file = Path(path) / name
    return file if file.is_file() else None


def hub_file(path: str, name: str) -> Path | None:
    """A file of the model with id `path` on the hub; None if there is no such file or model."""
    try:
        file = cached_file(path, name)
    except (OSError, ValueError):
        return None
    return None if file is None else Path(file)


INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
WHOLE = ("model.safetensors", "pytorch_model.bin")


def _weight_files(path: str | Path) -> list[Path]:
    """The files of weights that belong to a model in a folder or in the hub's cache; [] if they
    have another format or are not there."""
    folder = Path(path)
    if not folder.is_dir():
        config = _file(path, "config.json")
        if config is None:
            return []
        folder = config.parent
    for whole, index in zip(WHOLE, INDEXES, strict=True):
        if (folder / whole).is_file():
            return [folder / whole]
        if (folder / index).is_file():
            return [folder / name for name in _shards(folder / index)]
    return []


def require_files(path: str | Path, config: Any, who: str) -> None:
    """Raises DataError for a folder without weights. Those of a hub model may still be fetched."""
    elsewhere = getattr(config, "transformers_weights", None)
    if Path(path).is_dir() and not elsewhere and not _weight_files(path):
        raise DataError(
            f"{who} has no weights: its folder holds neither {WHOLE[0]} nor {WHOLE[1]}, whole or "
            "in shards with an index."
        )


def _shards(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError(f"{index} is not an index of weights: {error!r}.") from None


def stored_shapes(path: str | Path, who: str) -> dict[str, torch.Tensor]:
    """The names and shapes of a model's weights as tensors without data; {} if the files are not
    in the cache yet, or in another format.

    Raises DataError for missing and damaged files.
    """
    shapes: dict[str, torch.Tensor] = {}
    for file in _weight_files(path):
        shapes |= _shapes(file, who)
    return shapes


def _shapes(file: Path, who: str) -> dict[str, torch.Tensor]:
    if not file.exists():
        raise DataError(
            f"{who} lacks {file.name}, one of the files of its weights. Copy the folder again."
        )
    try:
        if file.suffix == ".bin":
            mapped = zipfile.is_zipfile(file)  # the first format of PyTorch is read whole
            state = torch.load(file, map_location="meta", mmap=mapped, weights_only=True)
            return {name: x for name, x in state.items() if isinstance(x, torch.Tensor)}
        with safe_open(file, framework="pt") as opened:
            return {
                name: torch.empty(opened.get_slice(name).get_shape(), device="meta")
                for name in opened.keys()
            }
    except Exception as error:  # damaged files fail in many ways
        raise DataError(
            f"{who} has weights that cannot be read, {file.name}: {first_line(error)[:200]}. Copy "
            "the file again."
        ) from None


REPORTING = ("modeling_utils", "configuration_utils", "integrations.peft")
"""Modules of the library that report on weights."""


def first_line(error: Exception) -> str:
    """What an error of the library says first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = " ".join(lines[:2]) if lines and lines[0].endswith(":") else "".join(lines[:1])
    if not said or not isinstance(error, OSError | ValueError | RuntimeError | TemplateError):
        said = f"{type(error).__name__} {said}".rstrip()
    return said.rstrip(".")


@contextmanager
def without_reports() -> Iterator[None]:
    """Silences the library's reports on loaded weights: the package's own errors say the same."""
    loggers = [logging.getLogger(f"transformers.{name}") for name in REPORTING]

    def silent(record: logging.LogRecord) -> bool:
        said = record.getMessage()
        return not ("LOAD REPORT" in said or "incompatible to the `id2label`" in said)

    for logger in loggers:
        logger.addFilter(silent)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(silent)


def require_weights(
    model: Any, loading: Mapping[str, Collection], loader: Any, who: str, given: Collection = ()
) -> None:
    """Raises DataError if a model was not loaded from weights of its own kind.

    - `loading`: the library's `output_loading_info`.
    - `loader`: the role, a key of `HEADS`.
    - `given`: names of weights that an adapter brings.
    """
    missing = sorted(set(loading["missing_keys"]) - set(given))
    unexpected = sorted(loading["unexpected_keys"])
    mismatched = sorted(loading["mismatched_keys"])
    head, kind, output = HEADS[loader]
    stated = getattr(model.config, "architectures", None) or []
    named = f"Its configuration names {', '.join(stated)}" if stated else "It names no architecture"
    body = model.base_model_prefix + "."
    heads = [name for name in missing if not name.startswith(body)]
    if heads:
        others = f", and it has {_some(unexpected)} instead" if unexpected else ""
        raise DataError(
            f"{who} is not a {kind}: it has no weights for the {head} ({_some(heads)}){others}. "
            f"{named}. The {head} would be random, and so would be the {output}. Use a model that "
            f"was trained as a {kind}."
        )
    if missing:
        raise DataError(
            f"{who} is incomplete: {len(missing)} of its weights are missing ({_some(missing)}), "
            "and would be random. Copy the whole folder again, or correct config.json."
        )
    if mismatched:
        name, stored, needed = mismatched[0]
        raise DataError(
            f"{who} has weights of other shapes than its configuration: {name} is "
            f"{tuple(stored)}, and config.json needs {tuple(needed)} ({len(mismatched)} weights "
            "differ). The configuration belongs to another model."
        )
    lost = [name for name in unexpected if _belongs(model, name)]
    if lost:
        raise DataError(
            f"{who} has {len(lost)} weights that its configuration leaves out ({_some(lost)}), so "
            "the model would not be the one that was saved. The configuration belongs to another "
            "model."
        )
    if loader is AutoModelForCausalLM:
        _require_causal(stated, unexpected, who)


def _require_causal(stated: Collection[str], unexpected: Collection[str], who: str) -> None:
    """Raises DataError for classifiers with tied embeddings, and for models that read both ways."""
    classifies = [name for name in stated if "Classification" in name or "RewardModel" in name]
    if classifies and len(classifies) == len(stated):
        scores = [name for name in unexpected if CLASSIFIER_HEADS.search(name)]
        weights = f" with the weights {_some(scores)}" if scores else ""
        raise DataError(
            f"{who} is not a language model but a {classifies[0]}{weights}. Use it as a reward, or "
            "give the language model that it was made from."
        )
    masked = [name for name in stated if "MaskedLM" in name]
    if masked and len(masked) == len(stated):
        raise DataError(
            f"{who} is not a language model but a {masked[0]}, which reads a text in both "
            "directions and cannot continue it. Use a causal language model."
        )


def _belongs(model: Any, name: str) -> bool:
    """Whether a stored weight belongs to a module that the model has, or to a further layer."""
    path, _, kind = name.rpartition(".")
    if kind not in ("weight", "bias") or CAUSAL_MASKS.search(name):
        return False
    if name in dict(model.named_buffers()):
        return False
    modules = dict(model.named_modules())
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        above = ".".join(parts[:end])
        if above in modules:
            inside = modules[above]
            layer = isinstance(inside, torch.nn.ModuleList) and end < len(parts)
            return end == len(parts) or (layer and parts[end].isdigit())
    return False


def _some(names: Collection[str]) -> str:
    first = list(names)[:3]
    return ", ".join(first) + (", …" if len(names) > len(first) else "")


def require_one_output(
    loading: Mapping[str, Collection], labels: Mapping[int, str] | None, who: str
) -> None:
    """Raises DataError for a score head of several outputs, loaded as one of a single output.

    - `labels`: the names of the outputs, if the configuration has them.
    """
    outputs = [
        stored[0]
        for _name, stored, needed in loading["mismatched_keys"]
        if tuple(needed)[:1] == (1,) and stored[0] != 1 and tuple(stored)[1:] == tuple(needed)[1:]
    ]
    if not outputs:
        return
    words = [str(word) for _, word in sorted(labels.items())] if labels else []
    named = f" ({_check.short(', '.join(words))})" if len(words) == outputs[0] else ""
    raise DataError(
        f"{who} has {outputs[0]} outputs{named}, and a reward is one number. Use a reward model "
        "with one output, or a reward python:package.module:function that loads this model and "
        "returns one number of its outputs, such as a difference or a weighted sum."
    )


def adapter_weights(path: str | Path, who: str) -> set[str]:
    """Names of the weights that an adapter brings, as the base model has them.

    An adapter of a classifier brings the score head whole.
    """
    file = _file(path, "adapter_model.safetensors") or _file(path, "adapter_model.bin")
    if file is None:
        raise DataError(f"{who} is an adapter without weights (adapter_model.safetensors).")
    return {name.removeprefix("base_model.model.") for name in _shapes(file, who)}


def require_adapter(loading: Mapping[str, Collection], who: str, adapter: Adapter) -> None:
    """Raises DataError if an adapter does not fit its base model.

    - `loading`: what the library says about the adapter's weights.
    """
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    missing, unexpected, mismatched = (sorted(loading[kind]) for kind in kinds)
    if missing or unexpected or mismatched:
        names = [*missing, *unexpected, *(name for name, *_ in mismatched)]
        raise DataError(
            f"{who} does not fit its base model {adapter.base!r}: {len(missing)} weights are "
            f"missing, {len(unexpected)} have no place and {len(mismatched)} have other shapes "
            f"({_some(names)}). Name the base model that it was trained on."
        )
