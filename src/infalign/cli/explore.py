"""`infalign explore`: the interactive page."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from .usage import refuse

HELP = (
    "Write or serve an interactive page that explains transforms and helps you choose one.\n\n"
    "The page works offline.\n\n"
    "Example: infalign explore --out explorer.html"
)


def explore(
    context: typer.Context,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write the page to. Default: explorer.html, or no file with --serve."
        ),
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the page on this machine until Ctrl-C.")
    ] = False,
    port: Annotated[int, typer.Option(help="Port to serve on; 0 picks a free port.")] = 0,
):
    if not serve:
        refuse(context, "is used with --serve only.", "port")
    from infalign import explorer

    if out or not serve:
        print(explorer.write_page(out or Path("explorer.html")))
    if serve:
        print("Ctrl-C ends it.", file=sys.stderr)
        explorer.serve(port, lambda address: print(address, flush=True))
