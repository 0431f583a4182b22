"""`infalign run`, its stages one by one, and `infalign demo`, a run that is bundled."""

import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from infalign.config import Config, load_config

from .show import print_results

RUN_EXAMPLE = "Example: infalign run config.yaml --out runs/first train.steps=200"
STAGE_HELP = {
    "calibrate": "Draw and score the reference samples of every prompt.",
    "train": "Train the policies, after what comes before.",
    "report": "Bring the run up to its report; with a finished run, write the page again.",
}
Out = Annotated[Path, typer.Option(help="Run folder; an interrupted run in it continues.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Changes, such as train.steps=200 kl=1.")
]
ConfigFile = Annotated[
    Path, typer.Argument(help="YAML file; `infalign run --help` lists its keys.")
]


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
    finished = _bring(config, out, until)
    if until == "report":
        print_results(finished.folder)
    else:
        Console(stderr=True).print(f"Stage {until} of {out} is done.")


def bring_up_to(config: Path, overrides: tuple[str, ...], out: Path, stage: str):
    """The run of a configuration, with `stage` and all before it done."""
    return _bring(load_config(config, overrides), out, stage)


def _bring(config: Config, out: Path, until: str):
    from infalign.pipeline.run import run

    quiet_libraries()
    with progress() as report:
        return run(config, out, until=until, report=report)


SILENCE = 30
"""Seconds between two lines on progress in a log."""


class Rate(ProgressColumn):
    """How many a second, or a minute where it takes longer, since the bar first moved."""

    def render(self, task):
        """The text of the column."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{60 * speed:.1f}/min")


@contextmanager
def progress():
    """A bar for each thing a run does, with its rate, time taken and time left, on stderr.

    Where stderr is no terminal, which shows bars only when they end, a line every half minute.
    """
    columns = (
        TextColumn("{task.description:32}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # A shard may take minutes, and the rate is that of the whole run.
    console = Console(stderr=True)
    progress, tasks = Progress(*columns, console=console, speed_estimate_period=1e9), {}
    last = time.monotonic()

    def report(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = progress.add_task(what, total=total)
            progress.start()  # not before: what fails at once leaves one line, its message
        progress.update(tasks[what], completed=done, total=total)
        nonlocal last
        if not console.is_terminal and time.monotonic() - last >= SILENCE:
            last = time.monotonic()
            task = progress.tasks[tasks[what]]
            texts = [column.render(task).plain for column in columns[3:]]
            left = f", {texts[0]}, {texts[2]} left" if texts[0] else ""
            console.print(f"{what} {done}/{total}{left}", highlight=False)

    # What is decided on the way is said above the bars.
    log = logging.getLogger("infalign")
    said = RichHandler(console=console, show_time=False, show_level=False, show_path=False)
    log.addHandler(said)
    log.setLevel(logging.INFO)
    try:
        yield report
    finally:
        log.removeHandler(said)
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
