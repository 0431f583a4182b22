"""The text of a first configuration, and of a reward function to edit.

The comments of the configuration are the descriptions of the schema's keys.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from pydantic import BaseModel

from infalign.config import Config, Listed

WIDTH = 100

RUN = "runs/first"
"""The run folder of the proposed commands."""

HEAD = """\
# Written by `infalign init`. Change whatever you like; `infalign run --help` lists all keys, and
# `infalign list procedures` (methods, transforms, calibrators, rewards) lists what can be chosen.
#
# Check everything before the first generation: infalign run {name} --dry-run
# Run, or continue after an interruption:       infalign run {name} --out {run}
"""

REWARD = '''\
"""A reward function: `reward: {file}:score` in {name}.

It is called as TRL calls reward functions, so it also works in TRL's own trainers.
"""


def score(prompts, completions, **columns):
    """One number per completion; higher is better.

{parameters}
    """
    return [_score(completion{text}) for completion in completions]


def _score(text):
    """An example to replace: the closer to 100 characters, the better."""
    return -abs(len(text) - 100) / 100
'''


def configuration(values: Mapping[str, Any], name: str) -> str:
    """A commented configuration with these values, section by section.

    - `name`: the file's name, for the commands that its head shows.
    """
    return "\n".join([HEAD.format(name=name, run=RUN), *_section(Config, values, "")]) + "\n"


def reward_function(file: str, name: str, plain: bool, columns: Sequence[str]) -> str:
    """The text of a Python file with a reward function to edit.

    - `plain`: whether prompts and completions are texts, not messages.
    - `columns`: the other columns of the prompts.
    """
    form = "a text" if plain else 'a list of messages, {"role": …, "content": …}'
    reply = "a text" if plain else '[{"role": "assistant", "content": TEXT}]'
    lines = [
        f"prompts: the prompt of each completion, {form}.",
        f"completions: {reply} each.",
    ]
    named = [column for column in columns if column.isidentifier()]
    if columns:
        lines.append(
            f"columns: lists of the other columns of the prompts, {', '.join(columns)}. A "
            "parameter of a column's name gets its list"
            + (f": def score(prompts, completions, {named[0]}, **columns)." if named else ".")
        )
    else:
        lines.append("columns: other columns of the prompts, of which there are none so far.")
    wrapped = (
        textwrap.wrap(line, WIDTH, initial_indent="    - ", subsequent_indent="      ")
        for line in lines
    )
    return REWARD.format(
        file=file,
        name=name,
        parameters="\n".join(line for part in wrapped for line in part),
        text="" if plain else '[-1]["content"]',
    )


def _section(section: type[BaseModel], values: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in values.items():
        known = section.model_fields[key]
        inner = known.annotation
        meaning = " ".join(str(known.description or "").split())
        listed = [mark.lines() for mark in known.metadata if isinstance(mark, Listed)]
        if listed and len(listed[0]) == 1:
            meaning = f"{meaning} {listed[0][0]}"
        if isinstance(value, Mapping) and isinstance(inner, type) and issubclass(inner, BaseModel):
            yield "" if not indent else f"{indent}#"
            yield from _comment(meaning or (inner.__doc__ or "").strip(), indent)
            yield f"{indent}{key}:"
            yield from _section(inner, value, indent + "  ")
            continue
        yield from _comment(meaning, indent)
        yield f"{indent}{key}: {_scalar(value)}"
    if others := [name for name in section.model_fields if name not in values]:
        yield from [] if indent else [""]
        yield from _comment(f"Also: {', '.join(others)}.", indent)


def _comment(words: str, indent: str) -> list[str]:
    first = f"{indent}# "
    return textwrap.wrap(
        words,
        WIDTH,
        initial_indent=first,
        subsequent_indent=first,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _scalar(value) -> str:
    """A value on one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("...\n").strip()
