"""Collection on a Ray cluster, by actors that each load policy and reward once."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from infalign import _progress
from infalign._look import Shown
from infalign.errors import DataError, InfalignError
from infalign.models.interfaces import Sampler, Scorer
from infalign.prompts import Prompt

from .answers import Load, answer
from .connection import connection, resources_each, wait

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Answered", "OnRay", "Worker"]

LOG = logging.getLogger(__name__)

RETRIES = 3
"""Number of times that Ray repeats a shard whose worker dies or raises an error."""

AHEAD = 2
"""Number of shards for each worker that may be answered before their turn: they wait in memory."""

INTERVAL = 1.0
"""Seconds between two looks at the progress."""


@dataclass(frozen=True)
class OnRay(Shown):
    """Shards are distributed over actors of Ray, which load policy and reward once.

    If a worker dies, Ray starts it again and repeats its current shard, with the same result, since
    samples depend only on seed, prompt and sample number. Ray also repeats a shard whose policy or
    reward raises an error, at most `RETRIES` times in all; an error of this package, which states
    the remedy, ends the collection at once. While the next shard is awaited, its progress is shown.

    Uses the cluster that this process is connected to, or the one that `RAY_ADDRESS` names.
    Otherwise it starts one on this machine for the duration of the collection.

    - `load`: loads policy and reward in each actor; picklable by cloudpickle.
    - `workers`: number of actors, each with one GPU if the cluster has GPUs, else with one CPU.
      Default: one actor per GPU or CPU of the cluster.
    """

    load: Load
    workers: int | None = None

    def answers(
        self,
        shards: Sequence[Sequence[Prompt]],
        samples: int,
        seed: int,
        firsts: Sequence[int] | None = None,
    ) -> Iterator["pa.Table"]:
        """`answer` of each shard, in their order.

        Raises MissingExtraError without Ray, and DataError for the errors of `answer` or if Ray
        fails.
        """
        parts = list(zip(shards, firsts or [0] * len(shards), strict=True))
        with connection() as ray:
            resources, workers = resources_each(ray, self.workers)
            worker = ray.remote(Worker).options(
                **resources,
                max_restarts=-1,
                max_task_retries=RETRIES,
                max_concurrency=2,  # one answers, the other tells its progress
            )
            actors = [
                worker.remote(self.load, samples, seed) for _ in range(min(workers, len(parts)))
            ]
            try:
                yield from _in_order(ray, actors, parts)
            finally:
                for actor in actors:
                    ray.kill(actor)


@dataclass(frozen=True)
class Answered(Shown):
    """What a worker returns of a shard."""

    table: "pa.Table | None"
    warnings: Sequence[str]
    """What the package has to say, which would otherwise stay in the worker's log."""

    error: str = ""
    """An error of this package, which a repetition would raise again."""


class Worker:
    """An actor, which loads policy and reward once and answers one shard after another."""

    def __init__(self, load: Load, samples: int, seed: int):
        self.load, self.samples, self.seed = load, samples, seed
        self._done = 0.0

    @cached_property
    def models(self) -> tuple[Sampler, Scorer]:
        """Policy and reward."""
        return self.load()

    def answer(self, part: Sequence[Prompt], first: int) -> Answered:
        """`answer` of one shard. An error of a policy or reward is raised, for Ray to repeat."""
        self._done = 0.0
        with _warnings() as said, _progress.listening(self._note), _progress.part(0, 1, 1):
            try:
                sampler, scorer = self.models
                return Answered(answer(part, sampler, scorer, self.samples, self.seed, first), said)
            except InfalignError as error:
                return Answered(None, said, str(error))

    def done(self) -> float:
        """The share of the present shard that is done, from 0 to 1."""
        return self._done

    def _note(self, done: float, total: float) -> None:
        self._done = done / total


def _in_order(ray, actors: Sequence, parts: Sequence) -> Iterator["pa.Table"]:
    """The tables of all shards, in their order; every actor answers one shard at a time."""
    idle, running, answered = list(actors), {}, {}
    turn = number = 0
    while turn < len(parts):
        while idle and number < min(len(parts), turn + AHEAD * len(actors)):
            actor = idle.pop()
            task = actor.answer.options(max_task_retries=RETRIES, retry_exceptions=True)
            running[task.remote(*parts[number])] = number, actor
            number += 1
        ready = wait(ray, list(running), timeout=INTERVAL)
        for task in ready:
            place, actor = running.pop(task)
            idle.append(actor)
            answered[place] = _result(ray, task)
        while turn in answered:
            yield answered.pop(turn)
            turn += 1
        for place, actor in running.values():
            if place == turn and not ready:
                _show(ray, actor)


def _result(ray, task) -> "pa.Table":
    """The table of a shard. Raises DataError if there is none."""
    try:
        own: Answered = ray.get(task)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise DataError(
            f"A worker on Ray failed {RETRIES + 1} times: {type(cause).__name__}: {cause}"
        ) from error
    except ray.exceptions.RayError as error:
        last = str(error).strip().splitlines()[-1]
        raise DataError(
            f"Ray gave up after {RETRIES + 1} attempts at a shard: {last[:300]} Its logs may say "
            "more."
        ) from error
    for warning in own.warnings:
        LOG.warning("%s", warning)
    if own.table is None:
        raise DataError(own.error)
    return own.table


def _show(ray, actor) -> None:
    """Show the progress of the shard that an actor answers."""
    with suppress(ray.exceptions.RayError):  # it is being started again
        asked = actor.done.remote()
        if wait(ray, [asked], timeout=INTERVAL):
            _progress.advance(ray.get(asked))


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """The warnings of the package inside the block."""
    said: list[str] = []
    handler, log = logging.Handler(logging.WARNING), logging.getLogger("infalign")
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    try:
        yield said
    finally:
        log.removeHandler(handler)
