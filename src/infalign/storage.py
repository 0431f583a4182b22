"""Files that are either whole or absent, their checksums, folders with one writer at a time, and
settings that must not change.

A file is written under a temporary name, synced, and renamed into place.
"""

import errno
import hashlib
import json
import os
import platform
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import disk
from .disk import LEFT, UNFINISHED
from .errors import ConfigError, DataError, InfalignError

if TYPE_CHECKING:
    import pyarrow as pa  # imported where it is needed: it takes 0.17 s

__all__ = [
    "as_json",
    "differences",
    "fingerprint",
    "json_line",
    "lock",
    "locked",
    "parts_of",
    "read_json",
    "read_table",
    "replacing",
    "require_same",
    "require_writable",
    "save_table",
    "sha256",
    "sweep",
    "sync_folder",
    "unfinished_name",
    "write_json",
    "write_table",
    "write_text",
]

LOCK = ".lock"
"""Name of the file by which a process holds a folder."""


def lock(folder: Path) -> int:
    """Lock the folder for writing. Returns a file descriptor that holds the lock until it is
    closed.

    The operating system releases the lock when the process ends, however it ends; a leftover lock
    file does not block anyone. Raises DataError at once if another writer has the lock, and if the
    folder cannot be locked.
    """
    file = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            # A link could lead to any file, which the last lines would overwrite. Opening a pipe
            # without O_NONBLOCK would wait for its other end.
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(file, flags, 0o666)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise _no_lock_file(file)
                if not _hold(descriptor):
                    raise _held(folder, descriptor)
                if _is_at(descriptor, file):
                    break
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # its holder has removed it meanwhile
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise _no_lock_file(file) from None
        words = disk.reason(error) or error.strerror
        remedy = (
            " Its file system may lack locks (flock), without which two processes could spoil each "
            "other's files. Write to a local folder."
            if error.errno not in disk.REASONS or error.errno == errno.EIO
            else ""
        )
        raise DataError(f"{folder} cannot be locked for writing: {words}.{remedy}") from None
    with suppress(OSError):  # on a full disk the lock holds without a name
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {platform.node()}".encode())
    return descriptor


def _hold(descriptor: int) -> bool:
    """Lock an open file; False if another process has locked it."""
    import fcntl  # missing on Windows, where stores can still be read

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, file: Path) -> bool:
    """Whether an open file still is the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(file))
    except FileNotFoundError:
        return False


def _no_lock_file(file: Path) -> DataError:
    return DataError(
        f"{file} is not a regular file, so it cannot lock its folder. Remove it; infalign makes "
        "its own."
    )


def _held(folder: Path, descriptor: int) -> DataError:
    holder = os.read(descriptor, 200).decode(errors="replace")
    if not (holder and holder.isprintable()):
        holder = "another process"
    return DataError(
        f"{folder} is being written by {holder}. Wait until that ends, or write to another folder."
    )


_locked: ContextVar[frozenset[Path]] = ContextVar("_locked", default=frozenset())
"""Folders that the current call holds."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` inside the block; DataError as in `lock`.

    Inside the block the same thread may lock the folder again. If the block fails before it writes
    anything, a folder that was made for the lock is removed.
    """
    own = folder.absolute()
    if own in _locked.get():
        yield
        return
    existed = folder.exists()
    descriptor = lock(folder)
    token = _locked.set(_locked.get() | {own})
    try:
        yield
    except BaseException:
        if not existed and {p.name for p in folder.iterdir()} == {LOCK}:
            (folder / LOCK).unlink()
            folder.rmdir()
        raise
    finally:
        _locked.reset(token)
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without error.

    What killed processes left of the same file is removed. Raises DataError if the file system
    refuses to write.
    """
    with disk.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left(path)
        temporary, descriptor = _unfinished(path)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(descriptor)


def require_writable(path: Path, *, file: bool = False) -> None:
    """Raise DataError if a file or folder cannot be written at `path`. Nothing is written.

    - `file`: whether it is to be a file, so that no folder may be there.
    """
    path = path.absolute()
    if file and path.is_dir():
        raise DataError(f"{path} cannot be written: it is a folder where a file is expected.")
    there = next(p for p in (path, *path.parents) if os.path.lexists(p))
    if there != path and not there.is_dir():
        raise DataError(f"{path} cannot be written: {there} is not a folder.")
    if not os.access(there, os.W_OK | (os.X_OK if there.is_dir() else 0)):
        raise DataError(f"{path} cannot be written: writing to {there} is not allowed.")


def parts_of(path: Path) -> Path:
    """The folder beside a file where its parts wait until it is written."""
    return path.with_name(f"{path.name}.parts")


def unfinished_name(path: Path) -> Path:
    """A new temporary name beside `path`, which `sweep` recognizes."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}")


def _unfinished(path: Path) -> tuple[Path, int]:
    """A new temporary file beside `path`, and a descriptor that locks it while it is written."""
    while True:
        temporary = unfinished_name(path)
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        with suppress(OSError):  # a file system without locks
            _hold(descriptor)
        if _is_at(descriptor, temporary):
            return temporary, descriptor
        os.close(descriptor)  # removed by another process before it was locked


def _remove_left(path: Path) -> None:
    """Remove unfinished files of the same name that no process is writing."""
    for name in os.listdir(path.parent):
        own = LEFT.fullmatch(name)
        if own is None or own["name"] != path.name:
            continue
        with suppress(OSError):
            descriptor = os.open(path.parent / name, os.O_RDWR | os.O_NOFOLLOW)
            try:
                if _hold(descriptor):
                    (path.parent / name).unlink()
            finally:
                os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove unfinished files that killed processes left below `folder`, which must be locked.

    Files that only end in `.part`, as downloads do, are left alone.
    """
    for parent, folders, files in os.walk(folder):
        for name in filter(LEFT.fullmatch, files):
            (Path(parent) / name).unlink(missing_ok=True)
        for name in list(filter(LEFT.fullmatch, folders)):
            if not (Path(parent) / name).is_symlink():
                shutil.rmtree(Path(parent) / name)
            folders.remove(name)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value) -> None:
    """Write `value` as indented JSON; nan raises ValueError, since JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, default=_plain) + "\n")


def as_json(value):
    """`value` as read back from a JSON file: tuples become lists, paths become texts."""
    return json.loads(json.dumps(value, default=_plain))


def json_line(value) -> str:
    """`value` as one line of JSON Lines; numbers that are not finite become null."""
    finite = {
        k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in value.items()
    }
    return json.dumps(finite, default=_plain) + "\n"


def read_json(path: Path):
    """The JSON value of a file; DataError if it is missing or cannot be read as JSON."""
    try:
        with disk.reading(path):
            return json.loads(path.read_text(encoding="utf-8"))
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error}). Remove it to make it anew.") from None


def write_table(path: Path, table: "pa.Table") -> None:
    """Write a Parquet file."""
    with replacing(path) as temporary:
        save_table(temporary, table)


def save_table(temporary: Path, table: "pa.Table") -> None:
    """Write a Parquet file to the temporary path that `replacing` gives."""
    import pyarrow.parquet as pq

    pq.write_table(table, temporary, compression="zstd")


def read_table(path: Path) -> "pa.Table":
    """Read a Parquet file; DataError if it is missing or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with disk.reading(path):
            return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file ({error}).") from None


def sha256(path: Path) -> str:
    """Checksum of a file's bytes."""
    with disk.reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(value) -> str:
    """Short checksum of a JSON value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(stored: Mapping, wanted: Mapping, prefix: str = "") -> list[str]:
    """The settings in which two mappings differ, each as `name value, not wanted`. Nested mappings
    are compared entry by entry."""
    different = []
    for name in dict.fromkeys((*wanted, *stored)):
        ours, theirs = stored.get(name), wanted.get(name)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            different += differences(ours, theirs, f"{prefix}{name}.")
        elif ours != theirs:
            different.append(f"{prefix}{name} {ours!r}, not {theirs!r}")
    return different


def require_same(
    stored: Mapping,
    wanted: Mapping,
    problem: str,
    remedy: str,
    *,
    error: type[InfalignError] = ConfigError,
) -> None:
    """Raise `error`, "`problem` …: the settings that differ. `remedy`", unless both are the same.

    - `stored`: settings as read from a file; `wanted`: the current settings, compared as JSON.
    """
    if different := differences(stored, as_json(wanted)):
        raise error(f"{problem} {'; '.join(different)}. {remedy}")


def _plain(value):
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
