"""The walk over imports, of which the layers and the journals of the verification make use."""

import ast

import imported
import pytest
from imported import imports


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import torch.nn", [("torch.nn", False)]),
        ("from . import _check", [("infalign.models._check", False)]),
        (
            "from .. import _check, storage",
            [("infalign._check", False), ("infalign.storage", False)],
        ),
        ("from ..errors import DataError", [("infalign.errors.DataError", False)]),
        ("if True:\n import trl", [("trl", False)]),
        ("if TYPE_CHECKING:\n import trl", [("trl", True)]),
        ("def f():\n if True:\n  import trl", [("trl", True)]),
        ("class A:\n async def f():\n  from trl import x", [("trl.x", True)]),
    ],
)
def test_the_walk_finds_every_import(code, expected):
    assert list(imports(ast.parse(code), ["infalign", "models"])) == expected


SOURCES = {
    "__init__": "from .core import solve\nfrom .other import unused",
    "other": "unused = 0",
    "core/__init__": "from ._solve import solve\nfrom ._more import more",
    "core/_solve": "def solve():\n    from . import _roots\n    return _roots",
    "core/_more": "more = 0",
    "core/_roots": "import infalign as ia\nx = ia.core._table.ROWS",
    "core/_table": "import numpy\nROWS = 1",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package with the sources above."""
    monkeypatch.setattr(imported, "PACKAGES", {"infalign": tmp_path})
    for name, text in SOURCES.items():
        path = (tmp_path / name).with_suffix(".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (tmp_path / "start.py").write_text("import infalign as ia\n\nia.solve()")
    return tmp_path


def state(package):
    return imported.state(imported.reached(package / "start.py"))


def test_names_lead_to_the_modules_that_define_them(package):
    files = [str(file.relative_to(package)) for file in imported.reached(package / "start.py")]
    assert files == ["core/_roots.py", "core/_solve.py", "core/_table.py", "start.py"]


def test_a_package_that_is_passed_on_as_a_whole_counts_as_a_whole(package):
    (package / "start.py").write_text("import infalign as ia\n\nprint(ia)")
    assert package / "other.py" in imported.reached(package / "start.py")


@pytest.mark.parametrize(
    ("file", "text", "same"),
    [
        ("core/_table.py", "import numpy\nROWS = 2", False),
        ("core/_table.py", '"""Rows."""\nimport numpy  # for later\n\nROWS = 1', True),
        ("core/_more.py", "more = 1", True),
        ("other.py", "unused = 1", True),
        ("start.py", "import infalign as ia\n\nia.solve() + 1", False),
    ],
)
def test_only_a_change_of_code_that_is_reached_changes_the_state(package, file, text, same):
    before = state(package)
    (package / file).write_text(text)
    assert (state(package) == before) == same
