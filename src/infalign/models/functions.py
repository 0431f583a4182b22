"""Python functions that a specification names: rewards, judges, answer extractions, success tests.

A module is looked for beside the configuration, then in the working directory, then on Python's
path. Whatever the function raises is reported as an error of that function.
"""

import functools
import hashlib
import importlib
import importlib.util
import inspect
import logging
import os
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.machinery import PathFinder
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

from infalign import _check
from infalign.errors import DataError, InfalignError
from infalign.shaping.reward_call import awaited
from infalign.shaping.signature import Parameters, lacks

__all__ = ["PythonFunction", "beside", "holder", "place", "python_function", "searched"]

LOG = logging.getLogger(__name__)

FORM = "python:package.module:function or path/to/file.py:function"

_FOLDER: ContextVar[Path | None] = ContextVar("folder of the configuration", default=None)
CHECKSUM = "__infalign_checksum__"
"""Name under which a module that was loaded from a file keeps the checksum of its source."""


@contextmanager
def beside(folder: Path | None) -> Iterator[None]:
    """Inside the block, modules and files are looked for in `folder` first."""
    token = _FOLDER.set(None if folder is None else Path(folder).resolve())
    try:
        yield
    finally:
        _FOLDER.reset(token)


def searched() -> list[Path]:
    """The folders in which modules and files are looked for, before Python's own path."""
    folders = [_FOLDER.get(), Path.cwd()]
    return list(dict.fromkeys(folder for folder in folders if folder is not None))


class PythonFunction:
    """A user's function, called by name: an exception inside it becomes a DataError that says so.

    The function gets the keyword arguments that its signature takes. An async function runs to its
    end. Ctrl-C passes.

    - `what`: the function's noun in errors, such as "reward".
    - `file`: the file that it was loaded from.
    """

    def __init__(self, function: Callable, what: str, spec: str, file: Path | None = None):
        self.function, self.what, self.spec, self.file = function, what, spec, file
        self.name = getattr(function, "__name__", type(function).__name__)
        functools.update_wrapper(self, function, updated=())
        self.__name__ = self.name
        self.parameters = Parameters.of(function)

    @property
    def called(self) -> str:
        """The function in errors: its noun, its name and its specification."""
        return f"The {self.what} `{self.name}` ({self.spec})"

    def require_columns(self, columns: Collection[str], positional: int = 0) -> None:
        """Raise DataError if the function needs more than these keyword arguments.

        - `positional`: number of arguments that it gets by position.
        """
        missing = self.parameters.missing(columns, positional)
        if missing and positional and not columns:
            raise DataError(
                f"{self.called} needs {_listed(missing)} too, and is called with {positional} "
                f"argument{'s' * (positional > 1)} only. Give it a default, or leave it out."
            )
        if missing:
            raise DataError(lacks(self.called, missing, columns))

    def __call__(self, *arguments, **columns):
        """The function's result."""
        self.require_columns(columns.keys(), len(arguments))
        columns = self.parameters.taken(columns)
        try:
            return awaited(self.function(*arguments, **columns))
        except InfalignError:
            raise
        except (Exception, SystemExit) as error:
            raise DataError(
                f"{self.called} failed: {_raised(error)}"
                f"{_call(arguments, columns)}. Mend the function; --debug shows the traceback."
            ) from error

    def __reduce__(self):
        # Another process may look in other folders, so a file goes by its full path.
        module, spec = sys.modules.get(getattr(self.function, "__module__", "")), self.spec
        if module is not None and hasattr(module, CHECKSUM):
            spec = f"python:{module.__file__}:{spec.rpartition(':')[2]}"
        return python_function, (spec, self.what)


def python_function(spec: str, what: str) -> PythonFunction:
    """The function that `python:package.module:function` or `path/to/file.py:function` names.

    - `what`: the function's noun in errors.

    Raises DataError if the module or the function does not exist, or the module cannot be imported.
    """
    where, name = _parts(spec, what)
    try:
        module = _module(where)
    except InfalignError as error:
        raise DataError(f"The {what} {spec!r} cannot be loaded: {error}") from error
    except (Exception, SystemExit) as error:
        raise DataError(
            f"The {what} {spec!r} cannot be loaded: importing {where} failed: {_raised(error)}."
        ) from error
    try:
        function = attrgetter(name)(module)
    except AttributeError as error:
        raise DataError(
            f"The {what} {spec!r} cannot be loaded: {error}. {_functions_of(module)}"
        ) from error
    if inspect.isclass(function) or not callable(function):
        kind = "a class" if inspect.isclass(function) else f"of type {type(function).__name__}"
        raise DataError(
            f"The {what} {spec!r} cannot be loaded: `{name}` is {kind}, not a function. Name a "
            "function, or an object that can be called."
        )
    file = _source(module)
    if file is not None:
        _say(spec, file)
    return PythonFunction(function, what, spec, file)


def _functions_of(module: ModuleType) -> str:
    """The functions that a module defines, in words."""
    own = [n for n, f in vars(module).items() if inspect.isfunction(f)]
    own = [n for n in own if vars(module)[n].__module__ == module.__name__]
    if not own:
        return "It defines no function."
    return f"Its functions are {', '.join(own[:8])}{', …' if len(own) > 8 else ''}."


@functools.cache
def _say(spec: str, file: Path) -> None:
    """Log, once a process, which file a specification names."""
    LOG.info("%s is loaded from %s.", _check.visible(spec), _check.visible(str(file)))


def place(spec: str, what: str) -> tuple[str, Path | None]:
    """Name and file of the module that a specification names; the file is None if it is in none of
    the folders searched. Nothing is imported.

    Raises DataError if the specification cannot be read, or names a file that does not exist.
    """
    where, _ = _parts(spec, what)
    try:
        file = _file(where)
    except DataError as error:
        raise DataError(f"The {what} {spec!r} cannot be loaded: {error}") from None
    return (file.stem if file is not None and where.endswith(".py") else where), file


def holder(spec: str, what: str, folders: Iterable[Path]) -> Path | None:
    """The first of the folders that has the file of the module that a specification names; None if
    none has it. Nothing is imported.

    Raises DataError if the specification cannot be read.
    """
    where, _ = _parts(spec, what)
    for folder in folders:
        if where.endswith(".py"):
            there = (folder / Path(where).expanduser()).is_file()
        else:
            there = _file_in(folder, where) is not None
        if there:
            return folder
    return None


def _parts(spec: str, what: str) -> tuple[str, str]:
    """The module or file, and the function, of a specification."""
    where, colon, name = spec.removeprefix("python:").rpartition(":")
    file = where.endswith(".py")
    module = spec.startswith("python:") and where.replace(".", "").isidentifier()
    if not (colon and name.replace(".", "").isidentifier() and (file or module)):
        raise DataError(f"The {what} {spec!r} cannot be loaded: it must read {FORM}.")
    return where, name


def _file(where: str) -> Path | None:
    """The file of a module, given by its name or path, in the folders searched."""
    if not where.endswith(".py"):
        files = (_file_in(folder, where) for folder in searched())
        return next((file for file in files if file is not None), None)
    candidates = [folder / Path(where).expanduser() for folder in searched()]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    raise DataError(f"there is no file {_listed(map(str, dict.fromkeys(candidates)))}.")


def _module(name: str) -> ModuleType:
    file = _file(name)
    if file is not None:
        dotted = "." in name and not name.endswith(".py")
        return _imported(name, file) if dotted else _loaded(file)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there; something that it imports is not
        raise DataError(
            f"No module named {error.name!r} beside the configuration, in the working directory or "
            f"on Python's path; looked in {_listed(map(str, searched()))}, then in sys.path. Add "
            "its folder to PYTHONPATH, or name the file: path/to/file.py:function."
        ) from None


def _file_in(folder: Path, name: str) -> Path | None:
    """The file of the dotted module `name` in `folder`. Nothing is imported."""
    path, module = [str(folder)], ""
    for part in name.split("."):
        module = f"{module}.{part}".removeprefix(".")
        spec = PathFinder.find_spec(module, path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or [])
    origin = spec.origin if spec is not None else None
    return None if origin is None or not origin.endswith(".py") else Path(origin).resolve()


def _imported(name: str, file: Path) -> ModuleType:
    """A module of a package, imported under its own name."""
    steps = name.count(".") + (file.name == "__init__.py")
    with _first(file.parents[steps]):
        module = importlib.import_module(name)
    _require_from(module, file)
    return module


def _loaded(file: Path) -> ModuleType:
    """The module of one file, loaded again if it was edited since.

    It has its plain name unless another module could be meant by that.
    """
    package = file.name == "__init__.py"
    plain = file.parent.name if package else file.stem
    unique = f"{plain}_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    code = file.read_bytes()
    checksum = hashlib.sha256(code).hexdigest()
    for name in (plain, unique):
        known = sys.modules.get(name)
        if known is not None and _source(known) == file:
            if getattr(known, CHECKSUM, checksum) == checksum:
                return known
            break
    else:
        name = plain if _is_free(plain, file) else unique
    spec = importlib.util.spec_from_file_location(
        name, file, submodule_search_locations=[str(file.parent)] if package else None
    )
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    setattr(module, CHECKSUM, checksum)
    before, sys.modules[name] = sys.modules.get(name), module
    try:
        with _first(file.parent):
            # Compiled here: the cache of bytecode overlooks an edit within a second.
            exec(compile(code, str(file), "exec"), module.__dict__)
        _require_neighbors(module, file)
    except BaseException:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
        raise
    return module


def _is_free(name: str, file: Path) -> bool:
    """Whether no other module is, or could later be, imported under `name`."""
    if not name.isidentifier() or name in sys.modules or name in sys.builtin_module_names:
        return False
    spec = PathFinder.find_spec(name)
    return spec is None or (spec.origin is not None and Path(spec.origin).resolve() == file)


def _require_neighbors(module: ModuleType, file: Path) -> None:
    """Refuse a neighbor of `file` for which a module of another folder stood in."""
    values = list(vars(module).values())
    for neighbor in file.parent.glob("*.py"):
        other = sys.modules.get(neighbor.stem)
        if other is None or neighbor == file:
            continue
        if any(v is other or getattr(v, "__module__", "") == other.__name__ for v in values):
            _require_from(other, neighbor.resolve())


def _require_from(module: ModuleType, file: Path) -> None:
    source = _source(module)
    if source != file:
        raise DataError(
            f"{file} is not what `import {module.__name__}` gives: the module of that name is "
            f"{source or 'built in'}. Rename one of them."
        )


def _source(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return None if file is None else Path(file).resolve()


@contextmanager
def _first(folder: Path) -> Iterator[None]:
    """`folder` first on Python's path, so that a file can import its neighbors. It stays last on
    the path afterwards, for imports inside functions."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


def _raised(error: BaseException) -> str:
    """An exception in one line: its type, its words and the line that raised it."""
    words = " ".join(str(error).split())
    words = f": {words[:300]}" if words else ""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename != __file__ and os.sep in frame.filename]
    own = [frame for frame in own if "importlib" not in frame.filename]
    line = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}{words}{line}"


def _call(arguments: tuple[Any, ...], columns: dict[str, Any]) -> str:
    """What the function was called with: the number of completions, and the prompt of the first."""
    completions = columns.get("completions")
    if completions is None or not len(completions):
        given = [_check.short(value) for value in arguments]
        return f", called with {_listed(given)}" if given else ""
    ids = list(dict.fromkeys(columns.get("prompt_id") or ()))
    prompts = f" of prompt {ids[0]!r}" if len(ids) == 1 else ""
    if len(ids) > 1:
        prompts = f" of {len(ids)} prompts, the first {ids[0]!r}"
    return f", called with {len(completions)} completions{prompts}"


def _listed(words) -> str:
    return ", ".join(words)
