"""`infalign compare`: training methods × KLs × seeds × tasks, as one resumable study."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from infalign.config import Study, describe, load_study
from infalign.errors import InfalignError

from . import dry_run as dry_runs
from .progress import board, quiet_libraries
from .run import DryRun, Measure, Overrides
from .terminal import console, print_json
from .usage import refuse

SHOWN = 4
"""Number of failed cells that a message names."""

HELP = (
    "Compare training methods at the same KL: with several seeds, on several tasks.\n\n"
    "Every method is trained at every KL with every seed, from one calibration of each task. "
    "Finished cells are never trained again; an interrupted cell continues.\n\n"
    "CONFIG.yaml is a study, or the configuration of a run, which is then the only task. An "
    "override changes a key of the study; any other key changes every task.\n\n"
    "\b\nKeys of a study:\n" + "\n".join(describe(Study)) + "\n\n"
    "Example: infalign compare config.yaml --methods rloo,rlhf --kl 0.25,0.5 --seeds 0,1,2"
)


def compare(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(help="YAML file of a study, or of a run.")],
    overrides: Overrides = None,
    tasks: Annotated[
        str | None, typer.Option(metavar="NAME,…", help="Tasks of the study. Default: all.")
    ] = None,
    methods: Annotated[
        str | None, typer.Option(metavar="NAME,…", help="Training methods, instead of `methods`.")
    ] = None,
    kl: Annotated[
        str | None, typer.Option(metavar="NATS,…", help="KL budgets, instead of `kl`.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="SEED,…", help="Training seeds, instead of `seeds`.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder of the study. A study in this folder continues.")
    ] = Path("runs/study"),
    archive: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder with small files of finished cells. These are not trained again, and "
            "newly finished cells are added. Commit or copy it to continue on another machine.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    dry_run: DryRun = False,
    measure: Measure = 60.0,
):
    given = {"methods": methods, "kl": kl, "seeds": seeds}
    own = tuple(f"{name}=[{value}]" for name, value in given.items() if value is not None)
    only = None if tasks is None else [name.strip() for name in tasks.split(",")]
    grid = load_study(config, (*(overrides or ()), *own), only)

    if dry_run:
        refuse(context, "is not used with --dry-run.", "as_json")
        dry_runs.dry_study(grid, out, measure, archive)
        return
    refuse(context, "is used with --dry-run only.", "measure")

    from infalign.study.page import write_page
    from infalign.study.run import run_study

    quiet_libraries()
    with board() as shown:
        shown.only_current = True
        results = run_study(
            grid, out, archive=archive, report=shown.report, begin=shown.plan, write=write_page
        )
    if as_json:
        print_json(results)
    else:
        _print(results)
        print(f"Report: {(out / 'report.html').resolve()}")
    cells = (cell for task in results["tasks"] for arm in task["arms"] for cell in arm["cells"])
    if failed := [cell["folder"] for cell in cells if "error" in cell]:
        raise InfalignError(
            f"{len(failed)} of {results['cells']} cells failed: {', '.join(failed[:SHOWN])}"
            f"{', …' if len(failed) > SHOWN else ''}. The same command tries them again."
        )


def _print(results: dict) -> None:
    from infalign.reports.tables import in_terminal
    from infalign.study.origin import origin_words
    from infalign.study.tables import NOTE, study_tables

    screen = console()
    for table in study_tables(results):
        for part in in_terminal(table):
            screen.print(part, style="bold" if isinstance(part, Text) else None)
    screen.print(NOTE)
    screen.print(" ".join(origin_words(results["made"])), markup=False, highlight=False)
    if not results["evidence"]:
        screen.print("Trial settings: these numbers are not evidence.", style="bold")
