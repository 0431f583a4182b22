"""The connection to a Ray cluster: the one that RAY_ADDRESS names, or one on this machine."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from infalign import _check
from infalign.errors import ConfigError, MissingExtraError, install
from infalign.models import precision

__all__ = ["connection", "has_gpus", "require_same_precision", "resources_each", "wait"]

ALONE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the loopback address, on Linux too
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
"""Default environment of a cluster that is started on this machine only."""


@contextmanager
def connection() -> Iterator[Any]:
    """The module `ray`, connected to the cluster that RAY_ADDRESS names or to one on this machine;
    the connection is closed afterward if it was opened here.

    Raises MissingExtraError without Ray.
    """
    ray = _ray()
    if ray.is_initialized():
        yield ray
        return
    # With RAY_ADDRESS, Ray connects to that cluster and accepts no cluster settings.
    own = {} if "RAY_ADDRESS" in os.environ else {"include_dashboard": False}
    with _same_handler():
        ray.init(log_to_driver=False, logging_level="ERROR", **own)
    try:
        yield ray
    finally:
        ray.shutdown()


def resources_each(ray, workers: int | None) -> tuple[dict, int]:
    """Resources of each actor, and the number of actors."""
    there = ray.cluster_resources()
    kind = "GPU" if there.get("GPU", 0) >= 1 else "CPU"
    count = int(there.get(kind, 1)) if workers is None else _check.count("workers", workers)
    return {f"num_{kind.lower()}s": 1}, count


def has_gpus() -> bool | None:
    """Whether the cluster that RAY_ADDRESS names has GPUs; None without one, since the workers are
    then on this machine."""
    if "RAY_ADDRESS" not in os.environ:
        return None
    with connection() as ray:
        return "num_gpus" in resources_each(ray, None)[0]


def require_same_precision(timeout: float = 60) -> None:
    """Raise ConfigError unless a worker of the cluster computes in what `dtype: auto` comes to in
    this process, which states it, and which judges by it what fits.

    - `timeout`: seconds to wait for a worker; if all of them are busy, none is asked.
    """
    with connection() as ray:
        resources, _ = resources_each(ray, None)
        asked = ray.remote(max_retries=0, **resources)(_precision).remote()
        if not wait(ray, [asked], timeout):
            ray.cancel(asked)
            return
        here, there = _precision(), ray.get(asked)
    if here != there:
        raise ConfigError(
            f"`dtype` is auto, which is {there} on the workers of Ray and {here} on this machine. "
            "What they make would not be what is stated here, and every cell of a study would "
            f"calibrate again. Set `dtype: {there}`, or start from a machine like theirs."
        )


def _precision() -> str:
    return precision.trains_in("auto")


def wait(ray, tasks: list, timeout: float | None = None) -> list:
    """The tasks that are done, at least one unless the time is over: `ray.wait`, out of which the
    exception of a signal comes as itself. Ray's compiled code wraps it in a SystemError."""
    try:
        return ray.wait(tasks, timeout=timeout)[0]
    except SystemError as error:
        if error.__cause__ is None:
            raise
        raise error.__cause__ from None


def _ray():
    if "RAY_ADDRESS" not in os.environ:
        for name, value in ALONE.items():
            os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise MissingExtraError(
            f"`engine: ray` needs `ray`. Install it with: {install('ray')}"
        ) from None
    return ray


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
