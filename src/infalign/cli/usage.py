"""Errors, interruptions and unused options, phrased with the command line's option names."""

import shlex
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperCommand

from infalign.errors import ArgumentError, InfalignError

from .terminal import OutputError, discard_output

INTERRUPTED, TERMINATED, BROKEN_PIPE = 128 + 2, 128 + 15, 128 + 13
"""Exit codes after SIGINT (Ctrl-C), SIGTERM and SIGPIPE: 128 + the signal, as in shells."""

SPECIFICATIONS = ("procedure", "transform")
"""Argument names that parsers use for their whole text, whichever option it came from."""


class Terminated(BaseException):
    """SIGTERM arrived. Like KeyboardInterrupt, it passes handlers of errors."""


@contextmanager
def terminable() -> Iterator[None]:
    """Inside the block, SIGTERM raises `Terminated`; a second one ends the process at once."""

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Command(TyperCommand):
    """A command whose errors name its options, and which reports an interruption.

    An invalid library argument is reported under its option's name, with exit code 2. Ctrl-C exits
    with 130, SIGTERM with 143, and a closed pipe with 141.
    """

    continues = ""
    """What is said after an interruption about the folder, `{out}`."""

    def invoke(self, ctx):
        """Run the command."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except ArgumentError as error:
            flags = {parameter.name: flag(parameter) for parameter in self.params}
            if error.argument not in flags:
                raise
            raise typer.BadParameter(
                error.problem, ctx=ctx, param_hint=flags[error.argument]
            ) from error
        except OutputError as error:
            discard_output()
            if error.broken:  # `infalign … | head` has all that it wanted
                raise typer.Exit(BROKEN_PIPE) from None
            out = ctx.params.get("out")
            written = f" The results are in {out}." if out and out.exists() else ""
            print(f"infalign: standard output: {error}.{written}", file=sys.stderr)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            raise self._ended(ctx, "interrupted", INTERRUPTED) from None
        except Terminated:
            raise self._ended(ctx, "terminated", TERMINATED) from None
        except Exception:
            raise
        except BaseException as stop:  # SystemExit, or a class that only code of others raises
            if isinstance(stop, SystemExit) and stop.code == signal.SIGTERM:  # Ray's handler
                raise self._ended(ctx, "terminated", TERMINATED) from None
            raise InfalignError(
                f"Code of a model, reward or library ended the process ({stop!r}); nothing after "
                "that was done."
            ) from stop

    def _ended(self, ctx, how: str, code: int) -> typer.Exit:
        out = ctx.params.get("out")
        more = ""
        if out is not None and self.continues:
            from infalign import storage

            folder = out if out.is_dir() else storage.parts_of(out)
            if folder.exists():
                command = shlex.join(["infalign", *sys.argv[1:]])
                more = f" {self.continues.format(out=folder, command=command)}"
        print(f"infalign: {how}.{more}", file=sys.stderr)
        return typer.Exit(code)


class ResumableCommand(Command):
    """A command that continues after an interruption: in its folder, or in the folder of the parts
    of its file."""

    continues = "What is finished is kept in {out}. This continues: {command}"


def again() -> str:
    """The command line of this process, for another folder."""
    words = sys.argv[1:]
    if "--out" in words:
        at = words.index("--out")
        words = words[:at] + words[at + 2 :]
    words = [word for word in words if not word.startswith("--out=")]
    return f"{shlex.join(['infalign', *words])} --out NEW"


def flag(parameter: Any) -> str:
    """A parameter as a user types it: `--kl`, or the name of an argument."""
    if parameter.param_type_name == "argument":
        return parameter.name
    return max(parameter.opts, key=len)


def read(option: str, parse: Callable, *arguments) -> Any:
    """The result of `parse` on an option's text; an error names the option, with exit code 2.

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
    """Reject any of the parameters `names` that are given on the command line.

    An option that the command does not use in this mode must not be silently accepted.
    """
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        given = source is not None and source.name == "COMMANDLINE"
        if given and parameter.name in names:
            raise typer.BadParameter(reason, ctx=context, param_hint=flag(parameter))


def refuse_of_dry_run(context: typer.Context, dry_run: bool, *names: str) -> None:
    """Reject the options that are not used with --dry-run, and those that only it uses.

    - `names`: the parameters for the results, which a dry run does not have.
    """
    if dry_run:
        refuse(context, "is not used with --dry-run.", *names)
    else:
        refuse(context, "is used with --dry-run only.", "measure")


def others(context: typer.Context, names: Collection[str]) -> list[str]:
    """The command's parameters that are not among `names`."""
    own = (parameter.name for parameter in context.command.params)
    return [name for name in own if name is not None and name not in names]


def named_values(option: str, texts: Sequence[str] | None) -> dict[str, str]:
    """The values of a repeatable NAME=VALUE option; each name may occur only once."""
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
