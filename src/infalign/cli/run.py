"""`infalign run`, its single stages, and `infalign demo`, which is a bundled run."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infalign.config import Config, describe, load_config

from . import dry_run as dry_runs
from .options import DryRun, Measure
from .progress import board, quiet_libraries
from .show import print_results
from .usage import again, refuse_of_dry_run

if TYPE_CHECKING:
    from infalign.pipeline.folder import Run

Out = Annotated[
    Path,
    typer.Option(
        help="Run folder. An interrupted run in this folder continues. In a finished one, only the"
        " stages that read changed settings run again."
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings to override, such as train.steps=200 kl=1.")
]
ConfigFile = Annotated[
    Path, typer.Argument(help="YAML file; `infalign run --help` lists its keys.")
]

DEMO_HELP = (
    "Run the whole method on bundled models, offline.\n\n"
    "The stages are calibrate, design, train, evaluate and report.\n\n"
    "Example: infalign demo --quick --out runs/quick"
)


def demo(
    context: typer.Context,
    out: Out = Path("runs/demo"),
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Run a small demo in about a minute; its numbers are not evidence."
        ),
    ] = False,
    dry_run: DryRun = False,
    measure: Measure = 30.0,
):
    from infalign.demo import FOLDER

    config = load_config(FOLDER / ("quick.yaml" if quick else "demo.yaml"))
    _run(context, config, out, "report", dry_run, measure)


def run(
    context: typer.Context,
    config: ConfigFile,
    overrides: Overrides = None,
    out: Out = Path("runs/run"),
    until: Annotated[
        str, typer.Option(help="Last stage to run: calibrate, design, train, evaluate or report.")
    ] = "report",
    dry_run: DryRun = False,
    measure: Measure = 30.0,
):
    settings = load_config(config, tuple(overrides or ()))
    _run(context, settings, out, until, dry_run, measure)


STAGES = {
    "calibrate": "Draw and score the reference samples of every prompt.",
    "train": "Train the policies, running any earlier stages first.",
    "report": (
        "Run any missing stages and write the report.\n\n"
        "The report of a finished run is written again."
    ),
}
"""The stages with their own command, and their help. `evaluate` has further modes."""


def stage_help(stage: str) -> str:
    """The help of a stage's command."""
    return f"{STAGES[stage]}\n\nExample: infalign {stage} config.yaml --out runs/first"


def stage_command(stage: str) -> Callable[..., None]:
    """A command that brings a run up to the end of one stage."""

    def command(
        context: typer.Context,
        config: ConfigFile,
        overrides: Overrides = None,
        out: Out = Path("runs/run"),
        dry_run: DryRun = False,
        measure: Measure = 30.0,
    ):
        settings = load_config(config, tuple(overrides or ()))
        _run(context, settings, out, stage, dry_run, measure)

    return command


RUN_HELP = (
    "Run the whole method on your model, reward and prompts.\n\n"
    "Finished stages are skipped. An interrupted stage continues.\n\n"
    "\b\nKeys of CONFIG.yaml:\n" + "\n".join(describe()) + "\n\n"
    "Example: infalign run config.yaml --out runs/first train.steps=200"
)


def _run(
    context: typer.Context, config: Config, out: Path, until: str, dry: bool, seconds: float
) -> None:
    refuse_of_dry_run(context, dry)
    if dry:
        dry_runs.dry_run(config, out, until, seconds)
        return
    finished = _bring(config, out, until)
    if until == "report":
        print_results(finished.folder)
    else:
        print(f"Stage {until} of {out} is done.", file=sys.stderr)


def bring_up_to(config: Path, overrides: tuple[str, ...], out: Path, stage: str) -> "Run":
    """The run of a configuration, after `stage` and all stages before it."""
    return _bring(load_config(config, overrides), out, stage)


def _bring(config: Config, out: Path, until: str) -> "Run":
    from infalign.pipeline.run import run

    quiet_libraries()
    with board() as shown:
        command = again()
        return run(config, out, until=until, report=shown.report, begin=shown.plan, command=command)
