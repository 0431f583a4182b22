"""`infalign compare`: training methods × KLs × seeds × tasks, as one resumable study."""

from pathlib import Path
from typing import Annotated

import typer

from infalign.config import Study, describe, load_study

from .progress import board, quiet_libraries
from .run import Overrides
from .terminal import print_json

HELP = (
    "Compare training methods at the same KL: with several seeds, on several tasks.\n\n"
    "Every method is trained at every KL with every seed, from one calibration of each task. "
    "Finished cells are never made again; an interrupted cell continues.\n\n"
    "CONFIG.yaml is a study, or the configuration of a run, which is then the only task. An "
    "override changes a key of the study; any other key changes every task.\n\n"
    "\b\nKeys of a study:\n" + "\n".join(describe(Study)) + "\n\n"
    "Example: infalign compare config.yaml --methods rloo,rlhf --kl 0.25,0.5 --seeds 0,1,2"
)


def compare(
    config: Annotated[Path, typer.Argument(help="YAML file of a study, or of a run.")],
    overrides: Overrides = None,
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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
):
    given = {"methods": methods, "kl": kl, "seeds": seeds}
    own = tuple(f"{name}=[{value}]" for name, value in given.items() if value is not None)
    grid = load_study(config, (*(overrides or ()), *own))

    from infalign.study.run import run_study

    quiet_libraries()
    with board() as shown:
        results = run_study(grid, out, report=shown.report, begin=shown.plan)
    if as_json:
        print_json(results)
