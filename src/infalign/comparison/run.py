"""Compare policies that were trained anywhere: draw the missing samples, then summarize."""

import logging
from pathlib import Path

from infalign import storage
from infalign.errors import ConfigError
from infalign.manifest import Manifest
from infalign.prompts import fingerprint

from .comparison import Comparison
from .measured import Measured
from .models import inspect_models
from .notices import notices
from .resumable import Report
from .sampling import draw
from .summary import summarize
from .verdicts import draw_verdicts

SETTINGS = "comparison.json"
LOG = logging.getLogger(__name__)


def compare_policies(comparison: Comparison, folder: Path, report: Report | None = None) -> dict:
    """The results of a comparison, also written to `folder`/evaluation/results.json.

    Samples are drawn once: a second call with more policies, gold rewards or procedures adds those,
    and a killed call can be continued.

    - `report`: called with the step, the amount done and the total.

    Raises ConfigError if the folder holds samples drawn with other settings, DataError if a model,
    a reward or the prompts cannot be used, and MissingExtraError without torch.
    """
    inspect_models(comparison)
    folder = Path(folder)
    with storage.locked(folder):
        _require_same_settings(comparison, folder / SETTINGS)
        storage.sweep(folder)
        measured = measure(
            comparison, folder / "evaluation", report or (lambda what, done, total: None)
        )
        results = summarize(measured, {})
        path = measured.folder / "results.json"
        with Manifest(path.parent).recording(path, stage="evaluate"):
            storage.write_json(path, results)
        return results


def measure(comparison: Comparison, folder: Path, report: Report) -> Measured:
    """The samples and verdicts of a comparison; missing ones are drawn into `folder`."""
    draw(comparison, folder, report)
    measured = Measured(comparison, folder)
    for notice in notices(measured):
        LOG.warning(notice)
    draw_verdicts(measured, report)
    return measured


def _require_same_settings(comparison: Comparison, path: Path) -> None:
    """Check that the samples in the folder, if any, have the settings of this comparison."""
    stated = storage.as_json(
        {
            "reference": comparison.reference,
            "reward": comparison.reward,
            "prompts": fingerprint(comparison.prompts),
            "sampling": comparison.sampling.model_dump(),
            "samples": comparison.samples,
            "kl_samples": comparison.kl_samples,
            "seed": comparison.seed,
            "judge": comparison.judge and [comparison.judge, comparison.judge_pairs],
            "policies": dict(comparison.policies),
            "gold": dict(comparison.gold),
        }
    )
    if not path.exists():
        if {p.name for p in path.parent.iterdir()} - {storage.LOCK}:
            raise ConfigError(
                f"{path.parent} is not empty and holds no comparison (no {path.name}). "
                "Choose another folder with --out."
            )
        storage.write_json(path, stated)
        return
    # Policies and gold rewards are added to those in the folder; a judge is added if there was
    # none.
    known = storage.read_json(path)
    for kind in ("policies", "gold"):
        stated[kind] = known[kind] | stated[kind]
        known[kind] = stated[kind] | known[kind]
    stated["judge"] = stated["judge"] or known["judge"]
    known["judge"] = known["judge"] or stated["judge"]
    storage.require_same(
        known,
        stated,
        f"{path.parent} holds samples drawn with other settings:",
        "Choose another folder with --out, or restore those values.",
    )
    storage.write_json(path, stated)
