"""Reading a configuration: from YAML or values, with errors that name the key."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import pydantic
from pydantic_core import ErrorDetails

from infalign._check import nearest, short, visible
from infalign.errors import ConfigError

from .documents import parse, read_document
from .schema import Config, Section

__all__ = ["apply", "load_config", "parse_config", "read_section", "require_trust"]

SectionType = TypeVar("SectionType", bound=Section)

SHOWN, LONGEST = 10, 600
"""Largest number of errors shown at once, and of characters of a sentence about one."""


def load_config(path: Path, overrides: tuple[str, ...] = ()) -> Config:
    """The configuration in a YAML file, with `section.key=value` overrides applied.

    Raises ConfigError for a file that cannot be read, for an unknown key (naming the nearest known
    one) and for a value out of range.
    """
    data = read_document(Path(path))
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold `key: value` lines; got {type(data).__name__}.")
    for override in overrides:
        apply(data, override)
    config = parse_config(data)
    config._folder = Path(path).resolve().parent
    return config


def parse_config(data: Mapping[str, Any]) -> Config:
    """The configuration in `data`; ConfigError names each invalid key."""
    return read_section(Config, data)


def read_section(kind: type[SectionType], values: Mapping[str, Any]) -> SectionType:
    """A section of the configuration from its values; ConfigError names each invalid key."""
    try:
        return kind.model_validate(values)
    except pydantic.ValidationError as error:
        problems = [_explain(kind, e) for e in error.errors()]
        more = [f"(and {len(problems) - SHOWN} more)"] if len(problems) > SHOWN else []
        raise ConfigError("\n".join(problems[:SHOWN] + more)) from None


def apply(data: dict[str, Any], override: str) -> None:
    """Change `data` as a `section.key=value` override says."""
    stated = f"The override {short(override)}"
    key, equals, value = override.partition("=")
    *sections, name = key.split(".")
    if not (equals and all([*sections, name])):
        raise ConfigError(f"{stated} must read `section.key=value`.")
    for section in sections:
        data = data.setdefault(section, {})
        if not isinstance(data, dict):
            raise ConfigError(f"{stated}: `{_cut(section)}` is a value, not a section.")
    data[name] = parse(value, stated)


FORMS = {
    "model_type": "must be a section of `key: value` lines",
    "dict_type": "must be a map from names to values",
    "tuple_type": "must be a list",
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
}
"""What a value of the wrong form must be, by pydantic's name of the error."""


def _explain(kind: type[Section], error: ErrorDetails) -> str:
    location = error["loc"]
    where = _cut(".".join(map(str, location)))
    if error["type"] == "extra_forbidden":
        known = _known_keys(kind, location[:-1])
        near = difflib.get_close_matches(str(location[-1])[:100], known, n=1, cutoff=0.5)
        hint = f"Did you mean `{near[0]}`?" if near else f"Known keys: {', '.join(sorted(known))}."
        return f"Unknown key `{where}` in the configuration. {hint}"
    if error["type"] == "missing":
        return f"The configuration needs `{where}`."
    message = error["msg"].removeprefix("Value error, ").removesuffix(".")
    hint = ""
    if error["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        *others, last = choices
        message = f"must be {', '.join(others)} or {last}" if others else f"must be {last}"
        hint = nearest(error["input"], choices)
    elif "must be one of " in message:  # the names in a table
        hint = nearest(error["input"], message.rpartition("must be one of ")[2].split(", "))
    message = FORMS.get(error["type"]) or message.replace("Input should be", "must be", 1)
    if error["type"] == "tuple_type" and isinstance(error["input"], str | int | float):
        hint = f" Write {location[-1]}: [{_cut(str(error['input']))}]."
    if error["type"] == "dict_type" and isinstance(error["input"], str):
        hint = f" Write {location[-1]}: {{NAME: {_cut(error['input'])}}}."
    message = message if len(message) <= LONGEST else f"{message[:LONGEST]}…"
    if not where:
        end = "" if message.endswith("?") else "."
        return f"The configuration is not consistent: {message}{end}"
    return f"`{where}` in the configuration: {message}; got {short(error['input'])}.{hint}"


def _known_keys(section: Any, location: tuple[int | str, ...]) -> list[str]:
    for name in location:
        section = section.model_fields[name].annotation
        for choice in get_args(section):  # a section or None
            if isinstance(choice, type) and issubclass(choice, Section):
                section = choice
    return list(section.model_fields)


def _cut(name: str) -> str:
    return visible(name if len(name) <= 80 else f"{name[:79]}…")


def require_trust(config: Config, file: Path, given: bool) -> None:
    """Raise ConfigError if a configuration in a run folder sets `trust_remote_code`, unless the
    permission was also given for this command. The folder may be somebody else's."""
    if config.trust_remote_code and not given:
        raise ConfigError(
            f"{file} sets `trust_remote_code`, so this run's models bring code that runs on this "
            "machine. If you trust whoever made the run, allow it with --trust-remote-code (in "
            "Python: trust_remote_code=True)."
        )
