"""Folders with one writer at a time, and folders that are either complete or absent."""

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infalign import storage
from infalign.errors import DataError

LOCK = ".lock"


def lock(folder: Path) -> int:
    """Lock the folder for writing. Returns a file descriptor that holds the lock until it is
    closed.

    The operating system releases the lock when the process ends, however it ends; a leftover lock
    file does not block anyone. Raises DataError at once if another writer has the lock.
    """
    import fcntl  # missing on Windows, where stores can still be read

    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 200).decode(errors="replace") or "another process"
        os.close(descriptor)
        raise DataError(
            f"{folder} is being written by {holder}. Wait until that ends, or write to another "
            "folder."
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {platform.node()}".encode())
    return descriptor


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that takes the name `path` when the block ends without error.

    The files written into it must be synced. A kill at any moment leaves nothing at `path`; the
    next attempt removes what is left of the temporary folder. Raises DataError if `path` exists
    already, or while another process is making it.
    """
    require_free(path)
    around = path.parent / f".{path.name}{storage.UNFINISHED}"
    holding = lock(around)
    try:
        require_free(path)  # the previous holder of the lock may have finished meanwhile
        temporary = around / path.name
        if temporary.exists():
            shutil.rmtree(temporary)
        temporary.mkdir()
        yield temporary
        storage.sync_folder(temporary)
        require_free(path)
        temporary.replace(path)
        storage.sync_folder(path.parent)
    finally:
        shutil.rmtree(around, ignore_errors=True)
        os.close(holding)


def require_free(path: Path) -> None:
    """Raise DataError unless `path` is an empty folder or does not exist."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise DataError(f"{path} exists already. Remove it, or write to another place.")
