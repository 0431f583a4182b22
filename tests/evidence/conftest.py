"""Lets the tests import the scripts of `evidence/`."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = (ROOT / "evidence", ROOT / "bundled_models")


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """Puts `evidence/` on Python's path, and forgets what is imported from there: a script called
    `rewards` must not be taken for a user's module of that name, nor the reverse."""
    monkeypatch.setattr(sys, "path", [str(FOLDERS[0]), *sys.path])
    for script in FOLDERS[0].glob("*.py"):
        monkeypatch.delitem(sys.modules, script.stem, raising=False)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and any(Path(file).is_relative_to(folder) for folder in FOLDERS):
            del sys.modules[name]
