"""Damage to one file of a folder."""

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

FLIPS = 3
"""Number of positions at which a bit is flipped."""


@dataclass(frozen=True)
class Fault:
    """Damage to a file."""

    name: str
    do: Callable[[Path, str], None]
    """Called with the folder and the name of the file in it."""

    also: tuple[str, ...] = ()
    """Other files that it changes."""


def faults(path: Path, folder: Path, rng: random.Random) -> Iterator[Fault]:
    """The faults of one file."""
    size = path.stat().st_size
    for i in range(FLIPS if size else 0):
        at, bit = rng.randrange(size), 1 << rng.randrange(8)
        yield Fault(f"flip {i + 1}", partial(_flip, at, bit))
    if size:
        at = rng.randrange(size)
        yield Fault("truncate", lambda folder, name: os.truncate(folder / name, at))
    yield Fault("delete", lambda folder, name: (folder / name).unlink())
    for sibling in siblings(path, folder)[:1]:
        yield Fault(f"swap with {sibling}", partial(_swap, sibling), (sibling,))
    yield Fault("empty file", partial(_replace, Path.touch))
    yield Fault("folder", partial(_replace, Path.mkdir))
    yield Fault("pipe", partial(_replace, os.mkfifo))
    yield Fault("link to nothing", partial(_replace, lambda p: p.symlink_to("nowhere")))


def siblings(path: Path, folder: Path) -> list[str]:
    """Files of the same kind with other content: of the same name elsewhere, or of the same suffix
    in the same folder."""
    own = path.read_bytes()
    like = [*sorted(folder.rglob(path.name)), *sorted(path.parent.glob(f"*{path.suffix}"))]
    files = dict.fromkeys(p for p in like if p.is_file() and p != path)
    return [str(p.relative_to(folder)) for p in files if p.read_bytes() != own]


def _flip(at: int, bit: int, folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[at] ^= bit
    (folder / name).write_bytes(content)


def _swap(other: str, folder: Path, name: str) -> None:
    own, theirs = (folder / name).read_bytes(), (folder / other).read_bytes()
    (folder / name).write_bytes(theirs)
    (folder / other).write_bytes(own)


def _replace(make: Callable[[Path], object], folder: Path, name: str) -> None:
    (folder / name).unlink()
    make(folder / name)
