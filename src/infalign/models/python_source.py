"""Fingerprints of Python functions: the source of their module, and of the local modules that it
imports."""

import ast
import logging
import re
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_file_location
from pathlib import Path

from infalign import storage
from infalign.errors import DataError

from .functions import CHECKSUM, place, python_function, searched

__all__ = ["arguments_named", "local_sources", "source_fingerprint"]

LOG = logging.getLogger(__name__)

UNKNOWN = "source unknown"
"""What stands for the source of a function that has none."""

OWN = Path(__file__).parents[1]
INSTALLED = ("site-packages", "dist-packages")

_running: dict[Path, tuple[ModuleSpec | None, str]] = {}
"""File of a module → the module's specification, if it was imported, and the file's checksum, when
they were last compared. Importing or reloading a module gives it a new specification."""


def source_fingerprint(spec: str, what: str) -> str:
    """The specification `python:package.module:function` with the checksum of its source.

    The source is that of the whole module, and of every local module that it imports, directly or
    through others, also inside functions. Local is what belongs neither to Python nor to infalign
    nor to the folders of installed packages; of the function's own package everything is local.
    No module is executed.

    What cannot be known is not covered: data files and models that the code reads, environment
    variables, servers, the versions of installed packages, and modules that it imports by a name
    that is computed. A function without source, such as a built-in one, has the fingerprint of its
    name only; a warning says so.

    - `what`: the function's noun in errors.

    Raises DataError if the function does not exist, and if a module has changed since this process
    imported it: the old code would run under the new fingerprint.
    """
    module, file = place(spec, what)
    if not _mentions(module, file, spec.rpartition(":")[2].partition(".")[0]):
        python_function(spec, what)  # raises, unless the module finds the name in a way of its own
    files = local_sources(module, file)
    if not files:
        LOG.warning(
            "The %s %s has no source that can be read: when its code changes, its earlier results "
            "are still used.",
            what,
            spec,
        )
        return f"{spec} ({UNKNOWN})"
    words = spec.rpartition("/")[2]  # the folder of a file does not count
    return f"{words} {storage.fingerprint(files)}"


def arguments_named(spec: str, what: str) -> tuple[str, ...] | None:
    """The arguments that the source of a function names; None if it may take any.

    It may take any with `**kwargs`, and where its source does not say: a decorated function, an
    object, a name that is bound twice. No module is executed.

    - `what`: the function's noun in errors.
    """
    name = spec.rpartition(":")[2]
    try:
        tree = ast.parse(_source(*place(spec, what)))
    except (SyntaxError, ValueError):  # loading it fails with a message of its own
        return None
    bound = [node for node in ast.walk(tree) if _binds(node, name)]
    if len(bound) != 1 or bound[0] not in tree.body:
        return None
    node = bound[0]
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.decorator_list:
        return None
    if node.args.kwarg is not None:
        return None
    return tuple(a.arg for a in (*node.args.args, *node.args.kwonlyargs))


def _binds(node: ast.AST, name: str) -> bool:
    """Whether a node may give a name its value."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name == name
    if isinstance(node, ast.Name):
        return node.id == name and not isinstance(node.ctx, ast.Load)
    return isinstance(node, ast.alias) and (node.asname or node.name) in (name, "*")


def _source(module: str, file: Path | None) -> bytes:
    """The source of a module; empty if it has none."""
    if file is None:
        spec = _spec(module)
        file = None if spec is None else _file(spec)
    return b"" if file is None or file.suffix != ".py" else file.read_bytes()


def _mentions(module: str, file: Path | None, name: str) -> bool:
    """Whether the source of a module contains a name."""
    return re.search(rf"\b{re.escape(name)}\b".encode(), _source(module, file)) is not None


def local_sources(module: str, file: Path | None = None) -> list[tuple[str, str]]:
    """Name and checksum of the module's file and of the local modules that it imports; empty if
    the module has no file.

    - `file`: the module's file. Default: where Python finds it.
    """
    start = _spec(module) if file is None else spec_from_file_location(module, file)
    beside = [] if file is None else [str(file.parent)]
    if start is None or not _file(start):
        return []
    package = module.partition(".")[0]
    known: dict[str, str] = {}
    waiting = _with_parents(module)
    while waiting:
        name = waiting.pop()
        if name in known:
            continue
        spec = start if name == module else _spec(name, beside)
        file = None if spec is None else _file(spec)
        if spec is None or file is None or not (name == module or _local(file, name, package)):
            continue
        known[name] = storage.sha256(file)
        _require_running(name, file, known[name])
        if file.suffix == ".py":
            imported = _imports(file, name, spec, beside)
            waiting += [n for i in imported for n in _with_parents(i)]
    return sorted(known.items())


def _require_running(name: str, file: Path, checksum: str) -> None:
    """Raise DataError if this process runs another version of a module than its file holds."""
    if hasattr(sys.modules.get(name), CHECKSUM):
        return  # a file's own module is loaded again when the file is edited
    loaded = getattr(sys.modules.get(name), "__spec__", None)
    before, known = _running.get(file, (None, checksum))
    if loaded is not None and known != checksum and (before is None or before is loaded):
        raise DataError(
            f"{file} has changed since this process imported it, so the process still runs its "
            "old code. Start a new process, or reload the module with importlib.reload."
        )
    _running[file] = loaded, checksum


def _with_parents(name: str) -> list[str]:
    """A module's name and those of the packages around it, whose code runs before it."""
    words = name.split(".")
    return [".".join(words[: i + 1]) for i in range(len(words))]


def _spec(name: str, beside: Sequence[str] = ()) -> ModuleSpec | None:
    """Where Python finds a module, without running the packages around it.

    - `beside`: folders that are searched first.
    """
    own = _spec_in(name, beside) if beside else None
    if own is not None:
        return own
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None):
        # A script has no specification.
        return loaded.__spec__ or ModuleSpec(name, None, origin=loaded.__file__)
    return _spec_in(name, [*map(str, searched()), *sys.path])


def _spec_in(name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    spec = None
    for number, part in enumerate(_with_parents(name)):
        if number and path is None:
            return None  # what is around it is a module, not a package
        try:
            spec = PathFinder.find_spec(part, path)
        except (ImportError, ValueError):
            return None
        if spec is None:
            return None
        path = spec.submodule_search_locations
    return spec


def _file(spec: ModuleSpec) -> Path | None:
    """The file of a module: its source, or a compiled one that has none."""
    file = Path(spec.origin) if spec.origin else None
    return file if file is not None and file.is_file() else None


def _local(file: Path, name: str, package: str) -> bool:
    if name.partition(".")[0] == package:
        return True
    return not (
        any(part in INSTALLED for part in file.parts)
        or file.is_relative_to(OWN)
        or any(file.is_relative_to(sysconfig.get_path(k)) for k in ("stdlib", "platstdlib"))
    )


def _imports(file: Path, name: str, spec: ModuleSpec, beside: Sequence[str]) -> Iterator[str]:
    """Names of everything that a module's source imports; some of them are no modules."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # loading it fails with a message of its own
        return
    around = name.split(".") if spec.submodule_search_locations else name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = around[: len(around) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            if base:
                yield base
            for alias in node.names:
                yield from _below(base, alias.name, beside)


def _below(base: str, name: str, beside: Sequence[str]) -> Sequence[str]:
    """The modules that `from base import name` may import; for * every module of the package,
    because `__all__` may name them."""
    if name != "*":
        return [f"{base}.{name}" if base else name]
    spec = _spec(base, beside)
    folders = (spec.submodule_search_locations if spec else None) or []
    return [f"{base}.{f.stem}" for folder in folders for f in sorted(Path(folder).glob("*.py"))]
