"""YAML as configurations need it: small, without surprises, and refused with file and line.

A document of a few bytes can stand for gigabytes through aliases, and a duplicate key silently
replaces the first. Neither passes.
"""

from pathlib import Path
from typing import Any

import yaml

from infalign._check import short
from infalign.errors import ConfigError

__all__ = ["parse", "read_document"]

BYTES, VALUES, DEEPEST = 2**18, 20_000, 30
"""Largest file, largest number of values with aliases written out, and deepest nesting."""

Sizes = dict[int, tuple[int, int]]


def read_document(path: Path) -> Any:
    """The value of a YAML file. Raises ConfigError for what is not a file of UTF-8 or not YAML."""
    try:
        if path.is_dir():
            raise ConfigError(f"{path} is a folder. Name the configuration file in it.")
        if not path.exists():
            raise ConfigError(f"Configuration file {path} does not exist.")
        if not path.is_file():  # reading a pipe may never end
            raise ConfigError(f"{path} is not a regular file. Write the configuration into one.")
        with path.open("rb") as file:
            content = file.read(BYTES + 1)
    except ConfigError:
        raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:  # a null character
        raise ConfigError(f"{short(str(path))} is no path: {error}.") from None
    if len(content) > BYTES:
        raise ConfigError(f"{path} has more than {BYTES:,} bytes, too many for a configuration.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path} is not valid YAML: line {line} is not UTF-8 (byte "
            f"0x{content[error.start]:02x}). Save the file as UTF-8."
        ) from None
    return parse(text, str(path))


def parse(text: str, name: str) -> Any:
    """The value of a YAML text; errors call it `name`. Values that aliases share are copied."""
    problem = f"{name} is not valid YAML"
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _measured(node, {})
        return _unshared(loader.construct_document(node))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        words = str(error.problem or error.context)
        if error.context and words.startswith("but "):
            words = f"{error.context} {words}"
        raise ConfigError(f"{problem}: {at}{' '.join(words.split())[:200]}.") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        sign = short(text[error.position : error.position + 1])
        raise ConfigError(f"{problem}: line {line} holds {sign}, which YAML forbids.") from None
    except RecursionError:
        raise ConfigError(f"{problem}: it is nested more than {DEEPEST} deep.") from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError) as error:
        # Such as the 13th month, or an integer of more digits than Python reads.
        raise ConfigError(f"{problem}: a value cannot be read ({short(str(error))}).") from None


class _Loader(yaml.SafeLoader):
    """Plain values only, no key twice, and no deeper than `DEEPEST`."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node and those in it."""
        if self._depth > DEEPEST:
            raise _refused(self.peek_event(), f"nested more than {DEEPEST} deep")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        """A mapping."""
        node = super().compose_mapping_node(anchor)
        keys = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if (key.tag, key.value) in keys:
                    raise _refused(key, f"the key {short(key.value)} is given twice")
                keys.add((key.tag, key.value))
        return node


def _refused(place: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)


def _measured(node: Any, sizes: Sizes, above: frozenset[int] = frozenset()) -> tuple[int, int]:
    """Number of values below a node and how deep they are, with aliases written out."""
    if id(node) in above:
        raise _refused(node, "it holds itself")
    if id(node) not in sizes:
        size, height = 1, 0
        inside = above | {id(node)}
        if isinstance(node, yaml.CollectionNode):
            for entry in node.value:
                for part in entry if isinstance(entry, tuple) else (entry,):
                    more, high = _measured(part, sizes, inside)
                    size, height = size + more, max(height, high)
        if size > VALUES:
            raise _refused(node, f"it stands for more than {VALUES:,} values")
        if height >= DEEPEST:
            raise _refused(node, f"nested more than {DEEPEST} deep")
        sizes[id(node)] = size, height + 1
    return sizes[id(node)]


def _unshared(value: Any) -> Any:
    """A copy in which a change of one part does not change another."""
    if isinstance(value, dict):
        return {key: _unshared(item) for key, item in value.items()}
    return [_unshared(item) for item in value] if isinstance(value, list) else value
