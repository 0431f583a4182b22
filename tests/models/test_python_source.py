"""The fingerprint of a Python function covers the local code that it runs, and runs none of it."""

import importlib
import sys

import pytest

from infalign import DataError
from infalign.models.python_source import UNKNOWN, local_sources, source_fingerprint

SPEC = "python:rewards.mine:reward"
SOURCES = {
    "rewards/__init__.py": "",
    "rewards/mine.py": """
import json
import beside
import kit.deep.below as below
from . import words
from .lists import *
from kit import tools
from namespace.part import x
import absent
def reward(prompts, completions, **columns):
    import late
    from other import value
    return [late.score(c) for c in completions]
raise RuntimeError("a fingerprint must not run this")
""",
    "rewards/words.py": "from .. import nothing",
    "rewards/lists/__init__.py": "__all__ = ['one']",
    "rewards/lists/one.py": "",
    "beside.py": "import further as beside",
    "further.py": "import beside  # a circle",
    "kit/__init__.py": "",
    "kit/tools.py": "",
    "kit/deep/__init__.py": "",
    "kit/deep/below.py": "from ..shared import table",
    "kit/shared.py": "table = {}",
    "namespace/part.py": "x = 1",
    "late.py": "def score(c): return 0.0",
}
"""What `reward` runs, directly or through others."""

OTHERS = {
    "rewards/unused.py": "",
    "kit/unused.py": "",
    "unrelated.py": "",
    "words.py": "# not the module that `from . import words` means",
    "data.json": "{}",
    "env/lib/site-packages/other.py": "value = 1",
    "env/lib/site-packages/json.py": "",
}
"""Files that do not count: what is not imported, data, and installed packages."""


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name, text in (SOURCES | OTHERS).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    own = {name.partition("/")[0].removesuffix(".py") for name in SOURCES}
    for name in [name for name in sys.modules if name.partition(".")[0] in own]:
        monkeypatch.delitem(sys.modules, name)  # modules of other tests with these names
    monkeypatch.syspath_prepend(str(tmp_path / "env/lib/site-packages"))
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]


def fingerprint():
    importlib.invalidate_caches()
    return source_fingerprint(SPEC, "reward")


@pytest.mark.parametrize("name", SOURCES)
def test_all_that_a_function_imports_from_local_code_counts(project, name):
    before = fingerprint()
    (project / name).write_text(SOURCES[name] + "\n# reward\n")
    assert fingerprint() != before


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_do_not_count(project, name):
    before = fingerprint()
    (project / name).write_text(OTHERS[name] + "\n")
    assert fingerprint() == before


def test_nothing_is_run_and_the_folder_does_not_count(project, tmp_path_factory, monkeypatch):
    before, loaded = fingerprint(), set(sys.modules)
    moved = tmp_path_factory.mktemp("moved") / "project"
    project.rename(moved)
    monkeypatch.syspath_prepend(str(moved))
    assert fingerprint() == before and set(sys.modules) == loaded


def test_a_file_is_the_same_function_in_another_folder(project, tmp_path_factory):
    moved = tmp_path_factory.mktemp("moved")
    for name in ("beside.py", "further.py"):
        (moved / name).write_text(SOURCES[name])
    here, there = (
        source_fingerprint(f"python:{folder}/beside.py:beside", "reward")
        for folder in (project, moved)
    )
    assert here == there
    (moved / "further.py").write_text("")
    assert source_fingerprint(f"python:{moved}/beside.py:beside", "reward") != here


def test_a_module_that_appears_counts(project):
    before = fingerprint()
    (project / "absent.py").write_text("")
    assert fingerprint() != before


def test_the_name_of_the_function_counts(project):
    (project / "late.py").write_text("def score(c): return 0.0\ndef again(c): return 1.0\n")
    names = {source_fingerprint(f"python:late:{n}", "reward") for n in ("score", "again")}
    assert len(names) == 2


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("python:no_such_module:f", "No module named 'no_such_module'"),
        ("python:late:no_such_name", "no attribute 'no_such_name'"),
        ("python:late", "it must read python:package.module:function"),
    ],
)
def test_a_function_that_does_not_exist_is_named(project, spec, words):
    with pytest.raises(DataError, match=f"The judge '{spec}' cannot be loaded: .*{words}"):
        source_fingerprint(spec, "judge")


def test_what_has_no_source_says_so(caplog):
    assert source_fingerprint("python:sys:getsizeof", "reward").endswith(f"({UNKNOWN})")
    assert "python:sys:getsizeof has no source" in caplog.text
    assert local_sources("sys") == []


def test_installed_packages_count_only_if_the_function_is_theirs(project):
    before = source_fingerprint("python:other:value", "reward")
    (project / "env/lib/site-packages/other.py").write_text("value = 2")
    assert source_fingerprint("python:other:value", "reward") != before


def test_code_that_changed_after_it_was_imported_is_refused(project):
    before = source_fingerprint("python:late:score", "reward")
    late = importlib.import_module("late")
    assert source_fingerprint("python:late:score", "reward") == before
    (project / "late.py").write_text("def score(c): return 11.0")
    with pytest.raises(DataError, match=r"late.py has changed since this process imported it"):
        source_fingerprint("python:late:score", "reward")
    importlib.reload(late)
    assert late.score("") == 11.0 and source_fingerprint("python:late:score", "reward") != before
