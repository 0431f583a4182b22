"""Every file of a finished or interrupted folder: damaged, lost, swapped, or another kind of thing.

The commands that read the folder must name the file, or end with the results of the whole folder.
"""

import random
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

from .damage import Fault, faults
from .folders import SUBJECTS, Reader
from .outcomes import Case, Verdict, Wanted, judge
from .world import World


def cases(world: World, rng: random.Random, wanted: Wanted) -> Iterator[Case]:
    """Every file × fault × command that may read it."""
    for subject in SUBJECTS:
        if not wanted(subject.name):
            continue
        folder = subject.make(world)
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            name = str(path.relative_to(folder))
            for fault in faults(path, folder, rng):
                for reader in subject.readers:
                    if reader.reads(name):
                        try_ = partial(_try, world, folder, name, fault, reader)
                        case = f"{subject.name}: {name}, {fault.name}, {reader.name}"
                        yield Case(subject.name, case, try_)


def _try(
    world: World, folder: Path, name: str, fault: Fault, reader: Reader, scratch: Path
) -> Verdict:
    expected = _expected(world, folder, reader)
    copy = scratch / "copy"
    shutil.copytree(folder, copy)
    fault.do(copy, name)
    ended = reader.run(world, copy, scratch)
    damaged = [f"FOLDER/{own}" for own in (name, *fault.also)]

    def same() -> bool:
        result = reader.result(ended, copy, scratch)
        return all(result.get(k) == expected.get(k) for k in result | expected if k not in damaged)

    damaged_names = [name, *fault.also]
    places = [place for own in damaged_names for place in (own, Path(own).parent, Path(own).name)]
    return judge(ended, same, names=[str(place) for place in places if str(place) != "."])


@cache
def _expected(world: World, folder: Path, reader: Reader) -> dict[str, object]:
    """The result of a reader on the whole folder."""
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        scratch = Path(name).resolve()
        shutil.copytree(folder, scratch / "copy")
        ended = reader.run(world, scratch / "copy", scratch)
        assert ended.code == 0, f"{reader.name} of {folder}: {ended.stderr}"
        return reader.result(ended, scratch / "copy", scratch)
