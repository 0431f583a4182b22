"""Collection on a Ray cluster, by actors that each load policy and reward once."""

import base64
import logging
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from infalign import _check
from infalign._look import Shown
from infalign.errors import DataError, InfalignError, MissingExtraError, install
from infalign.models.interfaces import Sampler, Scorer
from infalign.prompts import Prompt

from .answers import Load, answer, columns

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["OnRay", "Worker", "in_order", "packed"]

TRIES = 4
"""Number of attempts to answer a shard that raises errors, with pauses of 1, 2 and 4 seconds
between them."""

ALONE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the loopback address, on Linux too
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
"""Default environment of a cluster that is started on this machine only."""


@dataclass(frozen=True)
class OnRay(Shown):
    """Shards are distributed over actors of Ray Data, which return them when they are done.

    Each shard is a block of its own. If a worker dies, another actor repeats only its current
    shard, with the same result, since samples depend only on seed, prompt and sample number. A
    shard is retried three times if policy or reward raises an error; an error of this package,
    which states the remedy, ends the collection at once.

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
        ray = _ray()
        firsts = firsts or [0] * len(shards)
        rows = [
            {"shard": number, "first": first, "prompts": packed(part)}
            for number, (part, first) in enumerate(zip(shards, firsts, strict=True))
        ]
        sizes = [len(part) * (samples - n) for part, n in zip(shards, firsts, strict=True)]
        with _cluster(ray), _quiet(ray):
            resources, workers = _resources(ray, self.workers)
            tables = (
                ray.data.from_items(rows, override_num_blocks=len(rows))
                .map_batches(
                    Worker,
                    fn_constructor_args=(self.load, samples, seed),
                    batch_size=1,
                    batch_format="pyarrow",
                    compute=ray.data.ActorPoolStrategy(size=min(workers, len(rows))),
                    **resources,
                )
                .iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
            )
            try:
                yield from in_order(tables, sizes)
            except ray.exceptions.RayError as error:
                last = str(error).strip().splitlines()[-1]
                raise DataError(f"Ray gave up: {last[:300]} Its logs may say more.") from error


class Worker:
    """An actor, which loads policy and reward once and answers one shard after another."""

    def __init__(self, load: Load, samples: int, seed: int):
        self.load, self.samples, self.seed = load, samples, seed

    @cached_property
    def models(self) -> tuple[Sampler, Scorer]:
        """Policy and reward."""
        return self.load()

    def __call__(self, batch: "pa.Table") -> "pa.Table":
        """`answer` of one shard, with the shard's number in the column `shard`; or one row with the
        text of an `error`, since Ray does not pass exceptions on unchanged."""
        import pyarrow as pa

        (row,) = batch.to_pylist()
        part: list[Prompt] = pickle.loads(base64.b85decode(row["prompts"]))
        try:
            table = self._tried(part, row.get("first", 0))
        except Exception as error:
            own = isinstance(error, InfalignError)
            message = str(error) if own else f"{type(error).__name__}: {error}"
            failed = {"shard": row["shard"], "error": message, "own": own}
            return pa.Table.from_pylist([failed], schema=_schema())
        number = pa.array([row["shard"]] * len(table), pa.int64())
        nothing = [pa.nulls(len(table), t) for t in (pa.string(), pa.bool_())]
        columns = [*table.columns, number, *nothing]
        return pa.Table.from_arrays(columns, schema=_schema())

    def _tried(self, part, first: int) -> "pa.Table":
        for tries in range(1, TRIES + 1):
            try:
                sampler, scorer = self.models
                return answer(part, sampler, scorer, self.samples, self.seed, first)
            except InfalignError:
                raise
            except Exception:
                if tries == TRIES:
                    raise
                time.sleep(2 ** (tries - 1))
        raise AssertionError("the last try returns or raises")


def packed(part: Sequence[Prompt]) -> str:
    """Prompts as a text for another process: their columns may hold what JSON does not have."""
    return base64.b85encode(pickle.dumps(list(part))).decode()


def _schema() -> "pa.Schema":
    import pyarrow as pa

    return pa.schema(
        [*columns(), ("shard", pa.int64()), ("error", pa.string()), ("own", pa.bool_())]
    )


def in_order(tables, sizes: Sequence[int]) -> Iterator["pa.Table"]:
    """Complete shards in order, from tables of rows in order of completion.

    - `sizes`: rows of each shard.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    waiting: dict[int, list[pa.Table]] = {}
    turn = 0
    for table in tables:
        for row in table.filter(pc.is_valid(table["error"])).select(["error", "own"]).to_pylist():
            tried = "" if row["own"] else f"A worker on Ray failed {TRIES} times: "
            raise DataError(tried + row["error"])
        for number in table["shard"].unique().to_pylist():
            own = table.filter(pc.equal(table["shard"], number))
            waiting.setdefault(number, []).append(own.drop_columns(["shard", "error", "own"]))
        while turn < len(sizes) and sum(map(len, waiting.get(turn, []))) == sizes[turn]:
            yield pa.concat_tables(waiting.pop(turn))
            turn += 1


def _resources(ray, workers: int | None) -> tuple[dict, int]:
    """Resources of each actor, and the number of actors."""
    there = ray.cluster_resources()
    kind = "GPU" if there.get("GPU", 0) >= 1 else "CPU"
    count = int(there.get(kind, 1)) if workers is None else _check.count("workers", workers)
    return {f"num_{kind.lower()}s": 1}, count


def _ray():
    if "RAY_ADDRESS" not in os.environ:
        for name, value in ALONE.items():
            os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError:
        raise MissingExtraError(
            f"`engine: ray` needs `ray`. Install it with: {install('ray')}"
        ) from None
    return ray


@contextmanager
def _cluster(ray):
    """A connection to a cluster, closed afterward if it was opened here."""
    if ray.is_initialized():
        yield
        return
    # With RAY_ADDRESS, Ray connects to that cluster and accepts no cluster settings.
    own = {} if "RAY_ADDRESS" in os.environ else {"include_dashboard": False}
    with _same_handler():
        ray.init(log_to_driver=False, logging_level="ERROR", **own)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _same_handler():
    """After the block, SIGTERM does what it did before: with the handler that Ray installs, the
    process prints the stack of its threads and aborts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _quiet(ray):
    """Silences Ray Data's progress bars and notices; errors are raised."""
    context, log = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    bars, level = context.enable_progress_bars, log.level
    context.enable_progress_bars = False
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        context.enable_progress_bars = bars
        log.setLevel(level)
