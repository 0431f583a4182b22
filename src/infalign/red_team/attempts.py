"""Attempts of an attack on disk, in shards: a killed collection repeats at most one shard.

Each attack has a folder of its own below the run's: `manifest.json` states its settings and lists
`attempts-*.parquet` with their checksums.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from infalign import storage
from infalign.errors import DataError
from infalign.prompts import Prompt
from infalign.shaping import constant
from infalign.stores import by_prompt

from .attack import Attempts

if TYPE_CHECKING:
    import pyarrow as pa

LOG = logging.getLogger(__name__)
SCHEMA_VERSION = 1
SHARD = 512
"""Approximate number of attempts in a shard."""


def collect(
    folder: Path,
    settings: Mapping[str, object],
    prompts: Sequence[Prompt],
    attempts: int,
    draw: Callable[[Sequence[Prompt], int], Attempts],
    report: Callable[[int, int], None],
) -> np.ndarray:
    """Which attempts succeeded, shape (prompts, attempts); stored attempts are not redrawn.

    - `settings`: all settings that the attempts depend on, as JSON.
    - `draw`: a function from prompts and the number of their shard to the attempts on these
      prompts.
    - `report`: called with the number of prompts done and the total.

    Raises ConfigError if the folder holds attempts with other settings, and DataError if a file is
    damaged.
    """
    stated = {"schema_version": SCHEMA_VERSION, "settings": storage.as_json(dict(settings))}
    path = folder / "manifest.json"
    manifest = {**stated, "shards": []}
    if path.exists():
        manifest = storage.read_json(path)
        _require_same(folder, manifest, stated)
    storage.sweep(folder)
    size = max(1, SHARD // attempts)
    tables = [_read(folder, shard) for shard in manifest["shards"]]
    known = {prompt_id for table in tables for prompt_id in table["prompt_id"].to_pylist()}
    missing = [prompt for prompt in prompts if prompt.id not in known]
    report(len(known), len(prompts))
    for start in range(0, len(missing), size):
        part, number = missing[start : start + size], len(tables)
        tables.append(_table(part, draw(part, number)))
        name = f"attempts-{number:05d}.parquet"
        storage.write_table(folder / name, tables[-1])
        shard = {"file": name, "sha256": storage.sha256(folder / name)}
        manifest["shards"].append(shard)
        storage.write_json(path, manifest)
        report(len(known) + start + len(part), len(prompts))
    rewards, texts = (
        [value for table in tables for value in table[column].to_pylist()]
        for column in ("reward", "completion")
    )
    warning = constant("of harmlessness", [np.nan if r is None else r for r in rewards], texts)
    if warning is not None:
        LOG.warning(warning)
    joined = by_prompt(_joined(tables), [p.id for p in prompts], source=str(folder))
    return joined.matrix("success") == 1


def _require_same(folder: Path, manifest: Mapping, stated: Mapping) -> None:
    storage.require_same(
        {"schema_version": manifest["schema_version"], **manifest["settings"]},
        {"schema_version": stated["schema_version"], **stated["settings"]},
        f"{folder} holds attempts with other settings:",
        "Choose another folder, or restore them.",
    )


def _table(prompts: Sequence[Prompt], made: Attempts) -> "pa.Table":
    import pyarrow as pa

    attempts = made.successes.shape[1]
    return pa.table(
        {
            "prompt_id": [p.id for p in prompts for _ in range(attempts)],
            "attempt": list(range(attempts)) * len(prompts),
            "prompt": [text for row in made.asked for text in row],
            "completion": [text for row in made.completions for text in row],
            "reward": pa.array(made.rewards.ravel(), from_pandas=True),  # nan becomes null
            "success": made.successes.ravel(),
        }
    )


def _read(folder: Path, shard: Mapping) -> "pa.Table":
    file = folder / shard["file"]
    if not file.exists() or storage.sha256(file) != shard["sha256"]:
        raise DataError(
            f"{file} is missing or not the file that was written. Remove {folder} and start again."
        )
    return storage.read_table(file)


def _joined(tables: Sequence["pa.Table"]) -> "pa.Table":
    import pyarrow as pa

    return pa.concat_tables([t.select(["prompt_id", "success"]) for t in tables])
