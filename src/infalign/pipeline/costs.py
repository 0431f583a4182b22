"""What the stages of a run took, for its report and to tell what they will take: `costs.jsonl`.

No number of a run depends on this file. It may be removed, and a line that cannot be read
is ignored.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from infalign._look import Shown
from infalign.stores.resumable import Report

__all__ = [
    "Making",
    "Meter",
    "last_evaluation",
    "machine",
    "making",
    "metered",
    "processor",
    "rate",
    "spent",
]

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
                "machine": machine(),
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
    return f"{ends[-1]:%Y-%m-%d %H:%M} UTC" if ends and ends[-1] else ""


@dataclass(frozen=True)
class Making(Shown):
    """When and where results were made."""

    began: datetime | None
    ended: datetime | None
    machines: Sequence[str]


def making(*folders: Path) -> Making:
    """When and where the stages of several runs ran, as far as it was noted."""
    lines = [line for folder in folders for line in _lines(folder)]
    ends = [line["ended"] for line in lines if line["ended"]]
    begins = [
        line["ended"] - timedelta(seconds=sum(seconds for _, seconds in line["spent"].values()))
        for line in lines
        if line["ended"]
    ]
    machines = sorted({line["machine"] for line in lines if line["machine"]})
    return Making(min(begins, default=None), max(ends, default=None), machines)


def machine() -> str:
    """The processor of this machine, its number of cores, and its GPUs if torch is loaded."""
    parts = [processor(), f"{os.cpu_count()} cores"]
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        parts += [f"{names.count(name)} × {name}" for name in dict.fromkeys(names)]
    return ", ".join(parts)


@cache
def processor() -> str:
    """The name of this machine's processor."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _lines(folder: Path) -> Iterator[dict]:
    """The lines of the file that can be read."""
    with suppress(OSError):
        for text in (folder / FILE).read_text(encoding="utf-8").splitlines():
            with suppress(ValueError, TypeError, KeyError, AttributeError):
                line = json.loads(text)
                spent = {what: (float(n), float(s)) for what, (n, s) in line["spent"].items()}
                ended = None
                if "ended" in line:
                    ended = datetime.fromisoformat(line["ended"]).astimezone(UTC)
                yield {
                    "stage": str(line["stage"]),
                    "ended": ended,
                    "machine": str(line.get("machine", "")),
                    "spent": spent,
                }
