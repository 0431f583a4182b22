"""Files that are either whole or absent, their checksums, folders with one writer at a time, and
settings that must not change.

A file is written under a temporary name, synced, and renamed into place.
"""

import errno
import hashlib
import json
import os
import platform
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import ConfigError, DataError, InfalignError

if TYPE_CHECKING:
    import pyarrow as pa  # imported where it is needed: it takes 0.17 s

UNFINISHED = ".part"
"""Suffix of files and folders that are being written."""

LOCK = ".lock"
"""Name of the file by which a process holds a folder."""


def lock(folder: Path) -> int:
    """Lock the folder for writing. Returns a file descriptor that holds the lock until it is
    closed.

    The operating system releases the lock when the process ends, however it ends; a leftover lock
    file does not block anyone. Raises DataError at once if another writer has the lock, and if the
    folder cannot be locked.
    """
    import fcntl  # missing on Windows, where stores can still be read

    file = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A link could lead to any file, which the next lines would overwrite. Opening a pipe
        # without O_NONBLOCK would wait for its other end.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(file, flags, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise _no_lock_file(file) from None
        raise DataError(f"{folder} cannot be locked for writing: {error.strerror}.") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _no_lock_file(file)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 200).decode(errors="replace")
        os.close(descriptor)
        if not (holder and holder.isprintable()):
            holder = "another process"
        raise DataError(
            f"{folder} is being written by {holder}. Wait until that ends, or write to another "
            "folder."
        ) from None
    except OSError as error:
        os.close(descriptor)
        raise DataError(
            f"{folder} cannot be locked for writing: {error.strerror}. Its file system may lack "
            "locks (flock), without which two processes could spoil each other's files. Write to "
            "a local folder."
        ) from None
    except DataError:
        os.close(descriptor)
        raise
    with suppress(OSError):  # on a full disk the lock holds without a name
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {platform.node()}".encode())
    return descriptor


def _no_lock_file(file: Path) -> DataError:
    return DataError(
        f"{file} is not a regular file, so it cannot lock its folder. Remove it; infalign makes "
        "its own."
    )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` inside the block; DataError as in `lock`."""
    descriptor = lock(folder)
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path):
    """A temporary path beside `path` that takes its place when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp's 0600 would keep a shared run folder from being read
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove unfinished files that killed processes left below `folder`."""
    for path in sorted(folder.rglob(f"*{UNFINISHED}")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)  # its folder may have been removed already


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
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON ({error}). Remove it to make it anew.") from None


def read_json_lines(path: Path) -> list[dict]:
    """The rows of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_table(path: Path, table: "pa.Table") -> None:
    """Write a Parquet file."""
    import pyarrow.parquet as pq

    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_table(path: Path) -> "pa.Table":
    """Read a Parquet file; DataError if it is missing or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is not a readable Parquet file ({error}).") from None


def sha256(path: Path) -> str:
    """Checksum of a file's bytes."""
    with path.open("rb") as file:
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
