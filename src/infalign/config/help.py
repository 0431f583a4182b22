"""Descriptions of the configuration's keys, for help and docs."""

from collections.abc import Iterator

from pydantic import BaseModel

from .schema import Config, Listed

__all__ = ["describe"]


def describe(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """One line per key with its name, default and meaning; below it, the values that a table
    lists."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from describe(kind, f"{prefix}{name}.")
            continue
        default = field.default if not field.is_required() else None
        if isinstance(default, tuple):
            default = " ".join(map(str, default))
        stated = "" if default in (None, {}, "") else f" (default: {default})"
        listed = [
            line for mark in field.metadata if isinstance(mark, Listed) for line in mark.lines()
        ]
        meaning = " ".join(str(field.description).split())
        if len(listed) == 1:
            yield f"  {prefix}{name}{stated}: {meaning} {listed[0]}"
        else:
            yield f"  {prefix}{name}{stated}: {meaning}"
            yield from (f"    {line}" for line in listed)
