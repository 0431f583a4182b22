"""What made the results of a study: versions, machines, precision, configuration and dates."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from infalign import __version__, storage
from infalign.pipeline.costs import making
from infalign.pipeline.folder import Run

from .folder import PROVENANCE, StudyFolder

__all__ = ["origin", "origin_words"]

SHOWN = ("infalign", "torch", "transformers", "trl", "python")
"""Packages whose versions a page shows."""


def origin(study: StudyFolder) -> dict:
    """What made the finished cells, as JSON.

    Versions and machines are lists, since a study may go on elsewhere. Only the dates and machines
    that runs have noted are there.
    """
    finished = [cell for cell in study.grid.cells if study.is_finished(cell)]
    cells = [study.made(cell) for cell in finished]
    shared = [run.folder for run in study.runs.values()]
    began = making(*shared)
    notes = [*cells, {"began": _text(began.began), "ended": _text(began.ended)}]
    dtypes = {c.task.name: made["dtype"] for c, made in zip(finished, cells, strict=True)}
    files = [folder / PROVENANCE for folder in shared if (folder / PROVENANCE).exists()]
    return {
        "summarized_by": __version__,
        "configuration": storage.fingerprint(study.resolved),
        "began": min((note["began"] for note in notes if note["began"]), default=None),
        "ended": max((note["ended"] for note in notes if note["ended"]), default=None),
        "machines": sorted({*began.machines, *(m for own in cells for m in own["machines"])}),
        "dtype": {name: dtypes.get(name) or _dtype(run) for name, run in study.runs.items()},
        "versions": _versions(
            [
                *(storage.read_json(file).get("versions", {}) for file in files),
                *(made["versions"] for made in cells),
            ]
        ),
    }


def _text(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="seconds")


def _dtype(run: Run) -> str | None:
    """The precision of a task without finished cells."""
    value = run.fingerprints.get("dtype") if run.folder.exists() else None
    return None if value is None else str(value)


def origin_words(made: Mapping) -> list[str]:
    """The origin of a study, in words."""
    versions = [
        f"{name} {' and '.join(made['versions'][name])}"
        for name in SHOWN
        if made["versions"].get(name)
    ]
    dtypes = {dtype for dtype in made["dtype"].values() if dtype}
    facts = [
        ("Made with ", ", ".join(versions)),
        ("on ", " and on ".join(made["machines"])),
        ("in ", " and ".join(sorted(dtypes))),
        ("from the configuration ", made["configuration"][:12]),
    ]
    sentences = ["; ".join(start + fact for start, fact in facts if fact) + "."]
    if made["began"]:
        began, ended = (made[key][:16].replace("T", " ") for key in ("began", "ended"))
        sentences.append(f"The work began at {began} and ended at {ended} UTC.")
    return sentences


def _versions(noted: Iterable[Mapping[str, str | None]]) -> dict[str, list[str]]:
    """Package → all versions of it."""
    known: dict[str, dict[str, None]] = {}
    for versions in noted:
        for name, version in versions.items():
            if version:
                known.setdefault(name, {})[version] = None
    return {name: sorted(versions) for name, versions in known.items()}
