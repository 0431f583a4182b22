"""Reference samples of all prompts into a calibration store; what is there is not drawn again."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infalign import _check
from infalign.prompts import Prompt, fingerprint
from infalign.stores import StoreWriter
from infalign.stores.manifest import NAME as MANIFEST
from infalign.stores.manifest import held, new_manifest, read_manifest

from .answers import Engine

if TYPE_CHECKING:
    import pyarrow as pa

RESPONSES = 1024
"""Responses in a shard, about: what a kill costs at most."""


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

    Shards are written in the order of the prompts, each whole. Killed at any moment, the same call
    continues with the first shard that is missing and ends with the store that an uninterrupted
    one gives.

    - `engine`: `Local` or `OnRay`, with what loads policy and reward; neither is loaded if nothing
      is missing.
    - `provenance`: fingerprints of model, reward, prompts and sampling, for
      `CalibrationStore.require`; prompts, samples and seed are added.
    - `responses`: responses in a shard, about; whole prompts, at least one.
    - `report`: called with how many prompts are done, and how many there are.

    Raises DataError when the folder was collected with other settings, or what samples or scores
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
    if _is_there(folder, stated, len(prompts)):
        report(len(prompts), len(prompts))
        return
    with StoreWriter(folder, stated, len(prompts)) as writer:
        missing = [p for p in prompts if p.id not in writer]
        report(writer.prompts, len(prompts))
        shards = [missing[i : i + size] for i in range(0, len(missing), size)]
        for part, table in zip(shards, engine.answers(shards, samples, seed), strict=True):
            _add(writer, part, table, samples)
            report(writer.prompts, len(prompts))


def _is_there(folder: Path, stated: Mapping[str, object], prompts: int) -> bool:
    """Whether the whole store is: nothing in it is touched then, not even its lock."""
    if not (folder / MANIFEST).exists():
        return False
    found, wanted = read_manifest(folder), new_manifest(stated, prompts)
    settings = ("provenance", "prompts")
    return held(found) == prompts and all(found[k] == wanted[k] for k in settings)


def _add(writer: StoreWriter, part: Sequence[Prompt], table: "pa.Table", samples: int) -> None:
    texts = table["completion"].to_pylist()
    writer.add(
        [p.id for p in part],
        [texts[i : i + samples] for i in range(0, len(texts), samples)],
        table["reward"].to_numpy().reshape(len(part), samples),
        {name: table[name] for name in ("tokens", "logprob")},
    )
