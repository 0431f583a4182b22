"""`infalign explore`: the interactive page."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def explore(
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write the page; explorer.html unless it is served."),
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the page to this machine until Ctrl-C.")
    ] = False,
    port: Annotated[int | None, typer.Option(help="Port to serve at; a free one if 0.")] = None,
):
    """Interactive page on which to understand and choose a transform. Works offline.

    Example: infalign explore --out explorer.html
    """
    if port is not None and not serve:
        raise typer.BadParameter("only `--serve` uses it.", param_hint="--port")
    from infalign import explorer

    if out or not serve:
        print(explorer.write_page(out or Path("explorer.html")))
    if serve:
        print("Ctrl-C ends it.", file=sys.stderr)
        explorer.serve(port or 0, lambda address: print(address, flush=True))
