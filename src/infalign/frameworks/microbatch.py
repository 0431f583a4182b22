"""Requests that come one by one, answered by few calls: a window of milliseconds gathers them."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from infalign import _check
from infalign.errors import InfalignError


class BusyError(InfalignError, RuntimeError):
    """More is waiting already than may wait: ask again later."""


class MicroBatcher:
    """Gathers the items of many callers, threads or coroutines of any loop, into calls of one
    thread of its own, one at a time.

    A call begins when the window that the first item opened is over, or the batch is full; while
    one is under way the next gathers. What one caller gives at once stays together.

    - `call`: a list of items to as many results. What it raises, all callers of the batch get.
    - `window`: seconds to wait for more.
    - `batch`: items of a call, at most, unless one caller gives more at once.
    - `waiting`: items that may wait for their call; any number unless given.
    """

    def __init__(
        self,
        call: Callable[[list], Sequence],
        *,
        window: float = 0.005,
        batch: int = 256,
        waiting: int | None = None,
    ):
        self.call = call
        self.window = _check.positive("window", window)
        self.batch = _check.count("batch", batch)
        self.waiting = None if waiting is None else _check.count("waiting", waiting)
        self._queue: deque[tuple[list, Future]] = deque()
        self.queued = 0
        """Items that wait for their call."""

        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, items: Sequence) -> Future:
        """A future of the list of results of `items`.

        Raises BusyError when no more may wait. What finds nobody waiting is always taken.
        """
        future: Future = Future()
        with self._changed:
            if self._closed:
                raise BusyError("This has been closed, and answers no more.")
            held = self.queued
            if self.waiting is not None and held and held + len(items) > self.waiting:
                raise BusyError(
                    f"{held} responses wait to be scored, and {len(items)} more would be above "
                    f"the {self.waiting} that may. Ask again later, or let more wait."
                )
            self._queue.append((list(items), future))
            self.queued += len(items)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return future

    def __call__(self, item):
        """The result of one item; the calling thread waits."""
        return self.submit([item]).result()[0]

    async def ask(self, item):
        """The result of one item; the calling loop goes on."""
        return (await asyncio.wrap_future(self.submit([item])))[0]

    def close(self) -> None:
        """Answer what waits, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while taken := self._gathered():
            self._answer(taken)

    def _gathered(self) -> list[tuple[list, Future]]:
        """The requests of the next call; none when there will be no more."""
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            end = time.monotonic() + self.window
            while self.queued < self.batch and not self._closed:
                left = end - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            taken, size = [], 0
            while self._queue and (not taken or size + len(self._queue[0][0]) <= self.batch):
                taken.append(self._queue.popleft())
                size += len(taken[-1][0])
            self.queued -= size
            return taken

    def _answer(self, taken) -> None:
        # A caller that has gone meanwhile is not answered, and not scored.
        taken = [(items, f) for items, f in taken if f.set_running_or_notify_cancel()]
        gathered = [item for items, _ in taken for item in items]
        if not gathered:
            for _, future in taken:
                future.set_result([])
            return
        try:
            results = list(self.call(gathered))
            if len(results) != len(gathered):
                raise ValueError(f"{len(results)} results for {len(gathered)} items")
        except BaseException as error:
            for _, future in taken:
                future.set_exception(error)
            return
        start = 0
        for items, future in taken:
            future.set_result(results[start : start + len(items)])
            start += len(items)
