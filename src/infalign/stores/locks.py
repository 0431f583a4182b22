"""One writer per folder, for as long as its process lives."""

import os
import platform
from pathlib import Path

from infalign.errors import DataError

NAME = ".lock"


def lock(folder: Path) -> int:
    """Take the folder for writing: a file descriptor that holds it until it is closed.

    The operating system lets go of it when the process ends, however it ends; the file that stays
    means nothing. Raises DataError at once if another writer has it.
    """
    import fcntl  # not where this runs on Windows, which can read stores all the same

    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o644)
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
