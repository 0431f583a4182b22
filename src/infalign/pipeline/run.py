"""Run the stages in order, continuing from the state of the folder."""

from pathlib import Path

from infalign import _check, storage
from infalign.config import Config
from infalign.errors import MissingExtraError
from infalign.models.functions import beside

from . import stages
from .checks import check, checks_of
from .folder import Run, require_run

STAGES = ("calibrate", "design", "train", "evaluate", "report")


def run(
    config: Config, folder: Path, *, until: str = "report", report: stages.Report | None = None
) -> Run:
    """Run all stages up to and including `until`; finished stages are skipped.

    A killed call can be continued at any point by calling again. The result equals that of an
    uninterrupted run.

    - `report`: called with the name of a task, the units done and the total.

    Raises ConfigError if the folder holds a run of another configuration, if TRL does not have an
    option, or if the model cannot be trained; DataError if model, reward or prompts cannot be used;
    MissingExtraError without torch and TRL.
    """
    _check.one_of("until", until, STAGES)
    require_run(Path(folder))
    with storage.locked(Path(folder)):  # before the libraries, which take seconds to load
        return _run(config, Path(folder), until, report or (lambda what, done, total: None))


def _run(config: Config, folder: Path, until: str, report: stages.Report) -> Run:
    require_libraries()
    trained = is_trained(until)
    with beside(config.folder):
        current = Run.start(config, folder, lambda run: check(checks_of(run, trained=trained)))
        for stage in STAGES[: STAGES.index(until) + 1]:
            if stage == "report":
                from infalign.reports.page import build_report

                report(stage, 0, 1)
                build_report(current.folder)
                report(stage, 1, 1)
            else:
                getattr(stages, stage)(current, report)
    return current


def is_trained(until: str) -> bool:
    """Whether the stages up to `until` train policies."""
    return STAGES.index(until) > STAGES.index("design")


def require_libraries() -> None:
    """Raise MissingExtraError without torch and TRL."""
    try:
        import torch  # noqa: F401
        import trl  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "Running the pipeline needs torch and trl. Install them with: "
            'pip install "infalign[train]"'
        ) from error
