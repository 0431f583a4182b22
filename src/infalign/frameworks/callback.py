"""A reward function for other frameworks to call: it is made once, and its failures stop the
training."""

import threading
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

__all__ = ["Once", "TrainingStopped", "stops_training"]

T = TypeVar("T")


class TrainingStopped(BaseException):
    """Stops a training run that cannot get its rewards.

    It is not an `Exception`: OpenRLHF logs an `Exception` of a reward function and continues
    without the reward, and one of verl's managers replaces it with the score 0. Both let a
    `BaseException` through; Ray passes it to the trainer, which stops with its message.
    """


@contextmanager
def stops_training():
    """Turns every error raised inside into `TrainingStopped` with the error's message."""
    try:
        yield
    except Exception as error:
        raise TrainingStopped(f"{type(error).__name__}: {error}") from error


class Once(Generic[T]):
    """Calls `make` only once for the same keyword arguments, in whichever thread comes first."""

    def __init__(self, make: Callable[..., T]):
        self.make = make
        self._made: dict[tuple[tuple[str, Any], ...], T] = {}
        self._lock = threading.Lock()

    def made(self, **arguments) -> T | None:
        """The object made for these arguments; None before the first call."""
        return self._made.get(tuple(sorted(arguments.items())))

    def __call__(self, **arguments) -> T:
        """`make(**arguments)`, the same object for the same arguments."""
        key = tuple(sorted(arguments.items()))
        with self._lock:
            if key not in self._made:
                self._made[key] = self.make(**arguments)
            return self._made[key]
