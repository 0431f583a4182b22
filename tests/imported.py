"""What code imports, read from its source: nothing is run."""

import ast
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path

import infalign

PACKAGES = {
    "infalign": Path(infalign.__file__).parent,
    "verify": Path(__file__).parent / "verify",
}
"""Packages whose imports are followed."""

LIBRARIES = ("numpy", "scipy")
"""Libraries whose versions belong to a state of the code."""


def imports(node: ast.AST, package: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Full names of all that the code below `node` imports, as (name, not when it is loaded):
    inside a function, or for a type checker only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, False) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = _base(child, package)
            yield from ((f"{base}.{alias.name}", False) for alias in child.names)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or (
                isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            )
            yield from ((name, deep or inside) for name, deep in imports(child, package))


def reached(*files: Path) -> list[Path]:
    """The files of ours that the code of `files` reaches through imports, with `files`.

    A name that a package only passes on leads to the module that defines it: `infalign.design` to
    the design, not to all that `infalign` exports.
    """
    done: set[Path] = set()
    waiting = list(files)
    while waiting:
        file = waiting.pop()
        if file not in done:
            done.add(file)
            names = _names(_text(file), _package(file))
            waiting += {home for name in names if (home := defined_in(name))}
    return sorted(done)


def state(files: Iterable[Path]) -> str:
    """A fingerprint of the code of `files`, without comments and docstrings, and of the libraries
    below it."""
    parts = [*(version(name) for name in LIBRARIES), *(_code(_text(file)) for file in files)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def defined_in(name: str) -> Path | None:
    """The file that defines a dotted name, or is the module; None outside our packages."""
    first, *rest = name.split(".")
    if first not in PACKAGES:
        return None
    file = PACKAGES[first] / "__init__.py"
    while rest and file.name == "__init__.py":
        if below := _module(file.parent / rest[0]):
            file, rest = below, rest[1:]
        elif there := _passed_on(_text(file), _package(file)).get(rest[0]):
            return defined_in(".".join([there, *rest[1:]]))
        else:
            break
    return file


def _module(path: Path) -> Path | None:
    """The file of the module at a path without its ending."""
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.exists()), None)


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _package(file: Path) -> tuple[str, ...]:
    """The package of a file, as the parts of its name."""
    for name, root in PACKAGES.items():
        if file.is_relative_to(root):
            return (name, *file.relative_to(root).parts[:-1])
    return ()


def _base(node: ast.ImportFrom, package: Sequence[str]) -> str:
    """The full name of the module that is imported from."""
    above = package[: len(package) - node.level + 1] if node.level else []
    return ".".join([*above, *([node.module] if node.module else [])])


# Below, what is cached belongs to a text, not to a file, which may change.


@cache
def _passed_on(text: str, package: tuple[str, ...]) -> dict[str, str]:
    """Names that a package imports from elsewhere, each with its full name there."""
    return {
        alias.asname or alias.name: f"{_base(node, package)}.{alias.name}"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@cache
def _names(text: str, package: tuple[str, ...]) -> list[str]:
    """Full names of what a text imports; of a module that it imports under a name, only what it
    uses of it."""
    nodes = list(ast.walk(ast.parse(text)))
    names = []
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            names += [f"{_base(node, package)}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                names += _used(nodes, alias)
    return names


def _used(nodes: Sequence[ast.AST], alias: ast.alias) -> list[str]:
    """Full names of what is used of the module that `import module [as name]` binds."""
    bound = alias.asname or alias.name.partition(".")[0]
    if not alias.asname and alias.name != bound:
        return [alias.name]

    inner = {id(n.value) for n in nodes if isinstance(n, ast.Attribute)}
    uses = [_dotted(node) for node in nodes if id(node) not in inner]
    own = [use for use in uses if use and use.partition(".")[0] == bound]
    return [alias.name + use.removeprefix(bound) for use in own]


def _dotted(node: ast.AST) -> str | None:
    """`name`, `name.attribute` and so on as text."""
    if isinstance(node, ast.Attribute):
        return f"{before}.{node.attr}" if (before := _dotted(node.value)) else None
    return node.id if isinstance(node, ast.Name) else None


class _WithoutWords(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        words = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if words else node


@cache
def _code(text: str) -> str:
    """The code without comments, layout and docstrings."""
    return ast.dump(_WithoutWords().visit(ast.parse(text)))
