"""Readers of finished stages: the calibration store, and the design made from it."""

from infalign import storage
from infalign.calibration import AbstractFitted, StoreCalibration
from infalign.calibration.choice import CALIBRATORS
from infalign.calibration.expected import AbstractExpected, expected
from infalign.calibration.in_store import some_rewards
from infalign.core import AbstractTransform, transform_from_json
from infalign.stores import CalibrationStore

from .folder import Run


def open_store(run: Run) -> CalibrationStore:
    """The run's calibration store, checked against what the run uses."""
    store = CalibrationStore.open(run.folder / "calibration")
    store.require(**run.fingerprints, seed=run.seed("calibrate"))
    return store


def read_calibration(run: Run, store: CalibrationStore) -> AbstractFitted:
    """What the calibrator that `design.json` names learns from the store."""
    name = storage.read_json(run.folder / "design.json")["calibrator"]["name"]
    return StoreCalibration.fit(store, CALIBRATORS[name]).learned


def read_expected(run: Run, store: CalibrationStore) -> AbstractExpected:
    """What theory says of training with the run's calibrator and number of samples."""
    return expected(read_calibration(run, store), some_rewards(store))


def read_design(run: Run) -> tuple[AbstractTransform, float, float]:
    """The transform, its β and its KL in nats."""
    data = storage.read_json(run.folder / "design.json")
    return transform_from_json(data["transform"]), data["beta"], data["kl"]
