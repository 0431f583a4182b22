"""Collection of reference samples into a calibration store; stored samples are not redrawn."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infalign import _check, _progress
from infalign.prompts import Prompt, fingerprint
from infalign.stores import StoreWriter
from infalign.stores.manifest import NAME as MANIFEST
from infalign.stores.manifest import held, new_manifest, read_manifest

from .answers import Engine

if TYPE_CHECKING:
    import pyarrow as pa

RESPONSES = 1024
"""Approximate number of responses in a shard, which is the most that a kill can lose."""


def collect(
    prompts: Sequence[Prompt],
    engine: Engine,
    samples: int,
    folder: Path,
    *,
    seed: int,
    provenance: Mapping[str, object] | None = None,
    responses: int = RESPONSES,
    report: Callable[[int, int], None] | None = None,
) -> None:
    """Draw and score `samples` reference samples of each prompt into the store in `folder`.

    Shards are written whole, in the order of the prompts. After a kill at any moment, the same call
    continues with the first missing prompt, and the final store equals that of an uninterrupted
    collection.

    - `engine`: `Local` or `OnRay`. It loads policy and reward only if prompts are missing.
    - `provenance`: fingerprints of model, reward, prompts and sampling for
      `CalibrationStore.require`; prompts, samples and seed are added.
    - `responses`: approximate number of responses in a shard; a shard has at least one prompt.
    - `report`: called with the number of prompts done and the total.

    Raises DataError for a folder that was collected with other settings, and if sampling or scoring
    fails.
    """
    size = max(1, _check.count("responses", responses) // _check.count("samples", samples))
    stated = {
        "prompts": fingerprint(prompts),
        "samples": samples,
        "seed": seed,
        **(provenance or {}),
    }
    report = report or (lambda done, total: None)
    if _is_complete(folder, stated, len(prompts)):
        report(len(prompts), len(prompts))
        return
    with StoreWriter(folder, stated, len(prompts)) as writer:
        missing = [p for p in prompts if p.id not in writer]
        report(writer.prompts, len(prompts))
        shards = [missing[i : i + size] for i in range(0, len(missing), size)]
        tables = engine.answers(shards, samples, seed)
        for part in shards:
            with _progress.part(writer.prompts, writer.prompts + len(part), len(prompts)):
                table = next(tables)
            _add(writer, part, table, samples)
            report(writer.prompts, len(prompts))
        assert next(tables, None) is None  # the engine ends, too


def _is_complete(folder: Path, stated: Mapping[str, object], prompts: int) -> bool:
    """Whether the store is complete. A complete store is not touched, not even its lock."""
    if not (folder / MANIFEST).exists():
        return False
    stored, wanted = read_manifest(folder), new_manifest(stated, prompts)
    settings = ("provenance", "prompts")
    return held(stored) == prompts and all(stored[k] == wanted[k] for k in settings)


def _add(writer: StoreWriter, part: Sequence[Prompt], table: "pa.Table", samples: int) -> None:
    texts = table["completion"].to_pylist()
    writer.add(
        [p.id for p in part],
        [texts[i : i + samples] for i in range(0, len(texts), samples)],
        table["reward"].to_numpy().reshape(len(part), samples),
        {name: table[name] for name in ("tokens", "logprob")},
    )
