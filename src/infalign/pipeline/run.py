"""Run the stages in order, continuing from the state of the folder."""

import logging
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from infalign import _check, storage
from infalign._launched import require_alone
from infalign.config import Config
from infalign.errors import MissingExtraError, install
from infalign.models.functions import beside

from . import stages
from .bill import origin_of
from .checks import check, checks_of
from .costs import metered
from .folder import Run, require_run
from .former import adopt
from .inputs import STAGES
from .plan import changes, plan_of
from .tasks import Task, tasks_of

__all__ = ["is_trained", "require_libraries", "run"]

Begin = Callable[[Sequence[str], Sequence[Task]], None]

LOG = logging.getLogger(__name__)


def run(
    config: Config,
    folder: Path,
    *,
    until: str = "report",
    report: stages.Report | None = None,
    begin: Begin | None = None,
    command: str = "",
) -> Run:
    """Run all stages up to and including `until`; finished stages are skipped.

    A killed call can be continued at any point by calling again. The result equals that of an
    uninterrupted run.

    - `report`: called with the name of a task, the units done and the total.
    - `command`: the command line that gives the same results in another folder, for the report.
    - `begin`: called once, after all checks, with the stages and the tasks that will be done.

    What was made from other inputs stays in the folder, and is used again when they come back.

    Raises ConfigError if TRL does not have an option, if the model cannot be trained, or in one of
    several processes of a launcher; DataError if model, reward or prompts cannot be used;
    MissingExtraError without torch and TRL.
    """
    _check.one_of("until", until, STAGES)
    require_alone()
    require_run(Path(folder))
    with storage.locked(Path(folder)):  # before the libraries, which take seconds to load
        report = report or (lambda what, done, total: None)
        begin = begin or (lambda stages, tasks: None)
        return _run(config, Path(folder), until, report, begin, command)


def _run(
    config: Config,
    folder: Path,
    until: str,
    report: stages.Report,
    begin: Begin,
    command: str,
) -> Run:
    require_libraries()
    trained = is_trained(until)
    with beside(config.folder):
        adopt(folder, config)

        def ready(new: Run) -> None:
            report("checks", 0, 1)
            check(checks_of(new, trained=trained))
            plans = plan_of(new, until)
            report("checks", 1, 1)
            if lines := changes(plans):
                LOG.info("In %s:\n  %s", folder, "\n  ".join(lines))
            begin(wanted, tasks_of(new, wanted, {p.name for p in plans if p.state == "reused"}))

        wanted = STAGES[: STAGES.index(until) + 1]
        current = Run.start(config, folder, ready)
        for stage in wanted:
            with metered(current.folder, stage, report) as measured:
                if stage == "report":
                    from infalign.reports.page import build_report

                    measured(stage, 0, 1)
                    build_report(current.folder, origin_of(current, command))
                    measured(stage, 1, 1)
                else:
                    getattr(stages, stage)(current, measured)
    return current


def is_trained(until: str) -> bool:
    """Whether the stages up to `until` train policies."""
    return STAGES.index(until) > STAGES.index("design")


def require_libraries() -> None:
    """Raise MissingExtraError without torch and TRL."""
    missing = [name for name in ("torch", "trl") if find_spec(name) is None]
    if missing:  # known without an import, which takes long where one of them is there
        raise MissingExtraError(
            f"Running the pipeline needs torch and trl; {' and '.join(missing)} "
            f"{'are' if len(missing) > 1 else 'is'} not installed. Install them with: "
            f"{install('train')}"
        )
