"""How an extra is installed, for each way in which the package was."""

import json
import sys
from types import SimpleNamespace

import pytest

from infalign import MissingExtraError, errors
from infalign.pipeline import run

EDITABLE = json.dumps({"url": "file:///home/me/infalign", "dir_info": {"editable": True}})


@pytest.mark.parametrize(
    ("installer", "source", "prefix", "command"),
    [
        ("pip", None, "/env", 'pip install "infalign[train]"'),
        ("uv", None, "/env", 'uv pip install "infalign[train]"'),
        ("pip", EDITABLE, "/env", 'pip install -e "/home/me/infalign[train]"'),
        ("uv", EDITABLE, "/env", 'uv pip install -e "/home/me/infalign[train]"'),
        ("pip", None, "/home/me/pipx/venvs/infalign", 'pipx install --force "infalign[train]"'),
        (None, "not JSON", "/env", 'pip install "infalign[train]"'),
    ],
)
def test_the_command_is_that_of_the_installation(monkeypatch, installer, source, prefix, command):
    texts = {"INSTALLER": installer, "direct_url.json": source}
    monkeypatch.setattr(errors, "distribution", lambda _: SimpleNamespace(read_text=texts.get))
    monkeypatch.setattr(sys, "prefix", prefix)
    said = errors.install("train")
    assert said.startswith('pip install "infalign[train]"') and command in said


def test_missing_libraries_are_known_without_an_import(monkeypatch):
    # torch alone takes long to import, and is no use without trl.
    monkeypatch.setattr(run, "find_spec", lambda name: None if name == "trl" else name)
    before = set(sys.modules)
    with pytest.raises(MissingExtraError, match=r'; trl is not .*pip install "infalign\[train\]"'):
        run.require_libraries()
    assert {"torch", "trl"} & (set(sys.modules) - before) == set()
