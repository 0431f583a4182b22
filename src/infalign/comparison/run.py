"""Compare policies that were trained anywhere: draw the missing samples, then summarize."""

import logging
from pathlib import Path

from infalign import storage
from infalign.errors import ConfigError
from infalign.manifest import FILE, Manifest
from infalign.stores.resumable import Report

from .comparison import Comparison
from .measured import Measured
from .models import inspect_models
from .notices import notices
from .origins import Origins
from .sampling import STAGE, draw, identify
from .selected import SELECTED, selected_responses
from .summary import summarize
from .verdicts import draw_verdicts

__all__ = ["compare_policies", "measure", "require_comparison"]

LOG = logging.getLogger(__name__)
FOLDER = "evaluation"
"""The folder of a comparison's files inside its own."""


def compare_policies(comparison: Comparison, folder: Path, report: Report | None = None) -> dict:
    """The results of a comparison, also written to `folder`/evaluation/results.json.

    Samples are drawn once: a second call with more policies, gold rewards or procedures adds those,
    and a killed call can be continued. If the content of a model, a reward or the judge has
    changed, only what depends on it is made again; see `docs/evaluating.md`.

    - `report`: called with the step, the amount done and the total.

    Raises ConfigError if the folder holds samples drawn with other settings, DataError if a model,
    a reward or the prompts cannot be used, if a stored file is damaged or if another process writes
    into the folder, and MissingExtraError without torch.
    """
    folder = Path(folder)
    require_comparison(folder)
    report = report or (lambda what, done, total: None)
    with storage.locked(folder):
        report("checks", 0, 1)
        manifest = Manifest(folder / FOLDER)
        inspect_models(comparison)
        origins = identify(comparison, manifest)
        storage.sweep(folder)
        report("checks", 1, 1)
        measured = measure(comparison, manifest, report, origins)
        selected, path = selected_responses(measured), measured.folder / "results.json"
        with manifest.recording(measured.folder / SELECTED, stage=STAGE):
            storage.write_table(measured.folder / SELECTED, selected)
        results = summarize(measured, selected, {})
        with manifest.recording(path, stage=STAGE):
            storage.write_json(path, results)
    return results


def measure(
    comparison: Comparison, manifest: Manifest, report: Report, origins: Origins | None = None
) -> Measured:
    """The samples and verdicts of a comparison; missing ones are drawn into the manifest's folder,
    inside a folder whose lock the caller holds.

    - `origins`: what they come from, if it was identified before.
    """
    origins = origins or identify(comparison, manifest)
    draw(comparison, manifest, origins, report)
    measured = Measured(comparison, manifest)
    for notice in notices(measured):
        LOG.warning(notice)
    draw_verdicts(measured, origins, report)
    return measured


def require_comparison(folder: Path) -> None:
    """ConfigError unless the folder holds a comparison, begins one, or is empty."""
    if not folder.exists() or (folder / FOLDER / FILE).exists():
        return
    # A kill before the first part leaves only these.
    others = sorted({p.name for p in folder.iterdir()} - {storage.LOCK, FOLDER})
    within = folder / FOLDER
    others += sorted(p.name for p in within.glob("*.parquet")) if within.is_dir() else []
    if others:
        raise ConfigError(
            f"{folder} is not empty and holds no comparison (no {FOLDER}/{FILE}): it has "
            f"{others[0]!r}. Choose another folder with --out."
        )
