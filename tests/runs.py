"""Commands in processes that have the libraries of a run loaded: importing them takes seconds.

`Runs()` starts one process that imports them and then forks another for each command. Nothing waits
for a time: a command ends by itself, or by SIGKILL at a file operation that the test chose.
"""

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (-9 after SIGKILL) and all that it wrote."""

    code: int
    stdout: str
    stderr: str


class Runs:
    """Runs `infalign ARGUMENTS` in forked processes, one after the other; a context manager."""

    def __enter__(self):
        command = [sys.executable, __file__]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_):
        self._process.stdin.close()  # the process reads to the end and exits
        self._process.stdout.close()
        self._process.wait()

    def __call__(
        self,
        *arguments,
        cwd: Path | None = None,
        killed_after: Path | None = None,
        interrupted_after: Path | None = None,
    ) -> Ended:
        """Wait until the command ends, in the folder `cwd`. It is killed at its first file
        operation once the file `killed_after` exists; Ctrl-C arrives at the first one once
        `interrupted_after` exists."""
        places = {
            "cwd": cwd,
            "killed_after": killed_after,
            "interrupted_after": interrupted_after,
        }
        request = {name: str(path) for name, path in places.items() if path is not None}
        request |= {"arguments": [str(a) for a in arguments]}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))


SMALLER = {
    "infalign.training.landing": {"SAMPLES": 96},
    "infalign.calibration.outlook": {"PROMPTS": 16},
}
"""Simulations and measurements that tests of the pipeline make smaller."""

FILE_OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}


def kill_at_file_operation(holds, sent: signal.Signals = signal.SIGKILL) -> None:
    """A signal for this process at the first file operation at which `holds()` is true."""
    ended = False

    def hook(event, _arguments):
        nonlocal ended
        if not ended and event in FILE_OPERATIONS and holds():
            ended = True
            os.kill(os.getpid(), sent)

    sys.addaudithook(hook)


def _run(arguments, cwd=None, killed_after=None, interrupted_after=None) -> int:
    """In a forked process: the command line, to its exit code."""
    from infalign.cli.app import main

    if cwd is not None:
        os.chdir(cwd)
    sys.argv = ["infalign", *arguments]
    if killed_after is not None:
        kill_at_file_operation(Path(killed_after).exists)
    if interrupted_after is not None:
        kill_at_file_operation(Path(interrupted_after).exists, signal.SIGINT)
    try:
        main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def _forked(folder: Path, **request) -> int:
    """Exit code of the command in a process of its own, which writes to files of `folder`."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 70  # what follows failed outside the command
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        for name, descriptor in (("stdout", 1), ("stderr", 2)):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), descriptor)
        code = _run(**request)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def load_libraries() -> None:
    """Import all that a run needs, before processes are forked, and make its simulations small."""
    import datasets  # noqa: F401
    import pandas  # noqa: F401  (Arrow asks for it)
    import peft  # noqa: F401
    from trl import GRPOTrainer, RLOOTrainer  # noqa: F401

    import infalign.pipeline.stages
    import infalign.reports.page
    import infalign.training.policy  # noqa: F401
    from infalign.cli.app import app  # noqa: F401  (every command)

    for name, constants in SMALLER.items():
        module = importlib.import_module(name)
        for constant, value in constants.items():
            assert getattr(module, constant) > value
            setattr(module, constant, value)
    gc.collect()
    gc.freeze()  # forked processes collect garbage without looking through the libraries


def main() -> None:
    """Serve requests, one JSON object a line, until there are no more."""
    load_libraries()
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            code = _forked(folder, **json.loads(line))
            texts = {n: (folder / n).read_text() for n in ("stdout", "stderr")}
        print(json.dumps({"code": code, **texts}), flush=True)
    os._exit(0)  # tearing the libraries down takes seconds


if __name__ == "__main__":
    main()
