"""What the stages of a run took, to tell what they will take: `costs.jsonl`.

Nothing that a run computes depends on this file. It may be removed, and a line that cannot be read
is ignored.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from infalign.stores.resumable import Report

__all__ = ["Meter", "metered", "rate"]

FILE = "costs.jsonl"


class Meter:
    """Measures the time between reports, task by task."""

    def __init__(self, report: Report):
        self._report, self._last = report, time.monotonic()
        self.spent: dict[str, list[float]] = {}
        """Task → units done and seconds."""

        self._done: dict[str, int] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        """Pass a report on, and count what was done since the one before."""
        now = time.monotonic()
        units = max(0, done - self._done.get(what, done))
        self._done[what] = done
        spent = self.spent.setdefault(what, [0, 0.0])
        spent[0], spent[1], self._last = spent[0] + units, spent[1] + now - self._last, now
        self._report(what, done, total)


@contextmanager
def metered(folder: Path, stage: str, report: Report) -> Iterator[Meter]:
    """A report that is measured; what it took is noted at the end, however it ends."""
    meter = Meter(report)
    try:
        yield meter
    finally:
        spent = {what: own for what, own in meter.spent.items() if own[0]}
        if spent:
            line = {"stage": stage, "spent": {k: [n, round(s, 3)] for k, (n, s) in spent.items()}}
            with suppress(OSError), (folder / FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def rate(folder: Path, what: str) -> float | None:
    """Seconds per unit of a task in the last call that did any of it; None if it is not known."""
    last = None
    with suppress(OSError):
        for line in (folder / FILE).read_text(encoding="utf-8").splitlines():
            with suppress(ValueError, TypeError, KeyError, AttributeError):
                units, seconds = json.loads(line)["spent"][what]
                last = seconds / units if units > 0 else last
    return last
