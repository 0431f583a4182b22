"""`infalign`: the commands, and how their errors are told."""

import sys
from functools import partial
from typing import Annotated

import typer

from infalign.errors import ArgumentError, InfalignError

from . import design, evaluate, explore, frameworks, red_team, run, sample, store, store_files
from .usage import Command

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Align a language model for the procedure it will be decoded with "
    "(InfAlign, arXiv:2412.19792).",
)
command = partial(app.command, cls=Command)
command()(run.demo)
command(name="run", help=run.RUN_HELP)(run.run)
for stage, purpose in run.STAGE_HELP.items():
    command(name=stage, help=purpose)(run.stage_command(stage))
command(help=evaluate.HELP)(evaluate.evaluate)
command(help=design.DESIGN_HELP)(design.design)
command(help=sample.HELP)(sample.sample)
command(name="red-team", help=red_team.HELP)(red_team.red_team)
command()(explore.explore)
command(name="export-prompts")(frameworks.export_prompts)
command(name="serve-reward")(frameworks.serve_reward)
store_files.add_to(store.app)
app.add_typer(store.app, name="store")


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks of errors; before or after a command.")
    ] = False,
):
    """Only for the help: `main` has taken `--debug` out by the time this is read."""


def main() -> None:
    """Entry point: exit 0 when done, 1 with one message when it failed, 2 for wrong usage."""
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        app(arguments)
    except KeyboardInterrupt:
        print("infalign: interrupted; the same command continues the run.", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        print(f"infalign: {_told(error)}", file=sys.stderr)
        sys.exit(1)


def _told(error: Exception) -> str:
    """Our own words as they are; what others raise on one line, with its kind."""
    if isinstance(error, InfalignError):
        return str(error)
    words = " ".join(str(error).split())
    if type(error) in (ValueError, ArgumentError):  # an argument that breaks a rule
        return words
    name = type(error).__name__
    return f"{name}: {words or 'no message'} (--debug shows where)"
