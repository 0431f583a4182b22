"""The history of a run: what was made from other inputs stays, beside what is made now.

The first result of a stage has the stage's plain name, such as `train/rloo`; those of other inputs
are numbered, `train/rloo-2`. `current.json` names the ones that the run's configuration uses.
"""

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from infalign import storage
from infalign.manifest import Manifest, Stage
from infalign.stores.resumable import Origin

__all__ = [
    "Place",
    "last_number",
    "numbered",
    "place",
    "places",
    "read_current",
    "stated_at",
    "write_current",
]

CURRENT = "current.json"


def numbered(path: Path, number: int) -> Path:
    """The `number`-th place of a result.

    >>> numbered(Path("design.json"), 1).name, numbered(Path("design.json"), 2).name
    ('design.json', 'design-2.json')
    """
    return path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")


def places(path: Path, others: Collection[str] = ()) -> Iterator[Path]:
    """All places of a result, `path` first; those after the last that exists too.

    - `others`: names that belong to something else.
    """
    number = 1
    while True:
        place = numbered(path, number)
        if number == 1 or place.name not in others:
            yield place
        number += 1


def last_number(path: Path, names: Collection[str]) -> int:
    """The largest number among names of places; 0 if there is none.

    >>> last_number(Path("train/rloo"), ["rloo", "rloo-3", "rloo-x", "group-7"])
    3
    """
    form = re.compile(rf"{re.escape(path.stem)}(?:-([2-9]|[1-9]\d+))?{re.escape(path.suffix)}")
    matches = [form.fullmatch(name) for name in names]
    return max((int(own[1] or 1) for own in matches if own), default=0)


@dataclass(frozen=True)
class Place:
    """Where a result is, or where it will be made."""

    path: Path
    begun: bool
    """Whether something that was made from the same inputs is listed there."""

    former: Path | None = None
    """The latest result that was made from other inputs; None if there is none."""


def place(
    stage: Stage,
    path: Path,
    others: Collection[str] = (),
    read: Callable[[Mapping], Mapping] = dict,
) -> Place:
    """The place of a stage's result: the one that was made from its inputs, or the first free one.

    - `path`: the first place, a file or a folder below that of the manifest.
    - `others`: names beside it that belong to something else.
    - `read`: the part that counts of what a result was made from.
    """
    manifest, wanted = stage.manifest, storage.as_json(dict(stage.made_from))
    folder = path.parent
    listed = {p.relative_to(folder).parts[0] for p in manifest.listed(folder) if p != folder}
    there = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
    last = last_number(path, listed | there)
    free, former = None, None
    for own, number in zip(places(path, others), range(last + 1), strict=False):
        del number
        entries, stated = manifest.listed(own), stated_at(manifest, own)
        if stated and all(read(made_from) == wanted for made_from in stated):
            return Place(own, True, former)
        if any(os.path.lexists(entry) for entry in entries):
            former = own
        elif free is None:
            free = own
    assert free is not None, "one place more than there are is free"
    return Place(free, False, former)


def stated_at(manifest: Manifest, own: Path) -> list[Mapping]:
    """What the results at a place were made from, without their tables: these state where each of
    their columns comes from."""
    every = (manifest.made_from(entry) or {} for entry in manifest.listed(own))
    return [made_from for made_from in every if not Origin.is_stated(made_from)]


def read_current(manifest: Manifest) -> dict:
    """The names of the results in use; empty before the first."""
    path = manifest.folder / CURRENT
    if path not in manifest or not path.exists():
        return {}
    manifest.require(path)
    return storage.read_json(path)


def write_current(manifest: Manifest, stage: str, key: str, value: object) -> None:
    """Name the result in use of a stage or, with a dotted key, of a part of it."""
    current = read_current(manifest)
    before = storage.fingerprint(current)
    section, dot, name = key.partition(".")
    if dot:
        current[section] = {**current.get(section, {}), name: value}
    else:
        current[section] = value
    if storage.fingerprint(current) != before:
        with manifest.recording(manifest.folder / CURRENT, stage=stage):
            storage.write_json(manifest.folder / CURRENT, current)
