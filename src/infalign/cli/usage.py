"""Errors and unused options in the words of the command line."""

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand

from infalign.errors import ArgumentError

SPECIFICATIONS = ("procedure", "transform")
"""Arguments that a parser calls its whole text, whichever option the text came from."""


class Command(TyperCommand):
    """A command that reports an invalid argument of the library as its option, with exit code 2."""

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


def flag(parameter) -> str:
    """A parameter as a user types it: `--kl`, or the name of an argument."""
    if parameter.param_type_name == "argument":
        return parameter.human_readable_name
    return max(parameter.opts, key=len)


def read(option: str, parse: Callable, *arguments) -> Any:
    """What `parse` makes of an option's text; an error names the option, with exit code 2.

    An error about a part of the text, such as `n` of `best-of-n:0`, keeps the part's name.
    """
    try:
        return parse(*arguments)
    except ValueError as error:
        whole = isinstance(error, ArgumentError) and error.argument in (option, *SPECIFICATIONS)
        message = error.problem if whole else str(error)
        raise typer.BadParameter(message, param_hint=f"--{option}") from error
