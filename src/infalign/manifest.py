"""The manifest of a folder: checksums of its files, and fingerprints of what each was made from."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from infalign import storage
from infalign._look import Shown
from infalign.errors import DataError

__all__ = ["Manifest", "Stage", "checksums", "require_as_written"]

FILE = "manifest.json"
SCHEMA_VERSION = 1
NEXT = "next"
"""In the entry of a file that is being replaced: the entry of the file that takes its place."""

_verified: set[tuple] = set()
"""Files that this process has verified: path, checksum, inode, size and time of modification."""


class Manifest:
    """The files of a folder that are read back, in `folder`/manifest.json.

    Every entry has the checksums of a file, or of all files of a folder, the stage that wrote it,
    and the fingerprints of what it was made from. A file that is not listed does not count as
    written: a kill between a file and its entry repeats that file. The manifest carries a checksum
    of its own. Only the holder of the folder's lock may write.

    - `folder`: the folder, which need not exist before the first entry.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self._known: tuple[tuple, dict[str, dict]] = ((), {})

    def __contains__(self, path: Path) -> bool:
        """Whether `path` is listed; it may be damaged or missing."""
        return self._name(path) in self._entries()

    def made_from(self, path: Path) -> Mapping[str, object] | None:
        """The fingerprints of what `path` was made from; None if it is not listed."""
        entry = self._entries().get(self._name(path))
        return None if entry is None else entry["made_from"]

    @contextmanager
    def recording(
        self, path: Path, *, stage: str, made_from: Mapping[str, object] | None = None
    ) -> Iterator[None]:
        """List `path`, a file or folder that the block writes, when the block ends without error.

        - `stage`: the stage that writes it, which errors tell to run again.
        - `made_from`: names and fingerprints of what it is made from, as JSON.
        """
        self.forget(path)
        yield
        entry = self._entry(path, stage, made_from)
        self._write({**self._entries(), self._name(path): entry})

    def replace(
        self,
        path: Path,
        write: Callable[[Path], None],
        *,
        stage: str,
        made_from: Mapping[str, object] | None = None,
    ) -> None:
        """Write the file `path` and list it. At every moment either the old or the new file is
        listed, so that a kill or a full disk loses neither.

        - `write`: a function that writes the file to the path that it gets.
        - `stage`, `made_from`: as for `recording`.
        """
        name = self._name(path)
        with storage.replacing(path) as temporary:
            write(temporary)
            entry = self._entry(temporary, stage, made_from)
            if name in self._entries():
                self._write({**self._entries(), name: {**self._entries()[name], NEXT: entry}})
        self._write({**self._entries(), name: entry})

    def restate(self, made_from: Mapping[Path, Mapping[str, object]]) -> None:
        """State anew what listed paths were made from."""
        entries = dict(self._entries())
        for path, own in made_from.items():
            name = self._name(path)
            entries[name] = {**entries[name], "made_from": storage.as_json(dict(own))}
        if made_from:
            self._write(entries)

    def forget(self, *paths: Path) -> None:
        """Remove entries; those that are not listed are ignored."""
        entries, names = self._entries(), {self._name(path) for path in paths}
        if names & entries.keys():
            self._write({name: entry for name, entry in entries.items() if name not in names})

    def require(self, path: Path) -> None:
        """Raise DataError unless `path` is what was written.

        Names the file that is missing, truncated, changed or foreign, and the stage to run again. A
        process reads a file once, and again only if its inode, size or time of modification differ.
        """
        entry = self._entries().get(self._name(path))
        if entry is None and not (self.folder / FILE).exists():
            raise DataError(
                f"{path} has no checksum, since {self.folder / FILE} does not exist: infalign "
                f"0.1.0 wrote none. Remove {path} and run its stage again, or use the version that "
                "wrote it."
            )
        if entry is None:
            raise DataError(
                f"{path} is not listed in {self.folder / FILE}: it was not finished, or comes from "
                "elsewhere. Remove it, and run its stage again."
            )
        for name, checksum in entry["sha256"].items():
            _verify(path / name if name else path, checksum, path, entry["stage"])
        foreign = sorted(_names(path) - entry["sha256"].keys()) if path.is_dir() else []
        if foreign:
            raise _damaged(path / foreign[0], path, "was not written by it", entry["stage"])

    def listed(self, folder: Path) -> list[Path]:
        """The paths below `folder` that are listed."""
        names = (self.folder / name for name in self._entries())
        return [path for path in names if path.is_relative_to(folder)]

    def _name(self, path: Path) -> str:
        return Path(path).relative_to(self.folder).as_posix()

    @staticmethod
    def _entry(path: Path, stage: str, made_from: Mapping[str, object] | None) -> dict:
        made = storage.as_json(dict(made_from or {}))
        return {"stage": stage, "made_from": made, "sha256": checksums(path)}

    def _entries(self) -> dict[str, dict]:
        path = self.folder / FILE
        if not path.exists():
            return {}
        # The file is only ever replaced by another: a table of hundreds of parts reads it once.
        state = path.stat()
        version = (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        if version == self._known[0]:
            return self._known[1]
        stored = storage.read_json(path)
        if not isinstance(stored, dict) or stored.get("sha256") != _own(stored.get("files")):
            raise DataError(
                f"{path} is not what was written: its checksum differs. Restore it, or remove it: "
                "the stages whose files it lists then run again."
            )
        if stored.get("schema_version") != SCHEMA_VERSION:
            raise DataError(
                f"{path} has schema_version {stored.get('schema_version')!r}; this version reads "
                f"{SCHEMA_VERSION}. Use the version of infalign that wrote it."
            )
        entries = {name: self._settled(name, entry) for name, entry in stored["files"].items()}
        self._known = version, entries
        return entries

    def _settled(self, name: str, entry: dict) -> dict:
        """The entry of the file that is there, if a kill came while it was being replaced."""
        if NEXT not in entry:
            return entry
        path, after = self.folder / name, entry[NEXT]
        if path.is_file() and checksums(path) == after["sha256"]:
            return after
        return {key: value for key, value in entry.items() if key != NEXT}

    def _write(self, entries: Mapping[str, dict]) -> None:
        files = dict(sorted(entries.items()))
        stored = {"schema_version": SCHEMA_VERSION, "sha256": _own(files), "files": files}
        storage.write_json(self.folder / FILE, stored)


@dataclass(frozen=True)
class Stage(Shown):
    """What one stage of a run writes, and what it makes it from."""

    manifest: Manifest
    name: str
    """The stage's command, which errors tell to run again."""

    made_from: Mapping[str, object]
    """Names and fingerprints of its inputs, as JSON."""

    def recording(self, path: Path) -> AbstractContextManager[None]:
        """List `path`, which the block writes."""
        return self.manifest.recording(path, stage=self.name, made_from=self.made_from)

    def is_current(self, path: Path) -> bool:
        """Whether `path` exists and was made from the same inputs; it may be damaged."""
        return os.path.lexists(path) and self.manifest.made_from(path) == storage.as_json(
            dict(self.made_from)
        )

    def has(self, path: Path) -> bool:
        """Whether `path` is finished. A path that was removed is not, and is made again.

        Raises DataError if it was made from other inputs, and as `Manifest.require` does.
        """
        made_from = self.manifest.made_from(path)
        if made_from is None or not os.path.lexists(path):
            return False
        storage.require_same(
            made_from,
            self.made_from,
            f"{path} was made from other inputs:",
            f"Restore them, or remove {path} and run `{self.name}` again.",
            error=DataError,
        )
        self.manifest.require(path)
        return True

    def forget_removed(self, folder: Path) -> None:
        """Remove the entries of paths below `folder` that do not exist any more."""
        gone = [path for path in self.manifest.listed(folder) if not os.path.lexists(path)]
        self.manifest.forget(*gone)


def require_as_written(path: Path) -> None:
    """Raise DataError if a folder above `path` lists it and it is not what was written.

    For files and folders of a run that are read by their own path, such as a trained model. Paths
    that no folder lists pass: nothing is known of them.
    """
    path = Path(path).absolute()
    for folder in path.parents:
        if not _is_manifest(folder / FILE):
            continue
        manifest = Manifest(folder)
        for part in (path, *path.parents):
            if part == folder:
                break
            if part in manifest:
                manifest.require(part)


def _is_manifest(path: Path) -> bool:
    """Whether a file is a manifest of this kind; other tools use the name too."""
    try:
        stored = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(stored, dict) and {"schema_version", "sha256", "files"} <= stored.keys()


def checksums(path: Path) -> dict[str, str]:
    """Relative name → checksum of every file of a folder; of a single file, with the name ""."""
    if path.is_dir():
        return {name: storage.sha256(path / name) for name in sorted(_names(path))}
    return {"": storage.sha256(path)}


def _names(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}


def _own(files: object) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _verify(file: Path, checksum: str, path: Path, stage: str) -> None:
    if not file.is_file():
        wrong = "is missing" if not os.path.lexists(file) else "is not a file"
        raise _damaged(file, path, wrong, stage)
    state = file.stat()
    known = (file.absolute(), checksum, state.st_ino, state.st_size, state.st_mtime_ns)
    if known in _verified:
        return
    if storage.sha256(file) != checksum:
        raise _damaged(file, path, "is not what was written: its checksum differs", stage)
    _verified.add(known)


def _damaged(file: Path, path: Path, wrong: str, stage: str) -> DataError:
    return DataError(f"{file} {wrong}. Restore it, or remove {path} and run `{stage}` again.")
