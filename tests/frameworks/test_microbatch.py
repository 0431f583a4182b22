"""Requests gathered into calls: how many, how large, and to whom each result goes."""

import asyncio
import threading

import pytest

from infalign.errors import UnreachableError
from infalign.frameworks.microbatch import BusyError, MicroBatcher


class Gate:
    """Doubles numbers; the first call waits until it is let through."""

    def __init__(self):
        self.sizes, self.begun, self.open = [], threading.Event(), threading.Event()

    def __call__(self, items):
        self.sizes.append(len(items))
        self.begun.set()
        assert self.open.wait(10)
        return [2 * item for item in items]


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.open.set()


def held(gate, **options):
    """A batcher whose first call, of item 0, has begun and waits."""
    batcher = MicroBatcher(gate, window=1e-6, **options)
    first = batcher.submit([0])
    assert gate.begun.wait(10)
    return batcher, first


def test_items_that_arrive_during_a_call_share_the_next(gate):
    batcher, first = held(gate)
    later = [batcher.submit([i]) for i in range(1, 9)]
    gate.open.set()
    assert first.result(10) == [0]
    assert [f.result(10) for f in later] == [[2 * i] for i in range(1, 9)]
    assert gate.sizes == [1, 8]


def test_a_call_has_no_more_than_a_batch_and_splits_no_request(gate):
    batcher, _ = held(gate, batch=4)
    sent = [[1, 1, 1], [2, 2], [3, 3], [4] * 6, [5]]
    later = [batcher.submit(items) for items in sent]
    gate.open.set()
    assert [f.result(10) for f in later] == [[2 * i for i in items] for items in sent]
    assert gate.sizes == [1, 3, 4, 6, 1]


def test_coroutines_of_one_loop_share_a_call():
    sizes = []

    def call(items):
        sizes.append(len(items))
        return items

    async def all_at_once(batcher):
        return await asyncio.gather(*(batcher.ask(i) for i in range(64)))

    # The window is longer than the test: only the full batch ends it.
    batcher = MicroBatcher(call, window=60, batch=64)
    assert asyncio.run(all_at_once(batcher)) == list(range(64)) and sizes == [64]
    # A second loop is served by the same.
    assert asyncio.run(all_at_once(batcher)) == list(range(64)) and sizes == [64, 64]


def test_threads_share_a_call():
    sizes, results = [], {}

    def call(items):
        sizes.append(len(items))
        return [i * i for i in items]

    batcher = MicroBatcher(call, window=60, batch=16)
    threads = [
        threading.Thread(target=lambda i=i: results.update({i: batcher(i)})) for i in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert results == {i: i * i for i in range(16)} and sizes == [16]


def test_a_full_queue_refuses_until_it_has_room(gate):
    batcher, _ = held(gate, waiting=3)
    second = batcher.submit([1, 1])
    assert batcher.queued == 2
    with pytest.raises(BusyError, match=r"2 responses wait .* 2 more would exceed the limit of 3"):
        batcher.submit([2, 2])
    gate.open.set()
    assert second.result(10) == [2, 2]
    assert batcher.submit([3] * 5).result(10) == [6] * 5  # nobody waits: taken, whatever its size


@pytest.mark.parametrize("bad", [{13}, {0}, {19}, {3, 4}, set(range(20))])
def test_an_error_goes_to_the_requests_that_fail_alone(bad):
    def call(items):
        if failing := bad.intersection(items):
            raise ZeroDivisionError(str(min(failing)))
        return items

    batcher = MicroBatcher(call, window=60, batch=40)
    sent = [batcher.submit([i, i]) for i in range(20)]
    for i, future in enumerate(sent):
        if i in bad:
            with pytest.raises(ZeroDivisionError, match=f"^{i}$"):
                future.result(10)
        else:
            assert future.result(10) == [i, i]


@pytest.mark.parametrize("error", [UnreachableError("down"), SystemExit(0)])
def test_a_server_that_is_down_is_not_asked_for_each_request(error):
    sizes = []

    def call(items):
        sizes.append(len(items))
        raise error

    batcher = MicroBatcher(call, window=60, batch=8)
    for future in [batcher.submit([i]) for i in range(8)]:
        with pytest.raises(type(error)):
            future.result(10)
    assert sizes == [8]


def test_cancelled_requests_are_not_scored(gate):
    batcher, _ = held(gate)
    gone, stays = batcher.submit([1, 1]), batcher.submit([2])
    assert gone.cancel()
    gate.open.set()
    assert stays.result(10) == [4] and gate.sizes == [1, 1]


def test_results_that_are_too_few_are_an_error():
    batcher = MicroBatcher(lambda items: [1], window=60, batch=2)
    with pytest.raises(ValueError, match="1 results for 2 items"):
        batcher.submit([1, 2]).result(10)


def test_closing_answers_the_queue_and_refuses_more(gate):
    batcher, _ = held(gate)
    last = batcher.submit([1])
    gate.open.set()
    batcher.close()
    assert last.result(0) == [2]
    with pytest.raises(BusyError, match="closed"):
        batcher.submit([1])
    assert MicroBatcher(gate).close() is None


@pytest.mark.parametrize("wrong", [{"window": 0}, {"batch": 0}, {"waiting": 0}])
def test_wrong_options_are_named(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be"):
        MicroBatcher(list, **wrong)
