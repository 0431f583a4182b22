"""Readers of finished stages: the calibration, and the design made from it."""

from collections.abc import Sequence

from infalign import storage
from infalign.calibration import AbstractFitted, StoreCalibration
from infalign.calibration.choice import CALIBRATORS
from infalign.calibration.in_store import some_rewards
from infalign.calibration.outlook import AbstractOutlook, outlook_of
from infalign.errors import DataError
from infalign.methods import TrainingDesign
from infalign.stores import CalibrationStore, PromptSamples

from .calibration import Wanted, open_calibration, samples_in
from .folder import Run
from .inputs import stated

__all__ = [
    "open_store",
    "read_calibration",
    "read_calibrator",
    "read_design",
    "read_outlook",
    "run_samples",
]


def open_store(run: Run) -> CalibrationStore:
    """The run's calibration store, checked against the run's inputs."""
    wanted, path = Wanted.of(run), run.store_path
    store = open_calibration(path, run.prompts, run.config.calibration.samples, run.config.reward)
    if different := wanted.differences(store.provenance):
        raise DataError(
            f"The calibration store was made with {'; '.join(different)}. Calibrate again, or "
            "restore these settings."
        )
    return store


def run_samples(run: Run, columns: Sequence[str]) -> PromptSamples:
    """The samples of the run's calibration, in the order of its prompts."""
    ids = [prompt.id for prompt in run.prompts]
    return samples_in(run.store_path, ids, run.config.calibration.samples, columns)


def read_calibrator(run: Run) -> dict[str, str]:
    """The `name` of the run's calibrator, and the `reason` for it."""
    return _design(run)["calibrator"]


def read_calibration(run: Run, store: CalibrationStore) -> AbstractFitted:
    """The run's calibrator, fitted to the store."""
    calibrator = CALIBRATORS[read_calibrator(run)["name"]]
    return StoreCalibration.fit(store, calibrator).learned


def read_outlook(run: Run, store: CalibrationStore) -> AbstractOutlook:
    """The theoretical outlook for training with the run's calibrator and number of samples."""
    return outlook_of(read_calibration(run, store), some_rewards(store))


def read_design(run: Run) -> TrainingDesign:
    """The transform that the run trains on, with its β, target KL and expected win rate."""
    return TrainingDesign.from_json(_design(run))


def _design(run: Run) -> dict:
    path = run.design_file
    run.manifest.require(path)
    made_from = run.manifest.made_from(path) or {}
    # A reader must not take a design of other settings for that of the configuration.
    wanted = {k: v for k, v in stated(run.config, "design").items() if k in made_from}
    storage.require_same(
        {k: made_from[k] for k in wanted},
        wanted,
        f"{path} was made from other settings:",
        "Run the stage `design` again.",
        error=DataError,
    )
    return storage.read_json(path)
