"""`infalign`: the commands, and their exit codes.

0: done. 1: failed, with one message. 2: wrong usage. 130: interrupted with Ctrl-C.
"""

import sys
from functools import partial
from typing import Annotated

import typer

import infalign
from infalign.errors import ArgumentError, InfalignError

from . import design, evaluate, explore, frameworks, plan, red_team, run, sample, store, store_files
from .usage import Command, ResumableCommand

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Align a language model for the procedure that will decode it "
    "(InfAlign, arXiv:2412.19792).\n\nExample: infalign demo --quick",
)
command = partial(app.command, cls=Command)
resumable = partial(app.command, cls=ResumableCommand)

resumable(help=run.DEMO_HELP)(run.demo)
resumable(help=run.RUN_HELP)(run.run)
for stage in run.STAGES:
    resumable(name=stage, help=run.stage_help(stage))(run.stage_command(stage))
resumable(help=evaluate.HELP)(evaluate.evaluate)
command(help=plan.HELP)(plan.plan)
command(help=design.HELP)(design.design)
command(help=sample.HELP)(sample.sample)
resumable(name="red-team", help=red_team.HELP)(red_team.red_team)
command(help=explore.HELP)(explore.explore)
command(name="export-prompts", help=frameworks.EXPORT_HELP)(frameworks.export_prompts)
command(name="serve-reward", help=frameworks.SERVE_HELP)(frameworks.serve_reward)
store_files.add_to(store.app)
app.add_typer(store.app, name="store")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"infalign {infalign.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug", help="Show error tracebacks. You can give it before or after a command."
        ),
    ] = False,
):
    """`--debug` is here for the help only: `main` removes it before the arguments are parsed."""


def main() -> None:
    """Entry point of `infalign` and `python -m infalign`."""
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        app(arguments, prog_name="infalign")
    except Exception as error:
        if debug:
            raise
        print(f"infalign: {message(error)}", file=sys.stderr)
        sys.exit(1)


def message(error: Exception) -> str:
    """The package's own errors unchanged; other errors on one line, with their type."""
    if isinstance(error, InfalignError):
        return str(error)
    words = " ".join(str(error).split())
    if type(error) in (ValueError, ArgumentError):  # an argument that breaks a rule
        return words
    name = type(error).__name__
    return f"{name}: {words or 'no message'} (--debug shows where)"
