"""`infalign`: the commands, and their exit codes.

0: done. 1: failed, with one message. 2: wrong usage. 130: interrupted with Ctrl-C. 141: the reader
of standard output closed it. 143: ended by SIGTERM.
"""

import os
import sys
import traceback

import typer

from infalign import _check
from infalign._launched import require_alone
from infalign.errors import ArgumentError, InfalignError

from .commands import application
from .messages import messages
from .terminal import OutputError, discard_output, guarded, open_closed_streams
from .usage import BROKEN_PIPE, INTERRUPTED, TERMINATED, Terminated, terminable


def __getattr__(name: str) -> typer.Typer:
    if name == "app":  # every command, as documentation needs them
        return application()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


LONGEST = 8000
"""Largest number of characters of an error's message; the middle of a longer one is left out."""

WrongUsage: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)
"""What the parser of the command line raises; typer does not export it."""


def main() -> None:
    """Entry point of `infalign` and `python -m infalign`."""
    open_closed_streams()
    yield_cores()
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    with guarded():
        code = _code(arguments, debug)
    if code:
        sys.exit(code)


WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
"""How OpenMP's threads wait for each other, in its own variables."""


def yield_cores() -> None:
    """Let OpenMP's threads sleep while they wait for each other, unless the user has decided it.

    Threads that wait actively for one that the system has put aside take its core: where other
    programs run, two threads are then several times slower than one. It must be said before torch
    is imported.
    """
    if not WAITING.keys() & os.environ.keys():
        os.environ.update(WAITING)


def _code(arguments: list[str], debug: bool) -> int:
    """Run a command and return its exit code; errors are printed."""
    try:
        with terminable(), messages():
            require_alone()
            app = application(arguments)
            code = app(arguments, prog_name="infalign", standalone_mode=False)
            sys.stdout.flush()
            return code or 0
    except WrongUsage as error:
        return _usage(error)
    except OutputError as error:
        discard_output()
        if error.broken:
            return BROKEN_PIPE
        print(f"infalign: standard output: {error}.", file=sys.stderr)
    except (KeyboardInterrupt, typer.Abort):
        print("infalign: interrupted.", file=sys.stderr)
        return INTERRUPTED
    except Terminated:
        print("infalign: terminated.", file=sys.stderr)
        return TERMINATED
    except Exception as error:
        if debug:
            traceback.print_exc()
        else:
            print(f"infalign: {message(error)}", file=sys.stderr)
    return 1


def _usage(error) -> int:
    """Print what is wrong with the arguments, after the command's usage."""
    context = getattr(error, "ctx", None)
    words = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help, printed already
        print(words, file=sys.stderr, end="\n" if words else "")
        return error.exit_code
    if context is not None:
        print(context.get_usage(), file=sys.stderr)
        print(f"Help: {context.command_path} --help", file=sys.stderr)
    print(f"infalign: {_cut(words)}", file=sys.stderr)
    return error.exit_code


def message(error: Exception) -> str:
    """The package's own errors unchanged; other errors on one line, with their type or, for those
    of the operating system, with their path."""
    if isinstance(error, InfalignError):
        return _cut(str(error))
    words = _cut(" ".join(str(error).split()))
    if type(error) in (ValueError, ArgumentError):  # an argument that breaks a rule
        return words
    if isinstance(error, OSError) and error.strerror:
        paths = " and ".join(str(p) for p in (error.filename, error.filename2) if p is not None)
        if paths:
            return f"{paths}: {error.strerror}."
    if isinstance(error, MemoryError):
        return f"The memory is not enough{f' ({words})' if words else ''}. Use smaller batches."
    if isinstance(error, RecursionError):
        return f"The input is nested too deeply ({words}; --debug shows where)."
    if isinstance(error, UnicodeEncodeError | UnicodeDecodeError):
        part = error.object[error.start : error.end]
        return f"{_check.short(part)} cannot be converted ({error.encoding}: {error.reason})."
    name = type(error).__name__
    return f"{name}: {words or 'no message'} (--debug shows where)"


def _cut(words: str) -> str:
    if len(words) <= LONGEST:
        return words
    return f"{words[: LONGEST // 2]} … {words[-LONGEST // 2 :]}"
