"""Progress on standard error, without the notices of other libraries."""

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.highlighter import NullHighlighter
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from infalign._check import visible

from .terminal import above, console

Report = Callable[[str, int, int], None]
"""Called with the name of a task, the steps done and the total."""

SILENCE = 30
"""Seconds between two lines of progress in a log."""


class Rate(ProgressColumn):
    """Steps per second, or per minute if slower, since the bar first moved."""

    def render(self, task: Task) -> Text:
        """The column's text."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{60 * speed:.1f}/min")


@contextmanager
def progress() -> Iterator[Report]:
    """A progress bar on stderr for each task of a command, with rate, elapsed time and time left.

    If stderr is not a terminal, a line every `SILENCE` seconds reports progress as well.
    """
    columns = (
        TextColumn("{task.description:32}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    screen = console(stderr=True)
    # One step may take minutes, so the rate is averaged over the whole task. `above` does what
    # rich's own redirection would do, which obeys control sequences.
    bars = Progress(
        *columns,
        console=screen,
        speed_estimate_period=1e9,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    tasks: dict[str, TaskID] = {}
    last = time.monotonic()

    def report(what: str, done: int, total: int) -> None:
        what = visible(what)
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=total)
            bars.start()  # not earlier: a command that fails at once prints only its message
        bars.update(tasks[what], completed=done, total=total)
        nonlocal last
        if not screen.is_terminal and time.monotonic() - last >= SILENCE:
            last = time.monotonic()
            task = bars.tasks[tasks[what]]
            speed, left = Rate().render(task), TimeRemainingColumn().render(task)
            rest = f", {speed.plain}, {left.plain} left" if speed.plain else ""
            screen.print(f"{what} {done}/{total}{rest}")

    try:
        with messages(screen), above(screen):
            yield report
    finally:
        if tasks:
            bars.stop()


@contextmanager
def messages(screen: Console | None = None) -> Iterator[None]:
    """Log messages of the package on stderr, above the bars if there are any."""
    log, screen = logging.getLogger("infalign"), screen or console(stderr=True)
    handler = RichHandler(
        console=screen,
        highlighter=NullHighlighter(),
        show_time=False,
        show_level=False,
        show_path=False,
    )
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)


def quiet_libraries() -> None:
    """Keep notices of other libraries off the terminal; their errors still appear."""
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
