"""`infalign run`, its stages one by one, and `infalign demo`, a run that is bundled."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from infalign.config import Config, load_config

RUN_EXAMPLE = "Example: infalign run config.yaml --out runs/first train.steps=200"
STAGE_HELP = {
    "calibrate": "Draw and score the reference samples of every prompt.",
    "train": "Train the policies, after what comes before.",
    "evaluate": "Sample the policies on held-out prompts and estimate win rates and KL.",
    "report": "Bring the run up to its report; with a finished run, write the page again.",
}
Out = Annotated[Path, typer.Option(help="Run folder; an interrupted run in it continues.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Changes, such as train.steps=200 kl=1.")
]
ConfigFile = Annotated[Path, typer.Argument(help="YAML file; its keys are listed below.")]


def demo(
    out: Out = Path("runs/demo"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Everything small, in a minute; not evidence.")
    ] = False,
):
    """The whole method on bundled models, offline: calibrate, design, train, evaluate, report.

    Example: infalign demo --quick --out runs/quick
    """
    from infalign.demo import FOLDER

    config = load_config(FOLDER / ("quick.yaml" if quick else "demo.yaml"))
    _run(config, out, "report")


def run(
    config: ConfigFile,
    overrides: Overrides = None,
    out: Out = Path("runs/run"),
    until: Annotated[str, typer.Option(help="Stop after this stage.")] = "report",
):
    _run(load_config(config, tuple(overrides or ())), out, until)


def stage_command(stage: str):
    """A command that brings a run up to the end of one stage."""

    def command(config: ConfigFile, overrides: Overrides = None, out: Out = Path("runs/run")):
        _run(load_config(config, tuple(overrides or ())), out, stage)

    return command


def describe(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """One line for each key of the configuration: its name, default and meaning."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from describe(kind, f"{prefix}{name}.")
        else:
            known = not field.is_required() and field.default not in (None, {})
            plain = (
                field.default if not isinstance(field.default, tuple) else " ".join(field.default)
            )
            default = f" (default: {plain})" if known else ""
            yield f"  {prefix}{name}{default}: {field.description}"


RUN_HELP = (
    "The whole method on your model, reward and prompts.\n\n"
    "Finished stages are skipped and an interrupted one continues.\n\n"
    f"{RUN_EXAMPLE}\n\n\b\nKeys of CONFIG.yaml:\n" + "\n".join(describe())
)


def _run(config: Config, out: Path, until: str) -> None:
    from infalign.pipeline.run import run

    quiet_libraries()
    with progress() as report:
        finished = run(config, out, until=until, report=report)
    if until == "report":
        print_results(finished.folder)
    else:
        Console(stderr=True).print(f"Stage {until} of {out} is done.")


@contextmanager
def progress():
    """A bar for each thing a run does, on stderr."""
    columns = (
        TextColumn("{task.description:32}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    progress, tasks = Progress(*columns, console=Console(stderr=True)), {}

    def report(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = progress.add_task(what, total=total)
            progress.start()  # not before: what fails at once leaves one line, its message
        progress.update(tasks[what], completed=done, total=total)

    try:
        yield report
    finally:
        if tasks:
            progress.stop()


def quiet_libraries() -> None:
    """Keep other libraries' notices off the terminal; their errors still come through."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore")
    logging.getLogger("torch").setLevel(logging.ERROR)
    try:
        import datasets
        import transformers
    except ImportError:
        return
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()


def print_results(folder: Path) -> None:
    """The results of an evaluated run, as a table."""
    from infalign.storage import read_json

    results = read_json(folder / "evaluation" / "results.json")
    console = Console()
    procedure = results["procedure"]
    table = Table(
        title=f"Win rate against the reference, {results['prompts']} held-out prompts × "
        f"{results['samples']} samples",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("policy", min_width=13)
    for column in ("KL, nats", "KL eff.", "sampling %", f"{procedure} %", "frontier"):
        table.add_column(column, justify="right", no_wrap=True)
    for policy in results["policies"]:
        wins = policy["win_rates"]
        table.add_row(
            policy["label"],
            _with_error(policy["kl"], 1, 3),
            f"{policy['kl_efficiency']:.0%}",
            _with_error(wins["sampling"], 100, 1),
            _with_error(wins[procedure], 100, 1),
            f"{100 * policy['frontier'][procedure]:.1f}",
        )
    console.print(table)
    labels = {p["method"]: p["label"] for p in results["policies"]}
    for d in results["differences"]:
        if d["low"] is None:
            continue
        console.print(
            f"{labels[d['a']]} − {labels[d['b']]}, {d['procedure']}: "
            f"{100 * d['value']:+.1f} points [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}]"
        )
    console.print(
        "±: 95 % intervals, clustered by prompt; differences paired by prompt. Frontier: the best "
        "that any policy can do at that KL."
    )
    if not results["evidence"]:
        console.print("[bold]A try-out, too small to be evidence: the numbers prove nothing.[/]")
    console.print(f"Report: {(folder / 'report.html').resolve()}", soft_wrap=True)


def _with_error(estimate: dict, scale: float, digits: int) -> str:
    value = f"{scale * estimate['value']:.{digits}f}"
    if estimate["low"] is None:
        return value
    return f"{value} ± {scale * (estimate['high'] - estimate['low']) / 2:.{digits}f}"
