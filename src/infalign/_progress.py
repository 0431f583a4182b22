"""Progress inside a unit of work: the tokens of a batch while the unit is a part of many batches.

Whoever works on a unit says so with `part`; models call `advance`; whoever shows progress listens.
Nothing is passed through the samplers and rewards of users. Other threads and processes are silent.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[float, float], None]
"""Called with the units done, a fraction included, and their total."""

DRAWING = 0.6
"""Share of the time that drawing responses takes, about, where they are scored next."""

_LISTENER: ContextVar[Listener | None] = ContextVar("listener to progress", default=None)
_PART: ContextVar[tuple[float, float, float] | None] = ContextVar("part of the work", default=None)
_FRAME: ContextVar[tuple[float, float, float] | None] = ContextVar("nested work", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Inside the block, `listener` hears how far units of work are."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


@contextmanager
def part(start: float, end: float, total: float) -> Iterator[None]:
    """Inside the block, the units from `start` to `end` of `total` are worked on."""
    frame = _FRAME.get()
    if frame is not None:
        first, last, whole = frame
        scale = (last - first) / total
        start, end, total = first + start * scale, first + end * scale, whole
    token = _PART.set((start, end, total))
    try:
        yield
    finally:
        _PART.reset(token)


@contextmanager
def share(start: float, end: float) -> Iterator[None]:
    """Inside the block, the shares from `start` to `end` of the present part are worked on."""
    here = _PART.get()
    if here is None:
        yield
        return
    first, last, total = here
    token = _PART.set((first + start * (last - first), first + end * (last - first), total))
    try:
        yield
    finally:
        _PART.reset(token)


@contextmanager
def nested() -> Iterator[None]:
    """Inside the block, all units that are worked on together make up the present part."""
    token = _FRAME.set(_PART.get())
    try:
        yield
    finally:
        _FRAME.reset(token)


def at(done: float, total: float) -> None:
    """Say how many units are done."""
    listener = _LISTENER.get()
    if listener is not None:
        listener(done, total)


def advance(share: float) -> None:
    """Say which share of the present part is done, from 0 to 1."""
    here = _PART.get()
    if here is not None:
        start, end, total = here
        at(start + min(max(share, 0.0), 1.0) * (end - start), total)
