"""Functions of a user's own: where they are looked for, and what their errors say."""

import os
import pickle
import subprocess
import sys

import pytest

from infalign import DataError
from infalign.config import load_config
from infalign.models.functions import beside, python_function
from infalign.models.judges import load_judge
from infalign.models.python_source import source_fingerprint

VALUE = "def value(*a, **k):\n    return {}\n"


@pytest.fixture(autouse=True)
def _clean(tmp_path, monkeypatch):
    """A working directory of its own; modules of one test are unknown to the next."""
    known, path = set(sys.modules), list(sys.path)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield
    sys.path[:] = path
    for name in set(sys.modules) - known:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def write(folder, name, text):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def value(spec, folder=None):
    with beside(folder):
        return python_function(spec, "reward")()


def test_the_order_is_configuration_then_working_directory_then_path(tmp_path, monkeypatch):
    for place in ("config", "work", "path"):
        write(tmp_path / place, "placed.py", VALUE.format(repr(place)))
        write(tmp_path / place, "only_" + place + ".py", VALUE.format(repr(place)))
    monkeypatch.syspath_prepend(tmp_path / "path")
    assert value("python:placed:value", tmp_path / "config") == "config"
    assert value("python:placed:value") == "work"
    (tmp_path / "work" / "placed.py").unlink()
    for place in ("config", "work", "path"):
        assert value(f"python:only_{place}:value", tmp_path / "config") == place
    assert value("python:placed:value") == "path"


def test_a_configuration_knows_its_folder(tmp_path):
    write(tmp_path, "c.yaml", "{model: m, reward: r, kl: 0.5, prompts: {file: x}}")
    config = load_config(tmp_path / "c.yaml")
    assert config.folder == tmp_path and "folder" not in str(config.model_dump())


@pytest.mark.parametrize("spec", ["python:part/file.py:value", "part/file.py:value"])
def test_a_file_is_named_by_its_path(tmp_path, spec):
    file = write(tmp_path, "part/file.py", VALUE.format(7))
    assert value(spec, tmp_path) == value(f"{file}:value") == 7
    assert value(f"python:{file}:value") == 7
    with pytest.raises(DataError, match=r"there is no file .*part/file.py"):
        value(spec)


def test_files_of_the_same_name_are_different_modules(tmp_path):
    for place in "ab":
        write(tmp_path, f"{place}/score.py", VALUE.format(repr(place)))
    specs = [f"{tmp_path}/{place}/score.py:value" for place in "abab"]
    assert [value(spec) for spec in specs] == list("abab")


def test_a_file_with_the_name_of_a_library_replaces_nothing(tmp_path):
    file = write(tmp_path / "work", "statistics.py", VALUE.format(1))
    assert value("statistics.py:value") == value(f"{file}:value") == 1
    import statistics

    assert statistics.median([1, 2, 3]) == 2


def test_an_edited_file_is_loaded_again(tmp_path):
    file = write(tmp_path, "mine.py", VALUE.format(1))
    assert value("python:mine:value", tmp_path) == 1
    file.write_text(VALUE.format(2))  # within a second, and of the same size
    assert value("python:mine:value", tmp_path) == 2


def test_a_module_is_loaded_once(tmp_path):
    write(
        tmp_path, "mine.py", "marks = []\n\ndef value():\n    marks.append(1)\n    return marks\n"
    )
    assert value("python:mine:value", tmp_path) is value("python:mine:value", tmp_path)


def test_a_neighbor_of_another_folder_is_refused_by_name(tmp_path):
    for place in "ab":
        write(tmp_path, f"{place}/{place}_score.py", "import aid\n" + VALUE.format("aid.me"))
        write(tmp_path, f"{place}/aid.py", f"me = {place!r}\n")
    assert value("python:a_score:value", tmp_path / "a") == "a"
    with pytest.raises(DataError, match=r"b/aid.py is not what `import aid` gives: .*a/aid.py"):
        value("python:b_score:value", tmp_path / "b")


def test_a_module_of_a_package_imports_its_neighbors(tmp_path):
    write(tmp_path, "pack/__init__.py", "")
    write(tmp_path, "pack/score.py", "from .base import me\n" + VALUE.format("me"))
    write(tmp_path, "pack/base.py", "me = 5\n")
    assert value("python:pack.score:value", tmp_path) == 5


@pytest.mark.parametrize("spec", ["python:mine:value", "mine.py:value", "python:pack.mine:value"])
def test_the_fingerprint_covers_the_file_that_is_loaded_and_its_neighbors(tmp_path, spec):
    folder = "pack" if "pack" in spec else "."
    write(tmp_path, "pack/__init__.py", "")
    prints = []
    for place in ("a", "b"):  # the same name in two folders
        write(tmp_path / place, "pack/__init__.py", "")
        write(tmp_path / place, f"{folder}/mine.py", "import aid\n" + VALUE.format("aid.me"))
        write(tmp_path / place, "aid.py", f"me = {place!r}\n")
        with beside(tmp_path / place):
            prints.append(source_fingerprint(spec, "reward"))
    write(tmp_path / "b", "aid.py", "me = 'a'\n")
    with beside(tmp_path / "b"):
        again = source_fingerprint(spec, "reward")
    assert prints[0] == again != prints[1]


def test_a_function_travels_to_a_process_that_looks_elsewhere(tmp_path):
    write(tmp_path / "config", "far.py", VALUE.format(4))
    with beside(tmp_path / "config"):
        packed = pickle.dumps(python_function("python:far:value", "reward"))
    code = f"import pickle; print(pickle.loads({packed!r})())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd="/")
    assert done.stdout == "4\n", done.stderr


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("python:nowhere_at_all:f", ["No module named 'nowhere_at_all'", "work", "PYTHONPATH"]),
        ("python:bad:nothing", ["has no attribute 'nothing'", "Its functions are brief, polite."]),
        ("python:empty:f", ["has no attribute 'f'", "It defines no function."]),
        ("python:bad", ["must read python:package.module:function or path/to/file.py:function"]),
        ("python::f", ["must read"]),
        ("python:bad:", ["must read"]),
        ("python:a b:f", ["must read"]),
        ("python:bad:constant", ["`constant` is of type int, not a function"]),
        ("python:bad:Kind", ["`Kind` is a class, not a function"]),
        ("python:broken:f", ["importing broken failed: KeyError: 'key' (broken.py, line 2)"]),
        ("python:quits:f", ["importing quits failed: SystemExit: 0 (quits.py, line 1)"]),
        ("python:lacks:f", ["importing lacks failed: ModuleNotFoundError", "absent_library"]),
        ("python:wrong:f", ["importing wrong failed: SyntaxError"]),
    ],
)
def test_what_cannot_be_loaded_is_named_with_the_places(tmp_path, spec, words):
    functions = "from math import sqrt\ndef brief(): ...\ndef polite(): ...\n"
    write(tmp_path, "work/bad.py", f"constant = 3\n\nclass Kind:\n    pass\n{functions}")
    write(tmp_path, "work/empty.py", "from json import dumps\n")
    write(tmp_path, "work/broken.py", "# a comment\n{}['key']\n")
    write(tmp_path, "work/quits.py", "raise SystemExit(0)\n")
    write(tmp_path, "work/lacks.py", "import absent_library\n")
    write(tmp_path, "work/wrong.py", "def f(:\n")
    with pytest.raises(DataError) as error:
        python_function(spec, "reward")
    for word in (f"The reward {spec!r} cannot be loaded", *words):
        assert word in str(error.value)
    assert set(sys.modules).isdisjoint({"broken", "quits", "lacks", "wrong"})


BODY = """
def fails(prompts, completions, **columns):
    raise KeyError("answer")
def quits(prompts, completions, **columns):
    raise SystemExit(0)
def stopped(prompts, completions, **columns):
    raise KeyboardInterrupt
def picky(prompts, completions, answer, tests=None):
    return []
def narrow(completions):
    return [len(c) for c in completions]
async def waits(completions, **columns):
    return [1.0 for c in completions]
async def waits_and_fails(completions, **columns):
    raise OSError("the line is dead")
def fails_alone(text):
    raise ValueError(text)
"""
CALL = {"prompts": ["p"] * 2, "completions": ["one", "two"], "prompt_id": ["a", "b"]}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fails", r"The reward `fails` \(python:own:fails\) failed: KeyError: 'answer' \(own.py, "
         r"line 3\), called with 2 completions of 2 prompts, the first 'a'\. .*--debug"),
        ("quits", r"The reward `quits` .* failed: SystemExit: 0 \(own.py, line 5\)"),
        ("picky", r"`picky` .* needs `answer`, which no column of the prompts provides; they "
         "have none"),
        ("waits_and_fails", r"`waits_and_fails` .* failed: OSError: the line is dead \(own.py"),
    ],
)  # fmt: skip
def test_an_error_inside_a_function_names_it(tmp_path, name, words):
    write(tmp_path, "work/own.py", BODY)
    with pytest.raises(DataError, match=words):
        python_function(f"python:own:{name}", "reward")(**CALL)


def test_the_original_error_is_chained_and_an_interruption_passes(tmp_path):
    write(tmp_path, "work/own.py", BODY)
    with pytest.raises(DataError) as error:
        python_function("python:own:fails", "reward")(**CALL)
    assert isinstance(error.value.__cause__, KeyError)
    with pytest.raises(KeyboardInterrupt):
        python_function("python:own:stopped", "reward")(**CALL)


def test_a_function_gets_what_it_takes_and_an_async_one_runs(tmp_path):
    write(tmp_path, "work/own.py", BODY)
    assert python_function("python:own:narrow", "reward")(**CALL) == [3, 3]
    assert python_function("python:own:picky", "reward")(**CALL, answer=[1, 2], more=0) == []
    assert python_function("python:own:waits", "reward")(**CALL) == [1.0, 1.0]


def test_every_kind_of_function_is_named_by_its_noun(tmp_path):
    write(tmp_path, "work/own.py", BODY)
    with pytest.raises(DataError, match=r"The answers `fails_alone` .* ValueError: a .*with 'a'"):
        python_function("python:own:fails_alone", "answers")("a")
    with pytest.raises(DataError, match=r"The judge `quits` .* failed: (TypeError|SystemExit)"):
        load_judge("python:own:quits")(["p"], ["a"], ["b"])
