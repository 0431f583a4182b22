"""Merging of calibration stores, a shard at a time."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from infalign import storage
from infalign.errors import DataError

from . import prompt_sets
from .folders import new_folder
from .ids import stored_ids
from .manifest import (
    held,
    new_manifest,
    read_manifest,
    require_finished,
    write_manifest,
)
from .shards import open_rewards, read_schema, sample_groups, write_rewards, write_samples
from .writer import LARGEST, blocks_of, widest

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["merge"]

PROMPTS = "prompts"
"""The entry of the provenance that may differ: the fingerprint of the prompts."""

Source = tuple[Path, dict]
"""A store's folder and its manifest, or one of its shards."""


def merge(stores: Sequence[Path | str], out: Path | str) -> None:
    """Write several finished stores, which share no prompts, into a new store, `out`.

    The stores must have the same provenance, except for `prompts`, which becomes the fingerprint of
    all prompts (`prompt_sets.union`). Samples are merged if every store has them. The prompts of
    the first store come first, in their order, then those of the second. Every byte is verified as
    it is read.

    Like an open store, it needs memory for one shard and for all prompt ids. A kill at any moment
    leaves nothing at `out`.

    Raises DataError for stores that are unfinished or damaged, have different provenance or share
    prompts, and if `out` exists.
    """
    if len(stores) < 2:
        raise ValueError(f"`stores` must be two or more; got {len(stores)}.")
    sources = [(Path(path), read_manifest(Path(path))) for path in stores]
    for path, manifest in sources:
        require_finished(path, manifest)
    provenance = _common_provenance(sources)
    with_samples = _have_samples(sources)
    _require_disjoint(sources)
    with new_folder(Path(out)) as folder:
        manifest = new_manifest(provenance, sum(held(own) for _, own in sources))
        files: dict[str, list[dict]] = {"rewards": [], "samples": []}
        for kind, write in (("rewards", _write_rewards), ("samples", _write_samples)):
            groups = _groups(sources, kind) if kind == "rewards" or with_samples else ()
            for group in groups:
                number = len(files["rewards"]) + len(files["samples"])
                shard = write(folder / f"{kind}-{number:05d}.parquet", group)
                age = max(part["merged"] for _, part in group) + (len(group) > 1)
                files[kind].append(shard | {"merged": age})
        counted = {
            "adds": sum(own["adds"] for _, own in sources),
            "next": len(files["rewards"]) + len(files["samples"]),
        }
        write_manifest(folder, manifest | files | counted)


def _common_provenance(sources: Sequence[Source]) -> dict:
    """The common provenance, with the fingerprint of all prompts."""
    made_with = [dict(manifest["provenance"]) for _, manifest in sources]
    sets = [own[PROMPTS] for own in made_with if isinstance(own.get(PROMPTS), str)]
    if len(sets) == len(made_with):
        for own in made_with:
            own[PROMPTS] = prompt_sets.union(sets)
    first, *others = made_with
    different = [
        f"{path} has {'; '.join(differing)}"
        for (path, _), own in zip(sources[1:], others, strict=True)
        if (differing := storage.differences(own, first))
    ]
    if different:
        raise DataError(
            f"Stores to be merged must have the same provenance; compared with {sources[0][0]}, "
            f"{'. '.join(different)}. Collect the stores that differ again, or leave them out."
        )
    return first


def _have_samples(sources: Sequence[Source]) -> bool:
    """Whether all stores have samples; DataError if their columns differ."""
    if not all(manifest["samples"] for _, manifest in sources):
        return False
    first, *others = (read_schema(path, manifest["samples"][0]) for path, manifest in sources)
    for (path, _), schema in zip(sources[1:], others, strict=True):
        if schema != first:
            raise DataError(
                f"{path} keeps samples with the columns {_columns(schema)}, {sources[0][0]} with "
                f"{_columns(first)}. Collect one of them again."
            )
    return True


def _columns(schema: "pa.Schema") -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def _require_disjoint(sources: Sequence[Source]) -> None:
    """Raise DataError if two stores share a prompt."""
    import pyarrow as pa

    ids = [_ids(source) for source in sources]
    try:
        stored_ids(pa.concat_arrays(ids))
    except DataError:
        pass
    else:
        return
    where: dict[str, Path] = {}
    twice = []
    for (path, _), own in zip(sources, ids, strict=True):
        for prompt_id in own.to_pylist():
            if prompt_id in where:
                twice.append((prompt_id, where[prompt_id], path))
            where.setdefault(prompt_id, path)
    prompt_id, first, second = twice[0]
    raise DataError(
        f"prompt_id {prompt_id!r} is in {first} and in {second} ({len(twice)} such prompts). "
        "Stores to be merged must have no prompt in common: leave one of them out."
    )


def _ids(source: Source) -> "pa.Array":
    import pyarrow as pa

    path, manifest = source
    return pa.concat_arrays([open_rewards(path, shard)[0] for shard in manifest["rewards"]])


def _groups(sources: Sequence[Source], kind: str) -> Iterator[list[Source]]:
    """Shards of all stores, in order, in groups that fit into one shard."""
    group: list[Source] = []
    for path, manifest in sources:
        for shard in manifest[kind]:
            if group and sum(s["bytes"] for _, s in group) + shard["bytes"] > LARGEST:
                yield group
                group = []
            group.append((path, shard))
    yield group


def _write_rewards(file: Path, group: list[Source]) -> dict:
    blocks = chain.from_iterable(blocks_of(path, [shard]) for path, shard in group)
    return write_rewards(file, blocks, widest([shard for _, shard in group]))


def _write_samples(file: Path, group: list[Source]) -> dict:
    return write_samples(
        file, chain.from_iterable(sample_groups(path, shard) for path, shard in group)
    )
