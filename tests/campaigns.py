"""What long campaigns share: a journal that survives kills, and the machine that they ran on."""

import json
import os
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

import infalign
from infalign.pipeline.costs import processor


class Journal:
    """The verdicts of a part of a campaign: one line of JSON for each case, written as it ends.

    Several processes may write to it.
    """

    def __init__(self, path: Path):
        self.path = path

    def rows(self) -> list[dict]:
        """The last verdict of each case. A line that a kill cut off is left out."""
        if not self.path.exists():
            return []
        rows = {}
        for line in self.path.read_bytes().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            rows[row["case"]] = row
        return list(rows.values())

    def tried(self, *, but: Iterable[str] = ()) -> set:
        """The cases with a verdict; `but`: outcomes that do not count."""
        return {row["case"] for row in self.rows() if row["outcome"] not in but}

    def add(self, row: Mapping) -> None:
        """Append a verdict, with its `case` and `outcome`. A newline before it separates it from
        one that was cut off."""
        line = f"\n{json.dumps(row)}\n".encode()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)


def machine(*libraries: str) -> dict[str, object]:
    """The processor, the system, and the versions of Python, the package and some libraries."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "infalign": infalign.__version__,
        **{name: version(name) for name in libraries},
    }


def machine_line(at: Mapping, libraries: Iterable[str]) -> str:
    """The machine in a line of a page."""
    versions = ", ".join(f"{name} {at[name]}" for name in libraries)
    return (
        f"{at['processor']}, {at['cores']} cores, {at['system']}; infalign {at['infalign']}, "
        f"Python {at['python']}, {versions}"
    )
