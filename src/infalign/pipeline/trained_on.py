"""What a policy was trained on, by what the run that trained it has stored."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infalign._look import Shown
from infalign.config import Config, SamplingSettings, load_config
from infalign.errors import ConfigError, DataError
from infalign.manifest import Manifest
from infalign.models.specs import ModelSpec
from infalign.prompts import CHECKSUM, Prompt, checksum
from infalign.stores import read_samples
from infalign.stores.manifest import NAME

from .folder import FIRST
from .history import read_current

__all__ = ["TrainedOn", "other_sampling", "trained_on"]

LAW = ("temperature", "top_p", "max_new_tokens", "strip", "answer")
"""The settings that decide which responses a policy gives."""


@dataclass(frozen=True)
class TrainedOn(Shown):
    """Prompts of an evaluation that one of its policies was trained on."""

    policy: str
    run: Path
    count: int
    total: int
    test_fraction: float | None
    """The share of its prompts that the run holds out; None if its configuration is not readable.
    """

    def words(self) -> str:
        """What is wrong with judging by these prompts."""
        return (
            f"The policy {self.policy} was trained on {self.count} of the {self.total} prompts "
            f"(by the run in {self.run}): on them it looks better than it is"
        )


def trained_on(policies: Mapping[str, str], prompts: Sequence[Prompt]) -> list[TrainedOn]:
    """The policies that were trained on some of the prompts, as far as it is known: those in the
    folder of a run.

    - `policies`: name → specification.

    A prompt counts if the run has drawn reference samples of it for its trainings, whatever its id
    is now: what it says is compared.
    """
    asked = [checksum(p) for p in prompts]
    trained = []
    for name, spec in policies.items():
        run = _run_of(spec)
        if run is None:
            continue
        known = _trained(run)
        count = sum(own in known for own in asked)
        if count:
            trained.append(TrainedOn(name, run, count, len(prompts), _fraction(run)))
    return trained


def other_sampling(policies: Mapping[str, str], sampling: SamplingSettings) -> Iterator[str]:
    """Sentences about policies that a run has trained for responses of another kind, as far as it
    is known.

    - `policies`: name → specification; `sampling`: how they are going to be sampled.
    """
    for name, spec in policies.items():
        run = _run_of(spec)
        config = None if run is None else _config(run)
        if config is None:
            continue
        own, now = config.sampling.model_dump(mode="json"), sampling.model_dump(mode="json")
        if different := [key for key in LAW if own[key] != now[key]]:
            was = ", ".join(f"{key} {own[key]}" for key in different)
            yield (
                f"The policy {name} was trained for responses with {was} (by the run in {run}); "
                f"here they have {', '.join(f'{key} {now[key]}' for key in different)}. Its KL and "
                "win rates are other ones than that run reports."
            )


def _run_of(spec: str) -> Path | None:
    """The run in whose folder a policy is."""
    if ModelSpec.parse(spec).inner.kind != "path":
        return None
    path = Path(ModelSpec.parse(spec).inner.text).absolute()
    return next((folder for folder in path.parents if (folder / FIRST).is_file()), None)


def _trained(run: Path) -> set[str]:
    """Checksums of the prompts in the calibrations of a run, of which one belongs to each
    training."""
    stores = {file.parent for file in run.glob(f"calibration*/{NAME}")}
    used = run / str(read_current(Manifest(run)).get("calibration", "calibration"))
    stores |= {used} if (used / NAME).is_file() else set()
    known: set[str] = set()
    for store in stores:
        try:
            known |= set(read_samples(store, [CHECKSUM])[CHECKSUM].to_pylist())
        except DataError:  # a store that was imported has no checksums
            continue
    return known


def _fraction(run: Path) -> float | None:
    config = _config(run)
    return None if config is None else config.prompts.test_fraction


def _config(run: Path) -> Config | None:
    try:
        return load_config(run / "config.yaml")
    except ConfigError:
        return None
