"""Attempts of an attack on disk, in shards: a killed collection repeats the last one at most.

Each attack has a folder of its own below the run's: `manifest.json` states its settings and lists
`attempts-*.parquet` with their checksums.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from infalign import storage
from infalign.errors import ConfigError, DataError
from infalign.prompts import Prompt

from .attack import Attempts

SCHEMA_VERSION = 1
SHARD = 512
"""Attempts in a shard, about."""


def collect(
    folder: Path,
    settings: Mapping[str, object],
    prompts: Sequence[Prompt],
    attempts: int,
    draw: Callable[[Sequence[Prompt], int], Attempts],
    report: Callable[[int, int], None],
) -> np.ndarray:
    """Which attempts succeeded, shape (prompts, attempts); what is on disk is not drawn again.

    - `settings`: whatever the attempts depend on, as JSON.
    - `draw`: the attempts on some prompts, given them and the number of their shard.
    - `report`: progress, in prompts.

    Raises ConfigError when the folder was filled with other settings, DataError when a file is
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
    parts = [prompts[i : i + size] for i in range(0, len(prompts), size)]
    report(min(size * len(manifest["shards"]), len(prompts)), len(prompts))
    successes = [_read(folder, shard) for shard in manifest["shards"]]
    for number in range(len(successes), len(parts)):
        found = draw(parts[number], number)
        name = f"attempts-{number:05d}.parquet"
        storage.write_table(folder / name, _table(parts[number], found))
        shard = {"file": name, "sha256": storage.sha256(folder / name)}
        manifest["shards"].append(shard)
        storage.write_json(path, manifest)
        successes.append(found.successes)
        report(min(size * (number + 1), len(prompts)), len(prompts))
    return np.concatenate([s.reshape(-1, attempts) for s in successes])


def _require_same(folder, manifest, stated) -> None:
    found = {k: v for k, v in manifest.items() if k != "shards"}
    if found == stated:
        return
    before, now = found.get("settings", {}), stated["settings"]
    differing = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
    raise ConfigError(
        f"{folder} holds attempts with other settings: {', '.join(differing) or 'schema'} "
        "differ. Choose another folder, or restore them."
    )


def _table(prompts, found: Attempts):
    import pyarrow as pa

    attempts = found.successes.shape[1]
    return pa.table(
        {
            "prompt_id": [p.id for p in prompts for _ in range(attempts)],
            "attempt": list(range(attempts)) * len(prompts),
            "prompt": [text for row in found.asked for text in row],
            "completion": [text for row in found.completions for text in row],
            "reward": pa.array(found.rewards.ravel(), from_pandas=True),  # nan becomes null
            "success": found.successes.ravel(),
        }
    )


def _read(folder, shard) -> np.ndarray:
    file = folder / shard["file"]
    if not file.exists() or storage.sha256(file) != shard["sha256"]:
        raise DataError(
            f"{file} is missing or not the file that was written. Remove {folder} and begin anew."
        )
    return storage.read_table(file)["success"].to_numpy()
