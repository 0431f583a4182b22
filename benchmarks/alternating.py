"""Times of programs that do the same, which take turns, so that other load affects all of them."""

import time
from collections.abc import Callable, Mapping


def alternating(
    programs: Mapping[str, Callable[[int], object]], repetitions: int
) -> dict[str, list[float]]:
    """Seconds of every repetition of each program, by its name.

    The order reverses from one repetition to the next. Before the first, each program runs once to
    warm up.

    - `programs`: each is called with the seed of its repetition.
    """
    times: dict[str, list[float]] = {name: [] for name in programs}
    for repetition in range(-1, repetitions):
        for name in list(programs)[:: 1 if repetition % 2 else -1]:
            start = time.perf_counter()
            programs[name](repetition + 1)
            if repetition >= 0:
                times[name].append(time.perf_counter() - start)
    return times
