"""Commands in forked processes: with a time limit, limits of the system, and kills.

The campaign's process has imported everything, so that a command costs milliseconds to start. It
never starts a thread, because a fork would lose it.
"""

import os
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = 240
"""Time limit of a command: many times what the slowest takes on a busy machine."""

FAILED = 97
"""Exit code of a process in which the harness itself failed."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    """Exit code; the negative signal that ended it."""

    stdout: str
    stderr: str
    hung: bool = False
    """Whether it was still running at its time limit."""

    megabytes: float = 0.0
    """The most memory that it had."""


@dataclass(frozen=True)
class Setup:
    """The surroundings of a command."""

    folder: Path | None = None
    """Working directory."""

    before: Callable[[], None] | None = None
    """Called in the command's process before it: sets limits, replaces functions."""

    stdin: bytes = b""
    stdout: str | None = None
    """Path that standard output goes to instead of a file that is read; "closed" closes it."""

    environment: Mapping[str, str] = field(default_factory=dict)
    seconds: float = SECONDS


PLAIN = Setup()


class Process:
    """`infalign ARGUMENTS`, running in a forked process."""

    def __init__(self, arguments: Sequence[str], setup: Setup = PLAIN):
        self._arguments, self._setup = [str(a) for a in arguments], setup
        self._folder = tempfile.TemporaryDirectory(prefix="faults-")
        self._written = Path(self._folder.name)
        (self._written / "stdin").write_bytes(setup.stdin)
        sys.stdout.flush()
        sys.stderr.flush()
        self._deadline = time.monotonic() + setup.seconds
        self.pid = os.fork()
        if not self.pid:
            self._run()  # does not return
        self._watched = os.pidfd_open(self.pid)

    def running_after(self, seconds: float) -> bool:
        """Whether the command still runs after this time."""
        poll = select.poll()
        poll.register(self._watched, select.POLLIN)
        return not poll.poll(1000 * max(0.0, seconds))

    def signal(self, number: int) -> None:
        """Send a signal to the command, and SIGKILL to its processes too."""
        with suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self.pid, number)
            os.kill(self.pid, number)

    def end(self) -> Ended:
        """Wait until the command ends, or kill it at its time limit."""
        hung = self.running_after(self._deadline - time.monotonic())
        self.signal(signal.SIGKILL)  # of a command that has ended: the processes that it left
        _, status, used = os.wait4(self.pid, 0)
        os.close(self._watched)
        texts = [
            (self._written / name).read_text(encoding="utf-8", errors="backslashreplace")
            for name in ("stdout", "stderr")
        ]
        self._folder.cleanup()
        code, megabytes = os.waitstatus_to_exitcode(status), used.ru_maxrss / 1024
        return Ended(code, *texts, hung=hung, megabytes=megabytes)

    def _run(self) -> None:
        code = FAILED
        try:
            os.setsid()
            self._redirect()
            os.environ.update(self._setup.environment)
            if self._setup.folder is not None:
                os.chdir(self._setup.folder)
            code = _command(self._arguments, self._setup.before)
        except BaseException:
            traceback.print_exc()
        finally:
            # A full or closed standard output fails here too, as it would at the interpreter's end.
            try:
                if sys.stdout is not None:
                    sys.stdout.flush()
            except (OSError, ValueError) as error:
                code = code or 120
                with suppress(Exception):
                    print(f"Exception ignored in the last flush: {error!r}", file=sys.stderr)
            with suppress(Exception):
                sys.stderr.flush()
            os._exit(code)

    def _redirect(self) -> None:
        os.dup2(os.open(self._written / "stdin", os.O_RDONLY), 0)
        sys.stdin = open(0, encoding="utf-8", closefd=False)
        for name, descriptor in (("stdout", 1), ("stderr", 2)):
            path = self._written / name
            path.touch()
            if name == "stdout" and self._setup.stdout == "closed":
                sys.stdout = None  # as the interpreter sets it when it starts without one
                os.close(1)
                continue
            target = self._setup.stdout if name == "stdout" and self._setup.stdout else path
            os.dup2(os.open(target, os.O_WRONLY), descriptor)
            setattr(sys, name, open(descriptor, "w", encoding="utf-8", closefd=False))


def infalign(*arguments, setup: Setup = PLAIN) -> Ended:
    """Run a command to its end."""
    return Process(arguments, setup).end()


def _command(arguments: Sequence[str], before: Callable[[], None] | None) -> int:
    """The command line in this process, to its exit code."""
    from infalign.cli.app import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["infalign", *arguments]
    if before is not None:
        before()
    try:
        main()
    except SystemExit as stop:
        return _exit_code(stop.code)
    except BaseException:  # as the interpreter ends
        traceback.print_exc()
        return 1
    return 0


def _exit_code(code) -> int:
    """The exit code that the interpreter makes of `SystemExit(code)`."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1
