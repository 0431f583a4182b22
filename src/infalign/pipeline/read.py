"""Readers of finished stages: the calibration, and the design made from it."""

from infalign import storage
from infalign.calibration import AbstractFitted, StoreCalibration
from infalign.calibration.choice import CALIBRATORS
from infalign.calibration.in_store import some_rewards
from infalign.calibration.outlook import AbstractOutlook, outlook_of
from infalign.methods import TrainingDesign
from infalign.stores import CalibrationStore

from .folder import Run


def open_store(run: Run) -> CalibrationStore:
    """The run's calibration store, checked against the run's inputs."""
    store = CalibrationStore.open(run.folder / "calibration")
    store.require(**run.fingerprints, seed=run.seed("calibrate"))
    return store


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
    run.manifest.require(run.design_file)
    return storage.read_json(run.design_file)
