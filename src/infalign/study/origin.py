"""What made the results of a study: versions, machines, precision, configuration and dates."""

from collections.abc import Mapping

from infalign import __version__, storage
from infalign.pipeline.costs import making

from .folder import StudyFolder

__all__ = ["origin", "origin_words"]

FIRST = "provenance.json"
"""The file of a run that has its versions."""

SHOWN = ("infalign", "torch", "transformers", "trl", "python")
"""Packages whose versions a page shows."""


def origin(study: StudyFolder) -> dict:
    """What made the finished cells, as JSON.

    Versions and machines are lists, since a study may go on elsewhere. Only the dates and machines
    that runs have noted are there.
    """
    cells = [study.of_cell(cell) for cell in study.grid.cells if study.is_finished(cell)]
    folders = [*(run.folder for run in study.runs.values()), *cells]
    made = making(*folders)
    return {
        "summarized_by": __version__,
        "configuration": storage.fingerprint(study.resolved),
        "began": made.began and made.began.isoformat(timespec="seconds"),
        "ended": made.ended and made.ended.isoformat(timespec="seconds"),
        "machines": list(made.machines),
        "dtype": {name: run.fingerprints.get("dtype") for name, run in study.runs.items()},
        "versions": _versions(folder / FIRST for folder in folders if (folder / FIRST).exists()),
    }


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


def _versions(files) -> dict[str, list[str]]:
    """Package → all versions of it."""
    known: dict[str, dict[str, None]] = {}
    for file in files:
        for name, version in storage.read_json(file).get("versions", {}).items():
            if version:
                known.setdefault(name, {})[version] = None
    return {name: sorted(versions) for name, versions in known.items()}
