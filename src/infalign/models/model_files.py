"""The files of a model folder that determine its behavior, and their checksums."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from infalign import storage
from infalign.errors import DataError

__all__ = ["adapted", "checksum", "parts"]

ADAPTER = "adapter_config.json"
"""The file that makes a folder an adapter of another model."""

IGNORED_FILES = re.compile(
    r"(readme|licen[cs]e|notice|changelog|use_policy|model_card)\b.*|\..*|.*~"
    r"|.*\.(md|rst|pdf|png|jpe?g|gif|svg|webp|ico|ipynb|log|pyc|part|lock|tmp)"
    r"|training_args\.bin|trainer_state\.json|(all|train|eval|predict)_results\.json"
    r"|(optimizer|scheduler|scaler)\.(pt|bin|pth|safetensors)"
    r"|rng_state.*\.(pt|pth)|events\.out\.tfevents.*|latest",
    re.IGNORECASE,
)
"""Names of files that no model or tokenizer is loaded from: documentation, and a trainer's state.
Everything else counts, so a kind of file that is not known changes the fingerprint."""

IGNORED_FOLDERS = re.compile(r"\..*|checkpoint-\d+|runs|wandb|logs|global_step\d+|__pycache__")
"""Names of folders below a model's own that no model is loaded from."""

KINDS: Mapping[str, re.Pattern] = {
    "adapter": re.compile(r"adapter_.*"),
    "generation settings": re.compile(r"generation_config\.json"),
    "configuration": re.compile(r"config\.json"),
    "chat template": re.compile(r"chat_template.*|.*\.jinja"),
    "tokenizer": re.compile(
        r"(tokenizer|vocab|merges|special_tokens_map|added_tokens|spiece|sentencepiece).*"
        r"|.*\.(model|tiktoken)"
    ),
    "code": re.compile(r".*\.py"),
    "weights": re.compile(
        r".*\.(safetensors|bin|pt|pth|ckpt|gguf|h5|msgpack|npz|onnx)|.*\.index\.json"
    ),
}
"""The words by which messages call what has changed, and the names of these files."""

LARGE = 2**20
"""Size in bytes from which the checksum of a file is kept within this process."""

_checksums: dict[tuple, str] = {}


def parts(
    folder: Path, base: Callable[[str], Mapping[str, str]], *, code: bool = True
) -> dict[str, str]:
    """Fingerprints of the parts of a model folder: weights, tokenizer, chat template, …

    The folder's own path does not count; the paths of files inside it do. An adapter without a
    model of its own includes the model that it adapts.

    - `base`: the parts of the model with the path or id that an adapter names.
    - `code`: whether Python files of the folder count; they run only if remote code is trusted.
    """
    files: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name in sorted(_names(folder)):
        kind = _kind(name)
        if kind != "code" or code:
            files[kind].append((name, _content(folder / name)))
    own = {kind: storage.fingerprint(files[kind]) for kind in sorted(files)}
    if (folder / ADAPTER).exists() and not (folder / "config.json").exists():
        own["base model"] = storage.fingerprint(base(adapted(folder / ADAPTER)))
    return own


def adapted(file: Path) -> str:
    """The path or id of the model that an adapter's configuration names."""
    config = storage.read_json(file)
    name = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if not isinstance(name, str) or not name:
        raise DataError(
            f"{file} names no `base_model_name_or_path`, the model that it adapts. Add it, or "
            "merge the adapter into its model."
        )
    return name


def checksum(file: Path) -> str:
    """Checksum of a file. That of a large file is computed once in this process, and again if its
    inode, size or times differ."""
    state = file.stat()
    if state.st_size < LARGE:
        return storage.sha256(file)
    key = (
        os.path.realpath(file),
        state.st_ino,
        state.st_size,
        state.st_mtime_ns,
        state.st_ctime_ns,
    )
    if key not in _checksums:
        _checksums[key] = storage.sha256(file)
    return _checksums[key]


def _names(folder: Path) -> Iterator[str]:
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not IGNORED_FOLDERS.fullmatch(name)]
        for name in files:
            if not IGNORED_FILES.fullmatch(name) and (Path(root) / name).is_file():
                yield (Path(root) / name).relative_to(folder).as_posix()


def _kind(name: str) -> str:
    path = Path(name)
    if path.parts[0] == "additional_chat_templates":
        return "chat template"
    return next((k for k, names in KINDS.items() if names.fullmatch(path.name)), "other files")


def _content(file: Path) -> str:
    """Checksum of a file; an adapter's configuration without the path of its base, whose content
    counts instead."""
    if file.name == ADAPTER:
        config = storage.read_json(file)
        if isinstance(config, dict):
            return storage.fingerprint(config | {"base_model_name_or_path": None})
    return checksum(file)
