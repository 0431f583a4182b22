"""Ctrl-C and SIGTERM end a run cleanly, and the command that is named continues it.

Nothing waits for a time: the reward of the run opens a pipe and then waits in another, and the
signal is sent when the pipe was opened.
"""

import os
import select
import shlex
import signal
import threading
from contextlib import suppress

import pytest
import yaml

from infalign.pipeline.folder import FIRST

REWARD = """
import os
from pathlib import Path

HERE = Path(__file__).parent

def length(prompts, completions, **columns):
    if len(completions) == 2:  # the check before the run
        (HERE / "driver").write_text(str(os.getpid()))
    elif not (HERE / "go").exists():
        (HERE / "reached").write_text(str(os.getpid()))
        (HERE / "never").read_text()
    return [float(len(str(c))) for c in completions]
"""
CONFIG = {
    "model": "bundled:language-model",
    "reward": "mine.py:length",
    "prompts": {"file": "bundled:harmless", "limit": 6},
    "procedure": "best-of-n:2",
    "kl": 0.3,
    "sampling": {"max_new_tokens": 4, "batch_size": 8},
    "calibration": {"samples": 4},
    "train": {"batch_size": 8, "group": 4, "steps": 1},
    "evaluate": {"prompts": {"limit": 4}, "samples": 4},
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text(REWARD)
    for name in ("reached", "never"):
        os.mkfifo(tmp_path / name)
    return tmp_path


def interrupted(runs, folder, number, **changes):
    """A run that got a signal while its reward was called: how it ended, and the process of the
    reward, as a file descriptor."""
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG | changes))
    command = ["run", folder / "config.yaml", "--out", folder / "run", "--until", "calibrate"]
    ended = []

    def work():
        ended.append(runs(*command))
        with suppress(OSError):  # nobody waits in the pipe, unless the run ended before it
            os.close(os.open(folder / "reached", os.O_WRONLY | os.O_NONBLOCK))

    thread = threading.Thread(target=work)
    thread.start()
    scoring = int((folder / "reached").read_text())
    driver = int((folder / "driver").read_text())
    alive = os.pidfd_open(scoring)
    os.kill(driver, number)
    thread.join()
    return ended[0], alive


def exited(process):
    """Whether a process has ended, or does so within a minute."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(60_000))


SIGNALS = [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]


@pytest.mark.parametrize(("number", "code", "word"), SIGNALS)
def test_a_signal_ends_a_run_and_the_named_command_continues_it(runs, folder, number, code, word):
    ended, process = interrupted(runs, folder, number)
    assert ended.code == code and ended.stdout == "" and "Traceback" not in ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"infalign: {word}. What is finished is kept in {folder / 'run'}. ")
    assert exited(process) and (folder / "run" / FIRST).exists()
    (folder / "go").touch()
    name, *command = shlex.split(last.partition("This continues: ")[2])
    assert name == "infalign"
    again = runs(*command)
    assert again.code == 0 and "6/6" in again.stderr


def test_a_signal_ends_a_run_on_ray_with_all_its_processes(runs, folder):
    pytest.importorskip("ray")
    ended, worker = interrupted(runs, folder, signal.SIGTERM, engine="ray")
    assert ended.code == 143 and "SIGTERM received" not in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("infalign: terminated. What is finished is")
    assert exited(worker)
