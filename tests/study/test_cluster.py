"""Cells on a local Ray: a killed worker's cell is repeated, and nothing else is."""

import os
import signal
from collections import Counter
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from infalign.config import read_study
from infalign.study.cells import Outcome
from infalign.study.cluster import connected

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

TASK = {"model": "m", "reward": "r", "prompts": {"file": "p.jsonl"}, "kl": 0.5}
GRID = read_study({"tasks": {"a": TASK}, "methods": ["rloo", "rlhf"], "seeds": [0, 1, 2]})


@pytest.fixture(scope="module")
def cluster():
    if find_spec("ray") is None:
        pytest.skip("needs infalign[ray]")
    patched = pytest.MonkeyPatch()
    patched.setenv("RAY_AUTH_MODE", "disabled")  # writes no token into the home folder
    here = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    patched.setenv("PYTHONPATH", os.pathsep.join(filter(None, here)))
    for name in ("RAY_ADDRESS", "RAY_TMPDIR"):
        patched.delenv(name, raising=False)
    with connected() as own:
        yield own
    patched.undo()


def work(cell, task, folder):
    """Note the attempt; the first worker that comes to seed 1 of rlhf dies, and rloo's fails."""
    with (task / "log").open("a") as log:
        log.write(f"{cell.name}\n")
    if cell.name == "rlhf-kl0.5-seed1":
        with suppress(FileExistsError), (task / "killed").open("x"):
            os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(cell, 1.0, "no" if cell.name == "rloo-kl0.5-seed1" else None)


def hopeless(cell, task, folder):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_workers_cell_is_repeated_and_nothing_is_lost(cluster, tmp_path):
    cells = [(cell, tmp_path, tmp_path / cell.name) for cell in GRID.cells]
    outcomes = {o.cell.name: o.error for o in cluster.cells(cells, work)}
    names = [cell.name for cell, *_ in cells]
    assert outcomes == {n: "no" if n == "rloo-kl0.5-seed1" else None for n in names}
    assert (tmp_path / "killed").exists()
    tried = Counter((tmp_path / "log").read_text().split())
    assert tried == Counter(names) + Counter(["rlhf-kl0.5-seed1"])


def test_a_cell_whose_workers_all_die_is_an_outcome_with_an_error(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr("infalign.study.cluster.RETRIES", 0)
    cell = next(iter(GRID.cells))
    (outcome,) = cluster.cells([(cell, tmp_path, tmp_path / "x")], hopeless)
    assert outcome.cell is cell and outcome.error.startswith("Ray gave up")
