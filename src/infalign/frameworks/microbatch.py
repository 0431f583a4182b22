"""Micro-batching: requests that arrive within milliseconds of each other share one call."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from infalign import _check
from infalign._look import Shown
from infalign.errors import InfalignError, UnreachableError

__all__ = ["BusyError", "MicroBatcher", "Request"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class BusyError(InfalignError, RuntimeError):
    """The queue is full; retry later."""


@dataclass(frozen=True)
class Request(Shown, Generic[Item, Result]):
    """The items of one caller, and a future for their results."""

    items: list[Item]
    future: "Future[list[Result]]" = field(default_factory=Future)


class MicroBatcher(Generic[Item, Result]):
    """Gathers the items of many callers, which may be threads or coroutines of any event loop, into
    one call at a time on its own thread.

    A call begins when the time window opened by its first item ends, or when the batch is full. The
    next batch is gathered meanwhile. Items that one caller submits together stay together.

    - `call`: maps a list of items to a list of results of the same length. If it fails, the batch
      is split until the requests that fail are alone: they get the error, and the others their
      results.
    - `window`: seconds to wait for more items.
    - `batch`: maximum number of items in a call, unless one caller submits more at once.
    - `waiting`: maximum number of items in the queue. Default: no limit.
    """

    def __init__(
        self,
        call: Callable[[list[Item]], Sequence[Result]],
        *,
        window: float = 0.005,
        batch: int = 256,
        waiting: int | None = None,
    ):
        self.call = call
        self.window = _check.positive("window", window)
        self.batch = _check.count("batch", batch)
        self.waiting = None if waiting is None else _check.count("waiting", waiting)
        self._queue: deque[Request[Item, Result]] = deque()
        self.queued = 0
        """Items in the queue."""

        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, items: Sequence[Item]) -> "Future[list[Result]]":
        """A future for the results of `items`.

        Raises BusyError when the queue is full. An empty queue takes any number of items.
        """
        request: Request[Item, Result] = Request(list(items))
        with self._changed:
            if self._closed:
                raise BusyError("The micro-batcher is closed and takes no more requests.")
            queued = self.queued
            if self.waiting is not None and queued and queued + len(items) > self.waiting:
                raise BusyError(
                    f"{queued} responses wait to be scored, and {len(items)} more would exceed the "
                    f"limit of {self.waiting}. Ask again later, or raise the limit."
                )
            self._queue.append(request)
            self.queued += len(items)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return request.future

    def __call__(self, item: Item) -> Result:
        """The result for one item; blocks the calling thread."""
        return self.submit([item]).result()[0]

    async def ask(self, item: Item) -> Result:
        """The result for one item; does not block the calling event loop."""
        return (await asyncio.wrap_future(self.submit([item])))[0]

    def close(self) -> None:
        """Answer the requests in the queue, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while requests := self._gathered():
            self._answer(requests)

    def _gathered(self) -> list[Request[Item, Result]]:
        """The requests of the next call; empty once the batcher is closed and all requests are
        answered."""
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            end = time.monotonic() + self.window
            while self.queued < self.batch and not self._closed:
                left = end - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            gathered: list[Request[Item, Result]] = []
            size = 0
            while self._queue:
                more = len(self._queue[0].items)
                if gathered and size + more > self.batch:
                    break
                gathered.append(self._queue.popleft())
                size += more
            self.queued -= size
            return gathered

    def _answer(self, requests: list[Request[Item, Result]]) -> None:
        # Requests canceled in the meantime are neither scored nor answered.
        self._score([r for r in requests if r.future.set_running_or_notify_cancel()])

    def _score(self, requests: list[Request[Item, Result]]) -> None:
        items = [item for r in requests for item in r.items]
        try:
            results = list(self.call(items)) if items else []
            if len(results) != len(items):
                raise ValueError(f"{len(results)} results for {len(items)} items")
        except BaseException as error:
            own = isinstance(error, Exception) and not isinstance(error, UnreachableError)
            if own and len(requests) > 1:
                middle = len(requests) // 2
                self._score(requests[:middle])
                self._score(requests[middle:])
                return
            for r in requests:
                r.future.set_exception(error)
            return
        start = 0
        for r in requests:
            r.future.set_result(results[start : start + len(r.items)])
            start += len(r.items)
