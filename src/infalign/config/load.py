"""Reading a configuration: from YAML or values, with errors that name the key."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml
from pydantic_core import ErrorDetails

from infalign.errors import ConfigError

from .schema import Config, Section

SectionType = TypeVar("SectionType", bound=Section)


def load_config(path: Path, overrides: tuple[str, ...] = ()) -> Config:
    """The configuration in a YAML file, with `section.key=value` overrides applied.

    Raises ConfigError for a file that cannot be read, for an unknown key (naming the nearest known
    one) and for a value out of range.
    """
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"Configuration file {path} does not exist.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold `key: value` lines; got {type(data).__name__}.")
    for override in overrides:
        _apply(data, override)
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
        raise ConfigError("\n".join(_explain(kind, e) for e in error.errors())) from None


def _apply(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise ConfigError(f"An override must read `section.key=value`; got {override!r}.")
    *sections, name = key.split(".")
    for section in sections:
        data = data.setdefault(section, {})
        if not isinstance(data, dict):
            raise ConfigError(f"`{section}` in {override!r} is a value, not a section.")
    data[name] = yaml.safe_load(value)


def _explain(kind: type[Section], error: ErrorDetails) -> str:
    location = error["loc"]
    where = ".".join(map(str, location))
    if error["type"] == "extra_forbidden":
        known = _known_keys(kind, location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        hint = f"Did you mean `{near[0]}`?" if near else f"Known keys: {', '.join(sorted(known))}."
        return f"Unknown key `{where}` in the configuration. {hint}"
    if error["type"] == "missing":
        return f"The configuration needs `{where}`."
    message = error["msg"].removeprefix("Value error, ").removesuffix(".")
    if not where:
        return f"The configuration is not consistent: {message}."
    return f"`{where}` in the configuration: {message}; got {error['input']!r}."


def _known_keys(section: Any, location: tuple[int | str, ...]) -> list[str]:
    for name in location:
        section = section.model_fields[name].annotation
    return list(section.model_fields)
