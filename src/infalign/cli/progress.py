"""Progress on standard error, without the notices of other libraries."""

import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from infalign import _progress

from .board import SILENCE, Board
from .messages import METRICS
from .terminal import above, console

Report = Callable[[str, int, int], None]
"""Called with the name of a task, the steps done and the total."""


@contextmanager
def progress() -> Iterator[Report]:
    """A progress bar on stderr for each task of a command, with rate, elapsed time and time left.

    If stderr is not a terminal, a line every half minute says where the command is.
    """
    with board() as shown:
        yield shown.report


@contextmanager
def board() -> Iterator[Board]:
    """As `progress`, for commands that also know what they are going to do."""
    screen = console(stderr=True)
    shown = Board(screen)
    metrics, log = _Metrics(shown), logging.getLogger(METRICS)
    log.addHandler(metrics)
    try:
        with above(screen), _progress.listening(shown.within), _beating(shown):
            yield shown
    finally:
        log.removeHandler(metrics)
        shown.stop()


@contextmanager
def _beating(shown: Board) -> Iterator[None]:
    """Let the board speak also while nothing reports to it."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(SILENCE):
            with suppress(OSError, ValueError):  # stderr was closed: the command itself says so
                shown.beat()

    threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


class _Metrics(logging.Handler):
    """Shows the last line of metrics, below the bars."""

    def __init__(self, shown: Board) -> None:
        super().__init__()
        self._shown = shown

    def emit(self, record: logging.LogRecord) -> None:
        """Show the line of a step."""
        self._shown.metrics(record.getMessage())


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
