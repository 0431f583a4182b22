"""`infalign export-prompts` and `serve-reward`: a run's reward in other frameworks."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

RunFolder = Annotated[Path, typer.Argument(help="Run folder, brought up to `design` at least.")]
FRAMEWORKS = ("verl", "openrlhf", "trl")


def export_prompts(
    run: RunFolder,
    framework: Annotated[str, typer.Option("--for", help="verl, openrlhf or trl.")],
    out: Annotated[Path, typer.Option(help="Folder that the files go to; they are replaced.")],
):
    """Write a run's training prompts as another framework reads them, with their ids.

    Prints the framework's settings that keep the objective, the β of the design among them: one
    word a line, for its command line.

    Example: infalign export-prompts runs/mine --for verl --out data
    """
    if framework not in FRAMEWORKS:
        raise typer.BadParameter(
            f"must be {', '.join(FRAMEWORKS)}; got {framework!r}.", param_hint="--for"
        )
    from infalign.frameworks.export import export_prompts
    from infalign.frameworks.opened import open_run

    for word in export_prompts(open_run(run), framework, out):
        print(word)
    print(f"Prompts are in {out}. docs/frameworks.md says how to start it.", file=sys.stderr)


def serve_reward(
    run: RunFolder,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; a free one if 0.")] = 8000,
    raw: Annotated[
        bool, typer.Option("--raw", help="Answer the raw reward, not the shaped one.")
    ] = False,
    batch: Annotated[int, typer.Option(help="Responses scored at once, at most.")] = 256,
    window_ms: Annotated[
        float, typer.Option(help="Milliseconds to wait for more before scoring.")
    ] = 5.0,
    waiting: Annotated[
        int, typer.Option(help="Responses that may wait; above it the answer is 503.")
    ] = 16384,
    largest_mb: Annotated[float, typer.Option(help="Largest request, in megabytes.")] = 32.0,
):
    """Serve a run's reward over HTTP, as OpenRLHF and other runs ask for it.

    Prints the address and, as JSON, what it serves. There is no password: whoever reaches the
    address may ask.

    Example: infalign serve-reward runs/mine --port 8000
    """
    from infalign.frameworks.opened import open_run, policy_text, run_scorer
    from infalign.frameworks.server import make_app, serve
    from infalign.pipeline.read import read_design

    from .run import quiet_libraries

    quiet_libraries()
    opened = open_run(run)
    _, beta, kl = read_design(opened)
    about = {
        "reward": opened.config.reward,
        "answers": "raw" if raw else "shaped",
        "prompts": len(opened.prompts),
        **({} if raw else {"beta": beta, "kl": kl}),
    }
    app = make_app(
        run_scorer(opened, raw=raw),
        text=policy_text(opened),
        about=about,
        window=window_ms / 1000,
        batch=batch,
        waiting=waiting,
        largest=int(largest_mb * 2**20),
    )

    def announce(address):
        print(json.dumps({"url": address, **about}), flush=True)
        print("Ctrl-C ends it.", file=sys.stderr)

    serve(app, host, port, announce)
