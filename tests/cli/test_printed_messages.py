"""Every warning of the package reaches a user of the command line, and reaches them once."""

import ast
import logging
import sys
from pathlib import Path

import pytest
from walked import commands

import infalign
from infalign.cli import app as entry
from infalign.cli.messages import METRICS, messages
from infalign.cli.progress import progress, quiet_libraries

SOURCE = Path(infalign.__file__).parent
LOG = logging.getLogger("infalign.somewhere")


def test_a_message_is_printed_once_whoever_else_listens(capsys, monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [logging.StreamHandler(sys.stdout)])
    quiet_libraries()
    with messages(), progress() as report:
        report("work", 0, 2)
        for part in range(2):
            LOG.warning("Something %s.", "is wrong")
            LOG.info("Part %d.", part)
            LOG.debug("unseen")
            logging.getLogger(METRICS).info("loss 1")
    printed = capsys.readouterr()
    assert printed.out == ""
    said = [line for line in printed.err.splitlines() if not line.startswith("work")]
    assert said == ["Something is wrong.", "Part 0.", "Part 1."]


def test_the_logger_is_afterwards_what_it_was():
    log = logging.getLogger("infalign")
    before = (log.level, log.propagate, list(log.handlers))
    with messages():
        assert not log.propagate
    assert (log.level, log.propagate, list(log.handlers)) == before


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_command_prints_what_is_logged_while_it_runs(command, monkeypatch, capsys):
    def run(arguments, **settings):
        assert arguments == command.split()
        LOG.warning("Be careful.")

    monkeypatch.setattr(entry, "application", lambda arguments: run)
    monkeypatch.setattr(sys, "argv", ["infalign", *command.split()])
    entry.main()
    assert capsys.readouterr().err == "Be careful.\n"


def test_every_module_that_warns_does_so_with_a_logger_of_the_package():
    # What `warnings` or another logger says, `quiet_libraries` and `messages` do not show.
    for file in SOURCE.rglob("*.py"):
        text = file.read_text()
        calls = [ast.unparse(n.func) for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call)]
        assert {c for c in calls if c.endswith((".warn", ".warning"))} <= {"LOG.warning"}, file
        if "LOG.warning" in calls:
            assert "\nLOG = logging.getLogger(__name__)\n" in text, file
