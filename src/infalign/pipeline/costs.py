"""What the stages of a run took, for its report and to tell what they will take: `costs.jsonl`.

No number of a run depends on this file. It may be removed, and a line that cannot be read
is ignored.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from infalign.stores.resumable import Report

__all__ = ["Meter", "last_evaluation", "metered", "rate", "spent"]

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
            now = datetime.now(UTC).isoformat(timespec="seconds")
            line = {
                "stage": stage,
                "ended": now,
                "spent": {k: [n, round(s, 3)] for k, (n, s) in spent.items()},
            }
            with suppress(OSError), (folder / FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def rate(folder: Path, what: str) -> float | None:
    """Seconds per unit of a task in the last call that did any of it; None if it is not known."""
    last = None
    for line in _lines(folder):
        units, seconds = line["spent"].get(what, (0, 0))
        last = seconds / units if units > 0 else last
    return last


def spent(folder: Path) -> dict[str, float]:
    """Seconds of all calls by stage, and by method of those that train, such as `train rloo`."""
    total: dict[str, float] = {}
    for line in _lines(folder):
        for what, (_, seconds) in line["spent"].items():
            name = what.split(":")[0] if line["stage"] == "train" else line["stage"]
            total[name] = total.get(name, 0.0) + seconds
    return total


def last_evaluation(folder: Path) -> str:
    """When the last evaluation ended, as a date and time; empty if that is not known."""
    ends = [line["ended"] for line in _lines(folder) if line["stage"] == "evaluate"]
    return f"{ends[-1].astimezone(UTC):%Y-%m-%d %H:%M} UTC" if ends and ends[-1] else ""


def _lines(folder: Path) -> Iterator[dict]:
    """The lines of the file that can be read."""
    with suppress(OSError):
        for text in (folder / FILE).read_text(encoding="utf-8").splitlines():
            with suppress(ValueError, TypeError, KeyError, AttributeError):
                line = json.loads(text)
                spent = {what: (float(n), float(s)) for what, (n, s) in line["spent"].items()}
                ended = datetime.fromisoformat(line["ended"]) if "ended" in line else None
                yield {"stage": str(line["stage"]), "ended": ended, "spent": spent}
