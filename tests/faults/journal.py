"""The verdicts of a campaign on disk: one line of JSON for each case, written as it ends."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from .outcomes import DEFECTS, Case, Verdict


class Journal:
    """The verdicts of one part, in a file. Several processes may write to it."""

    def __init__(self, path: Path):
        self.path = path

    def rows(self) -> list[dict]:
        """The last verdict of each case: kind, case, outcome, words. A line that a kill cut off is
        left out."""
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

    def missing(self, cases: Sequence[Case], *, again: bool = False) -> list[Case]:
        """The cases without a verdict; `again`: those with a defect too."""
        rows = self.rows()
        known = {r["case"] for r in rows if not (again and r["outcome"] in DEFECTS)}
        return [case for case in cases if case.name not in known]

    def add(self, case: Case, verdict: Verdict) -> None:
        """Append a verdict. A newline before it separates it from one that was cut off."""
        row = {"kind": case.kind, "case": case.name, "outcome": verdict.outcome}
        line = f"\n{json.dumps(row | {'words': verdict.words})}\n".encode()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)
