"""Run the stages in order, continuing from the state of the folder."""

from pathlib import Path

from infalign import _check, storage
from infalign.config import Config
from infalign.errors import ConfigError, MissingExtraError
from infalign.models.functions import beside
from infalign.models.specs import ModelSpec

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
    _require_libraries()
    trained = STAGES.index(until) > STAGES.index("design")
    if trained and not ModelSpec.parse(config.model).has_weights:
        raise ConfigError(
            f"`model` is {config.model}, which can be calibrated but not trained: its weights are "
            "not accessible. Give its folder or hub id, or stop with --until design."
        )
    with beside(config.folder):
        current = Run.start(config, folder, lambda run: check(run, checks_of(run, trained=trained)))
        for stage in STAGES[: STAGES.index(until) + 1]:
            if stage == "report":
                from infalign.reports.page import build_report

                report(stage, 0, 1)
                build_report(current.folder)
                report(stage, 1, 1)
            else:
                getattr(stages, stage)(current, report)
    return current


def _require_libraries() -> None:
    try:
        import torch  # noqa: F401
        import trl  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "Running the pipeline needs torch and trl. Install them with: "
            'pip install "infalign[train]"'
        ) from error
