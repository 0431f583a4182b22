"""Folders that are either complete or absent."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infalign import storage
from infalign.errors import DataError

__all__ = ["new_folder", "require_free"]


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that takes the name `path` when the block ends without error.

    The files written into it must be synced. A kill at any moment leaves nothing at `path`; the
    next attempt removes what is left of the temporary folder. Raises DataError if `path` exists
    already, or while another process is making it.
    """
    require_free(path)
    around = path.parent / f".{path.name}{storage.UNFINISHED}"
    holding = storage.lock(around)
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
