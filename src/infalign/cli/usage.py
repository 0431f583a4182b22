"""Errors and unused options in the words of the command line."""

import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any

import typer
from typer.core import TyperCommand

from infalign.errors import ArgumentError

INTERRUPTED = 128 + 2
"""Exit code after Ctrl-C: 128 + SIGINT, as shells have it."""

SPECIFICATIONS = ("procedure", "transform")
"""Arguments that a parser calls its whole text, whichever option the text came from."""


class Command(TyperCommand):
    """A command that names its options in errors, and says how it ends when interrupted.

    An invalid argument of the library exits with 2 as its option, Ctrl-C with 130.
    """

    interrupted = "infalign: interrupted."

    def invoke(self, ctx):
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ArgumentError as error:
            flags = {parameter.name: flag(parameter) for parameter in self.params}
            if error.argument not in flags:
                raise
            raise typer.BadParameter(
                error.problem, ctx=ctx, param_hint=flags[error.argument]
            ) from error
        except KeyboardInterrupt:
            print(self.interrupted, file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None


class ResumableCommand(Command):
    """A command that continues in the same folder after an interruption."""

    interrupted = "infalign: interrupted. The same command continues."


def flag(parameter: Any) -> str:
    """A parameter as a user types it: `--kl`, or the name of an argument."""
    if parameter.param_type_name == "argument":
        return parameter.name
    return max(parameter.opts, key=len)


def read(option: str, parse: Callable, *arguments) -> Any:
    """What `parse` makes of an option's text; an error names the option, with exit code 2.

    An error about a part of the text, such as `n` of `best-of-n:0`, keeps the part's name.
    """
    try:
        return parse(*arguments)
    except ValueError as error:
        message = str(error)
        if isinstance(error, ArgumentError) and error.argument in (option, *SPECIFICATIONS):
            message = error.problem
        raise typer.BadParameter(message, param_hint=f"--{option}") from error


def refuse(context: typer.Context, reason: str, *names: str) -> None:
    """Refuse those of the parameters `names` that the command line gives.

    An option that a mode of a command does not use must not be accepted in silence.
    """
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        given = source is not None and source.name == "COMMANDLINE"
        if given and parameter.name in names:
            raise typer.BadParameter(reason, ctx=context, param_hint=flag(parameter))


def others(context: typer.Context, names: Collection[str]) -> list[str]:
    """The command's parameters that are not among `names`."""
    own = (parameter.name for parameter in context.command.params)
    return [name for name in own if name is not None and name not in names]


def named_values(option: str, texts: Sequence[str] | None) -> dict[str, str]:
    """The values of a repeatable option that reads NAME=VALUE; each name once."""
    values: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise typer.BadParameter(f"must be NAME=VALUE; got {text!r}.", param_hint=option)
        if name in values:
            raise typer.BadParameter(
                f"names {name!r} twice. Give each value its own name.", param_hint=option
            )
        values[name] = value
    return values
