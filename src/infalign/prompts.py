"""Prompts, from JSON Lines or from a data set of the hub."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .config import Prompts
from .demo import bundled
from .errors import DataError, MissingExtraError
from .stores import prompt_sets


@dataclass(frozen=True)
class Prompt:
    """One prompt with the name that its rewards are filed under."""

    id: str
    messages: tuple[dict, ...]
    """The conversation so far as chat messages, ending with the user's."""

    @property
    def text(self) -> str:
        """The last message."""
        return self.messages[-1]["content"]


def fingerprint(prompts: Iterable[Prompt]) -> str:
    """Fingerprint of a set of prompts: their ids and messages, in any order.

    That of a union follows from those of its parts, so a store merged from several has the
    fingerprint of all its prompts. Whoever relies on it joins rows to prompts by id.
    """
    return prompt_sets.of_members((p.id, p.messages) for p in prompts)


def load_prompts(source: Prompts) -> list[Prompt]:
    """The prompts of one source.

    Raises DataError for a missing or empty source, a line that is not JSON, a prompt that is not
    text or messages, and ids that repeat.
    """
    name, rows = _file_rows(source) if source.file else _hub_rows(source)
    rows = [(i, row) for i, row in rows if row.get("split", source.split) == source.split]
    rows = rows[: source.limit]
    if not rows:
        raise DataError(f"{name} holds no prompts with split {source.split!r}.")
    prompts = [_prompt(name, i, row, source.column) for i, row in rows]
    ids = [p.id for p in prompts]
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise DataError(
            f"{name} has prompt_id {twice!r} more than once ({len(ids) - len(set(ids))} of "
            f"{len(ids)} ids repeat). Every prompt needs an id of its own."
        )
    return prompts


def _file_rows(source):
    path = bundled(source.file, "prompts") or Path(source.file)
    if not path.is_file():
        raise DataError(f"Prompts file {path} does not exist.")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: not a JSON object: {line[:60]!r}.")
        rows.append((number, row))
    return str(source.file), rows


def _hub_rows(source):
    try:
        import datasets
    except ImportError:
        raise MissingExtraError(
            'Reading a data set needs `datasets`. Install it with: pip install "infalign[train]"'
        ) from None
    name = "/".join(filter(None, (source.dataset, source.config)))
    try:
        # Anthropic/hh-rlhf keeps its parts in folders, most others in configurations.
        configs = datasets.get_dataset_config_names(source.dataset)
        part = {"name": source.config} if source.config in configs else {"data_dir": source.config}
        data = datasets.load_dataset(source.dataset, **part, split=source.split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"Data set {name!r}, split {source.split!r}, cannot be read: "
            f"{str(error).splitlines()[0]} Check `prompts.dataset`, `config` and `split`."
        ) from error
    if source.limit:
        data = data.select(range(min(source.limit, len(data))))
    return name, [(i, {**row, "split": source.split}) for i, row in enumerate(data)]


def _prompt(name, number, row, column) -> Prompt:
    value = row.get(column)
    if value is None and isinstance(row.get("chosen"), str):
        value = _open_transcript(row["chosen"])  # preference pairs carry the prompt inside
    if isinstance(value, str) and value.strip():
        messages = [{"role": "user", "content": value.strip()}]
    elif isinstance(value, list) and value and all({"role", "content"} <= set(m) for m in value):
        messages = [{"role": m["role"], "content": m["content"]} for m in value]
    else:
        raise DataError(
            f"{name}, row {number}: `{column}` must be a text or a list of messages with role and "
            f"content; got {str(value)[:60]!r}. Its columns are {sorted(row)}; "
            "name another one with `prompts.column`."
        )
    # A data set whose other split has ids fills those of this one with None.
    own = row.get("prompt_id")
    return Prompt(f"{Path(name).stem}-{number}" if own is None else str(own), tuple(messages))


def _open_transcript(text: str) -> list[dict] | None:
    """The messages before the last reply of a `\\n\\nHuman: … \\n\\nAssistant: …` transcript."""
    parts = re.split(r"\n\n(Human|Assistant): ?", text)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = [
        {"role": roles[role], "content": content.strip()}
        for role, content in zip(parts[::2], parts[1::2], strict=True)
    ]
    return turns[:-1] if len(turns) > 1 else None
