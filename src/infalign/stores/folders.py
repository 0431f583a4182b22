"""Folders that are either whole or absent, as `storage.replacing` makes files."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infalign import storage
from infalign.errors import DataError

from .locks import lock


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that takes the name `path` when the block ends without error.

    The files written into it must be synced. Killed at any moment, nothing stands at `path`; what
    is left beside it, the next attempt removes. Raises DataError if something stands at `path`
    already, or while another process is making it.
    """
    require_free(path)
    around = path.parent / f".{path.name}{storage.UNFINISHED}"
    holding = lock(around)
    try:
        require_free(path)  # whoever held the lock may have finished meanwhile
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
    """Raise DataError unless `path` is an empty folder, or nothing."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise DataError(f"{path} is there already. Remove it, or write to another place.")
