"""Prompts, from JSON Lines or from a dataset on the Hugging Face Hub."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .config import Prompts
from .demo import bundled
from .errors import DataError, MissingExtraError
from .stores import prompt_sets

Rows = Sequence[tuple[int, dict]]
"""Row number in the source, and the row's columns."""


@dataclass(frozen=True)
class Prompt:
    """A prompt, and the id under which its samples and rewards are stored."""

    id: str
    messages: tuple[dict, ...]
    """The conversation so far, as chat messages; the last is the user's."""

    @property
    def text(self) -> str:
        """The last message."""
        return self.messages[-1]["content"]


def fingerprint(prompts: Iterable[Prompt]) -> str:
    """Fingerprint of a set of prompts: their ids and messages, in any order.

    The fingerprint of a union follows from those of its parts, so a merged store has the
    fingerprint of all its prompts. Join rows to prompts by id, since their order may differ.
    """
    return prompt_sets.of_members((p.id, p.messages) for p in prompts)


def load_prompts(source: Prompts) -> list[Prompt]:
    """The prompts of one source.

    Raises DataError for a missing or empty source, a line that is not JSON, a prompt that is
    neither a string nor a list of messages, and duplicate ids.
    """
    name, rows = _file_rows(str(source.file)) if source.file else _hub_rows(source)
    rows = [(i, row) for i, row in rows if row.get("split", source.split) == source.split]
    rows = rows[: source.limit]
    if not rows:
        raise DataError(f"{name} holds no prompts with split {source.split!r}.")
    prompts = [_prompt(name, i, row, source.column) for i, row in rows]
    ids = [p.id for p in prompts]
    if len(set(ids)) < len(ids):
        duplicate = next(i for i, count in Counter(ids).items() if count > 1)
        raise DataError(
            f"{name} has prompt_id {duplicate!r} more than once ({len(ids) - len(set(ids))} of "
            f"{len(ids)} ids are duplicates). Give every prompt an id of its own."
        )
    return prompts


def _file_rows(file: str) -> tuple[str, Rows]:
    path = bundled(file, "prompts") or Path(file)
    if not path.is_file():
        raise DataError(f"Prompts file {path} does not exist.")
    rows: list[tuple[int, dict]] = []
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
    return file, rows


def _hub_rows(source: Prompts) -> tuple[str, Rows]:
    try:
        import datasets
    except ImportError:
        raise MissingExtraError(
            'Reading a data set needs `datasets`. Install it with: pip install "infalign[train]"'
        ) from None
    name = "/".join(filter(None, (source.dataset, source.config)))
    try:
        # Anthropic/hh-rlhf stores its parts in folders; most other datasets use configurations.
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


def _prompt(name: str, number: int, row: dict, column: str) -> Prompt:
    value = row.get(column)
    if value is None and isinstance(row.get("chosen"), str):
        value = _open_transcript(row["chosen"])  # preference pairs contain the prompt
    if isinstance(value, str) and value.strip():
        messages = [{"role": "user", "content": value}]
    elif isinstance(value, list) and value and all({"role", "content"} <= set(m) for m in value):
        messages = [{"role": m["role"], "content": m["content"]} for m in value]
    else:
        raise DataError(
            f"{name}, row {number}: `{column}` must be a string or a list of messages with role "
            f"and content; got {str(value)[:60]!r}. Its columns are {sorted(row)}; "
            "name another one with `prompts.column`."
        )
    # If another split of a data set has ids, those of this split are None.
    own = row.get("prompt_id")
    return Prompt(f"{Path(name).stem}-{number}" if own is None else str(own), tuple(messages))


def _open_transcript(text: str) -> list[dict] | None:
    """The messages before the last reply of a `\\n\\nHuman: … \\n\\nAssistant: …` transcript."""
    parts = re.split(r"\n\n(Human|Assistant): ?", text)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = [
        {"role": roles[role], "content": content}
        for role, content in zip(parts[::2], parts[1::2], strict=True)
    ]
    return turns[:-1] if len(turns) > 1 else None
