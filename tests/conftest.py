"""Shared fixtures: the command line, in this process and in others, and one finished small run."""

import gc
import os
import shutil
import sys
from pathlib import Path

# No test reaches the network, and no library may try.
os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
# One thread each, which waits without computing: two that wait on busy cores take ten times as
# long. Set before numpy and torch are imported, for processes that tests start too.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1"}

# Files of tests are in memory where that has 6 GB: tests that kill a write at each of its steps
# make and remove tens of thousands.
os.environ |= (
    {"PYTEST_DEBUG_TEMPROOT": "/dev/shm"} | dict(os.environ)
    if Path("/dev/shm").is_dir() and shutil.disk_usage("/dev/shm").free > 6e9
    else {}
)

import pytest
from hypothesis import settings
from runs import Runs

# The same examples every time, and no clock. --hypothesis-profile=default looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# A script of test_shapes.py, which replaces a module of the package in its own process.
collect_ignore = ["core/shapes_on.py"]

SLOWEST = (
    "test_resume.py",
    "test_demo.py",
    "test_trial.py",
    "test_options.py",
    "test_verify.py",
    "test_ray.py",
    "test_finite.py",
    "test_extension.py",
    "test_docs.py",
    "test_verdicts.py",
    "test_help.py",
    "test_design_cli.py",
    "test_comparison.py",
    "test_inputs.py",
    "test_choice.py",
)
"""The files that take longest, in that order: both cores are then busy to the end."""


def pytest_collection_modifyitems(items):
    places = {name: i for i, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(SLOWEST)))


def pytest_collection_finish():
    """What exists now stays: every training collects garbage, and need not look through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run the command line in this process; returns (exit code, stdout, stderr)."""
    from infalign.cli.app import main

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["infalign", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def runs():
    """`runs("run", config, "--out", folder)` in a process of its own; returns how it ended."""
    with Runs() as started:
        yield started


@pytest.fixture(scope="session")
def quick_demo(runs, tmp_path_factory):
    """`infalign demo --quick` in a process of its own: the folder, stdout and stderr."""
    folder = tmp_path_factory.mktemp("quick") / "run"
    ended = runs("demo", "--quick", "--out", folder)
    assert ended.code == 0, ended.stderr
    return folder, ended.stdout, ended.stderr


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Captured output with half a surrogate pair, which workers could not send, is escaped."""
    report = yield
    report.sections = [
        (title, text.encode("utf-8", "backslashreplace").decode())
        for title, text in report.sections
    ]
    return report
