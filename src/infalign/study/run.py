"""Run a study: what its tasks share, then every cell that is not finished."""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from infalign import storage
from infalign._launched import require_alone
from infalign.config import Cell, Grid, StudyTask
from infalign.errors import ConfigError, DataError, InfalignError
from infalign.models.functions import beside
from infalign.pipeline.checks import check, checks_of
from infalign.pipeline.folder import Run
from infalign.pipeline.run import require_libraries
from infalign.pipeline.tasks import Task
from infalign.stores.resumable import Report

from .archive import Archive
from .cells import Outcome, drop_models, run_cell, warning_once, words
from .cluster import connected
from .folder import StudyFolder
from .plan import tasks_left, with_cells
from .shared import REFERENCE, calibrate, draw_reference
from .table import summarize

__all__ = ["check_study", "run_study"]

LOG = logging.getLogger(__name__)

Begin = Callable[[Sequence[str], Sequence[Task]], None]


def run_study(
    grid: Grid,
    folder: Path,
    *,
    archive: Path | None = None,
    report: Report | None = None,
    begin: Begin | None = None,
    write: Callable[[Path, dict], object] | None = None,
) -> dict:
    """The results of a study, also in `folder`/results.json.

    A killed call can be continued at any point by calling again: a finished cell is never made
    again, and an interrupted one continues from its last checkpoint. The results are written after
    every cell, for those that are finished by then.

    - `archive`: a folder with small files of finished cells, as `Archive` reads them. Its cells are
      not made again, and finished cells are added to it.
    - `report`: called with the name of a task, the units done and the total.
    - `begin`: called once, after all checks, with the names of the cells and the tasks that will be
      done.
    - `write`: writes pages and figures from the results into the folder.

    A cell that fails does not end the study; the next call tries it again. Results and files of the
    archive that cannot be written after a cell do not end it either: the cell is finished, and they
    are written later. Raises the errors of `run` for what all cells share, DataError for an archive
    that cannot be written or whose cells come from other samples, and at the end DataError if
    something could not be written then.
    """
    require_alone()
    require_libraries()
    study = StudyFolder(grid, Path(folder), None if archive is None else Archive(Path(archive)))
    study.require()
    report = report or (lambda what, done, total: None)
    with storage.locked(study.folder), warning_once():
        check_study(study)
        study.begin()
        due = study.due()
        if known := sum(study.archived(cell) is not None for cell in grid.cells):
            LOG.info("%d of %d cells come from %s.", known, len(list(grid.cells)), archive)
        begin = begin or (lambda stages, tasks: None)
        if grid.study.engine == "local":
            begin(*tasks_left(study, due))
        failed: dict[str, str] = {}

        def results() -> dict:
            made = summarize(study, failed)
            storage.write_json(study.folder / "results.json", made)
            if write is not None:
                _drawn(write, study.folder, made)
            return made

        for outcome in ENGINES[grid.study.engine](study, due, report):
            cell = outcome.cell
            if outcome.error is not None:
                failed[cell.path] = outcome.error
                LOG.warning("Cell %s failed; the others go on. %s", cell.path, outcome.error)
                continue
            study.finish(cell)
            drop_models(cell, study.of_cell(cell), grid.study.models)
            try:
                study.add_to_archive(cell)
                results()
            except Exception as error:
                LOG.warning("Cell %s is finished; the study goes on. %s", cell.path, words(error))
        for cell in grid.cells:
            if study.is_in_folder(cell):
                study.add_to_archive(cell)
                drop_models(cell, study.of_cell(cell), grid.study.models)
        return results()


def _drawn(write: Callable[[Path, dict], object], folder: Path, results: dict) -> None:
    """Write pages and figures; DataError if that fails."""
    try:
        write(folder, results)
    except Exception as error:
        raise DataError(
            f"The page of {folder} could not be drawn; its numbers are in results.json. "
            f"{words(error)} The same command draws it again; finished cells are not repeated."
        ) from error


def check_study(study: StudyFolder) -> dict[str, list[str]]:
    """All checks of a study, before anything runs: task → the names of those that passed. Nothing
    of a task is checked whose cells are all archived.

    Raises the errors of all tasks together.
    """
    passed, errors = {}, []
    for task in study.tasks:
        if all(study.archived(cell) for cell in task.cells):
            continue
        try:
            passed[task.name] = _checked(study.runs[task.name], task)
        except InfalignError as error:
            errors.append((task.name, error))
    if not errors:
        return passed
    kind = ConfigError if all(isinstance(e, ConfigError) for _, e in errors) else DataError
    raise kind("\n".join(f"Task {name}: {error}" for name, error in errors))


def _checked(run: Run, task: StudyTask) -> list[str]:
    with beside(task.folder):
        passed = check(checks_of(run))
        for kl in task.kls[1:]:  # what a KL decides; the rest is the same
            own = checks_of(Run(task.at(kl), run.folder))
            check([c for c in own if c.name.startswith(("procedure", "method "))])
    return passed


def _here(study: StudyFolder, due: Sequence[Cell], report: Report) -> Iterator[Outcome]:
    """The outcomes of cells that run in this process, after what they share."""
    for task in with_cells(study, due):
        named = _named(task, report)
        calibrate(task, study.of_task(task), named)
        draw_reference(task, study.of_task(task), named)
        _require_archive(study, task)
    for cell in study.due():  # more than before, if other reference samples were drawn
        yield run_cell(cell, study.of_task(cell.task), study.of_cell(cell), report)


def _on_ray(study: StudyFolder, due: Sequence[Cell], report: Report) -> Iterator[Outcome]:
    """The outcomes of cells that run on a cluster, after what they share."""
    with connected() as cluster:
        for task in with_cells(study, due):
            calibrate(task, study.of_task(task), _named(task, report))
            cluster.reference(task, study.of_task(task))
            _require_archive(study, task)
        places = [(cell, study.of_task(cell.task), study.of_cell(cell)) for cell in study.due()]
        report("cells", 0, len(places))
        for number, outcome in enumerate(cluster.cells(places), 1):
            report("cells", number, len(places))
            yield outcome


def _require_archive(study: StudyFolder, task: StudyTask) -> None:
    """Raise DataError unless archived cells come from what the cells of a task share now."""
    for cell in task.cells:
        study.archived(cell)


ENGINES = {"local": _here, "ray": _on_ray}


def _named(task: StudyTask, report: Report) -> Report:
    """Reports about what the cells of a task share."""
    return lambda what, done, total: report(f"{task.name}/{REFERENCE} {what}", done, total)
