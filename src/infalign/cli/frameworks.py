"""`infalign export-prompts` and `serve-reward`: a run's reward in other frameworks."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .progress import quiet_libraries
from .terminal import print_json

RunFolder = Annotated[Path, typer.Argument(help="Run folder. Its design stage must be finished.")]


TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Allow code that comes with the run's models to run on this machine.",
    ),
]


class Framework(StrEnum):
    """Frameworks to which prompts can be exported."""

    verl = "verl"
    openrlhf = "openrlhf"
    trl = "trl"


EXPORT_HELP = (
    "Write a run's training prompts and their ids in the format of another framework.\n\n"
    "It also prints arguments for the framework's command line, one per line. These settings, such "
    "as the design's β, keep the training objective the same.\n\n"
    "Example: infalign export-prompts runs/mine --for verl --out data"
)
SERVE_HELP = (
    "Serve a run's reward over HTTP, for OpenRLHF or another infalign run.\n\n"
    "It prints the URL and a description of the reward as JSON. There is no password: anyone who "
    "can reach the URL can use the reward.\n\n"
    "Example: infalign serve-reward runs/mine --port 8000"
)


def export_prompts(
    run: RunFolder,
    framework: Annotated[Framework, typer.Option("--for", help="Framework to write for.")],
    out: Annotated[Path, typer.Option(help="Folder for the files. Existing files are replaced.")],
    trust_remote_code: TrustRemoteCode = False,
):
    from infalign.frameworks.export import export_prompts
    from infalign.frameworks.opened import open_run

    opened = open_run(run, trust_remote_code=trust_remote_code)
    for word in export_prompts(opened, framework.value, out):
        print(word)
    print(f"Prompts are in {out}. docs/frameworks.md shows how to start.", file=sys.stderr)


def serve_reward(
    run: RunFolder,
    host: Annotated[
        str, typer.Option(help="Address to listen on. 0.0.0.0 admits other machines.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free port.")] = 8000,
    raw: Annotated[
        bool, typer.Option("--raw", help="Serve the raw reward instead of the shaped one.")
    ] = False,
    batch: Annotated[int, typer.Option(help="Maximum number of responses scored per batch.")] = 256,
    window_ms: Annotated[
        float, typer.Option(help="Milliseconds to wait for more responses before scoring.")
    ] = 5.0,
    waiting: Annotated[
        int,
        typer.Option(
            help="Maximum number of waiting responses. Requests beyond it get status 503."
        ),
    ] = 16384,
    largest_mb: Annotated[
        float, typer.Option(help="Maximum size of a request, in megabytes.")
    ] = 32.0,
    arrival: Annotated[
        float, typer.Option(help="Seconds in which a request must arrive, or it gets status 408.")
    ] = 30.0,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Host name under which requests are answered; repeat it for more. Default: this "
            "machine's own for a --host that other machines cannot reach, any for another."
        ),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
):
    from infalign.frameworks.opened import open_run, policy_text, run_scorer
    from infalign.frameworks.serving import hosts_of, make_app, serve
    from infalign.pipeline.read import read_design

    quiet_libraries()
    opened = open_run(run, trust_remote_code=trust_remote_code)
    design = read_design(opened)
    scorer = run_scorer(opened, raw=raw)
    about = {
        "reward": opened.config.reward,
        "answers": "raw" if raw else "shaped",
        "prompts": len(opened.prompts),
        **({} if raw else {"beta": design.beta, "kl": design.target_kl}),
    }
    app = make_app(
        scorer,
        text=policy_text(opened),
        about=about,
        window=window_ms / 1000,
        batch=batch,
        waiting=waiting,
        largest=int(largest_mb * 2**20),
        arrival=arrival,
        hosts=hosts_of(host, allow_host or []),
    )

    def announce(address):
        print_json({"url": address, **about})
        sys.stdout.flush()
        print("Ctrl-C ends it.", file=sys.stderr)

    serve(app, host, port, announce)
