"""Errors of the file system, in the words of the person whose disk it is.

Libraries report one full disk in five ways: torch as a failed assertion in C++, safetensors and
Arrow with the number of the error in a text. Here each becomes one sentence with the path, what is
wrong, and what is safe.
"""

import errno
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import DataError, InfalignError

__all__ = ["place", "reading", "reason", "writing"]

REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would exceed the largest size that is allowed here (`ulimit -f`)",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENAMETOOLONG: "its name is too long for the file system",
    errno.EMFILE: "this process has too many open files (`ulimit -n` sets the limit)",
    errno.ENFILE: "this machine has too many open files",
    errno.EISDIR: "it is a folder where a file is expected",
    errno.EEXIST: "it is a file where a folder is expected",
    errno.ENOTDIR: "a part of its path is a file where a folder is expected",
    errno.ELOOP: "its symbolic links lead in a circle",
    errno.EIO: "the disk reports an input/output error",
    errno.ESTALE: "the network file system has lost it",
}
"""What is wrong, by the number of the error."""

SAFE = "Files that were complete are unchanged."
"""What holds after every failed write, since files are replaced as a whole."""

UNFINISHED = ".part"
"""Suffix of files and folders that are being written."""

LEFT = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}" + re.escape(UNFINISHED), re.DOTALL)
"""Names of unfinished files and folders of our own; others' may end in `.part` too."""

_NUMBER = re.compile(r"\((?:os error|errno) (\d+)\)|\[[Ee]rrno (\d+)\]")
"""The number of an error in the texts of safetensors and Arrow."""

_TORCH = re.compile(r"PytorchStreamWriter|inline_container|unexpected pos")


def reason(error: BaseException) -> str | None:
    """What the file system refuses; None if the error is about something else."""
    if isinstance(error, InfalignError):
        return None
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (named := _NUMBER.search(str(error))):
        number = int(named[1] or named[2])
    if number is not None:
        return REASONS.get(number)
    if isinstance(error, RuntimeError) and _TORCH.search(str(error)):
        # torch drops the number of the error.
        first = str(error).splitlines()[0]
        return f"the disk is probably full (torch: {first})"
    return None


def place(error: BaseException, path: Path | str) -> Path:
    """The file that the error names; `path` if it names none, or one with a temporary name."""
    named = getattr(error, "filename", None)
    if not isinstance(named, str) or LEFT.fullmatch(Path(named).name):
        return Path(path)
    return Path(named)


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Raise DataError for what the file system refuses while the block writes `path`."""
    try:
        yield
    except Exception as error:
        if (refused := reason(error)) is None:
            raise
        raise DataError(
            f"{_printable(place(error, path))} could not be written: {refused}. {SAFE} Mend that "
            "and run the same command again."
        ) from error


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Raise DataError if `path` is not a file, and for what the file system refuses while the block
    reads it.

    A pipe in the place of a file is refused before it is opened, since reading it would wait
    forever.
    """
    try:
        mode = Path(path).stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "folder" if stat.S_ISDIR(mode) else "device, pipe or socket"
            raise DataError(f"{_printable(path)} is a {kind} where a file is expected.")
        yield
    except FileNotFoundError as error:
        if error.filename is not None and Path(error.filename) != Path(path):
            raise
        raise DataError(f"{_printable(path)} does not exist.") from None
    except Exception as error:
        if (refused := reason(error)) is None:
            raise
        raise DataError(
            f"{_printable(place(error, path))} could not be read: {refused}."
        ) from error


def _printable(path: Path | str) -> str:
    """The path, at most 300 characters of it."""
    text = str(path)
    return text if len(text) <= 300 else f"{text[:200]}…{text[-99:]}"
