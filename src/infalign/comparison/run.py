"""Compare policies that were trained anywhere: draw what is missing, then sum up."""

from pathlib import Path

from infalign import storage
from infalign.errors import ConfigError
from infalign.prompts import fingerprint

from .measured import Measured
from .plan import Comparison
from .samples import draw
from .shards import Report
from .summary import summarize
from .verdicts import compare_pairs

SETTINGS = "comparison.json"


def compare_policies(comparison: Comparison, folder: Path, report: Report | None = None) -> dict:
    """The results of a comparison, also written to `folder`/evaluation/results.json.

    Samples are drawn once: a second call with more policies, gold rewards or procedures adds those,
    and a killed one continues.

    - `report`: called with what is being done, how much of it is done and how much there is.

    Raises ConfigError when the folder holds samples that were drawn otherwise, DataError when a
    model, a reward or the prompts cannot be used, and MissingExtraError without torch.
    """
    folder = Path(folder)
    _same_settings(comparison, folder / SETTINGS)
    storage.sweep(folder)
    evaluation = folder / "evaluation"
    report = report or (lambda what, done, total: None)
    draw(comparison, evaluation, report)
    compare_pairs(comparison, evaluation, report)
    results = summarize(Measured(comparison, evaluation), {})
    storage.write_json(evaluation / "results.json", results)
    return results


def _same_settings(comparison: Comparison, path: Path) -> None:
    """Check that the samples in the folder, if any, are those that would be drawn."""
    policies, gold = dict(comparison.policies), dict(comparison.gold)
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
            "policies": policies,
            "gold": gold,
        }
    )
    if not path.exists():
        if path.parent.exists() and any(path.parent.iterdir()):
            raise ConfigError(
                f"{path.parent} is not empty and holds no comparison (no {path.name}). "
                "Choose another folder with --out."
            )
        storage.write_json(path, stated)
        return
    found = storage.read_json(path)
    if None in (found["judge"], stated["judge"]):  # one that is new, or not asked for this time
        found["judge"] = stated["judge"] = stated["judge"] or found["judge"]
    differing = [k for k in stated if k not in ("policies", "gold") and found.get(k) != stated[k]]
    for kind in ("policies", "gold"):
        changed = found[kind].keys() & stated[kind].keys()
        differing += [f"{kind}.{n}" for n in sorted(changed) if found[kind][n] != stated[kind][n]]
        stated[kind] = found[kind] | stated[kind]
    if differing:
        raise ConfigError(
            f"{path.parent} holds samples that were drawn otherwise: "
            f"{', '.join(f'`{name}`' for name in differing)} differ. Choose another folder with "
            "--out, or restore those values."
        )
    storage.write_json(path, stated)
