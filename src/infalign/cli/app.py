"""`infalign`: the commands, and how their errors are told."""

import sys
from typing import Annotated

import typer

from infalign.errors import InfalignError

from . import design, run

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Align a language model for the procedure it will be decoded with "
    "(InfAlign, arXiv:2412.19792).",
)
app.command()(run.demo)
app.command(name="run", help=run.RUN_HELP)(run.run)
for stage, purpose in run.STAGE_HELP.items():
    app.command(name=stage, help=purpose)(run.stage_command(stage))
app.command()(design.design)


@app.callback()
def _options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
):
    context.obj = {"debug": debug}


def main() -> None:
    """Entry point: exit 0 when done, 1 with one message when it failed, 2 for wrong usage."""
    try:
        app()
    except (InfalignError, ValueError) as error:
        if "--debug" in sys.argv:
            raise
        print(f"infalign: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("infalign: interrupted; the same command continues the run.", file=sys.stderr)
        sys.exit(1)
