"""Lets the tests import the scripts of `evidence/`."""

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "evidence"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """Puts `evidence/` on Python's path."""
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
