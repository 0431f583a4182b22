"""What the package says while a command runs, on standard error: each message once."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["METRICS", "messages"]

METRICS = "infalign.metrics"
"""The logger that says each step of a training in a line, which the progress board shows."""


@contextmanager
def messages() -> Iterator[None]:
    """Inside the block, log messages of the package are printed; above the bars if there are any.

    Nothing else prints them, not even a root logger that a reward or a library configures.
    """
    log, handler = logging.getLogger("infalign"), _Lines()
    before = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.setLevel(before[0])
        log.propagate = before[1]
        log.removeHandler(handler)


class _Lines(logging.Handler):
    """Prints each message that it has not printed yet."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message."""
        message = record.getMessage()
        if record.name != METRICS and message not in self._said:
            self._said.add(message)
            print(message, file=sys.stderr)
