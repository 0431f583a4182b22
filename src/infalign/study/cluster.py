"""Cells on a Ray cluster, one on each of its GPUs, or of its processors if it has none.

Ray starts a cell again whose worker died, on this node or another one. Its run folder is what the
dead worker left, so that it continues from its last checkpoint. All nodes must see the folder of
the study under the same path.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infalign.collection.connection import connection, resources_each, wait
from infalign.config import Cell, StudyTask
from infalign.errors import DataError

from .cells import Outcome, run_cell
from .shared import draw_reference

__all__ = ["Cluster", "connected"]

LOG = logging.getLogger(__name__)

RETRIES = 3
"""Number of times that Ray starts a cell again whose worker died."""

Work = Callable[[Cell, Path, Path], Outcome]


class Cluster:
    """A Ray cluster that this process is connected to."""

    def __init__(self, ray: Any):
        self.ray = ray
        self.resources, self.slots = resources_each(ray, None)

    def _remote(self, function: Callable) -> Any:
        return self.ray.remote(max_retries=RETRIES, retry_exceptions=False, **self.resources)(
            function
        )

    def reference(self, task: StudyTask, folder: Path) -> None:
        """Draw the reference's samples of a task; DataError if Ray gives up."""
        try:
            failed = self.ray.get(self._remote(_reference).remote(task, folder.absolute()))
        except self.ray.exceptions.RayError as error:
            raise DataError(_words(error)) from error
        if failed is not None:
            raise DataError(failed)

    def cells(
        self, cells: Sequence[tuple[Cell, Path, Path]], work: Work | None = None
    ) -> Iterator[Outcome]:
        """The outcomes of cells, in the order in which they end.

        - `cells`: each with the folder of its task and its own.
        - `work`: what a worker does. Default: `run_cell`.
        """
        remote = self._remote(work or _cell)
        running = {
            remote.remote(cell, task.absolute(), folder.absolute()): cell
            for cell, task, folder in cells
        }
        while running:
            ended, *_ = wait(self.ray, list(running))
            cell = running.pop(ended)
            try:
                yield self.ray.get(ended)
            except self.ray.exceptions.RayError as error:
                yield Outcome(cell, 0.0, _words(error))


@contextmanager
def connected() -> Iterator[Cluster]:
    """The cluster that this process is connected to, the one that `RAY_ADDRESS` names, or one on
    this machine, for the duration of the block.

    Raises MissingExtraError without Ray.
    """
    with connection() as ray:
        yield Cluster(ray)


def _cell(cell: Cell, task: Path, folder: Path) -> Outcome:
    return run_cell(cell, task, folder, lambda what, done, total: None)


def _reference(task: StudyTask, folder: Path) -> str | None:
    """What went wrong, since Ray does not pass exceptions on unchanged."""
    try:
        draw_reference(task, folder, lambda what, done, total: None)
    except Exception as error:
        return str(error)
    return None


def _words(error: Exception) -> str:
    last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return f"Ray gave up: {last[:300]} Its logs may say more."
