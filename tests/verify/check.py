"""A family of random problems: what the package answers, and an independent judgment of it."""

import inspect
import signal
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import imported
import numpy as np

from infalign.errors import ArgumentError, InfalignError, SolveError

Errors = Mapping[str, float]
"""The error of each quantity."""


class Outcome(StrEnum):
    """What became of a problem."""

    confirmed = "confirmed"
    """An answer, with every error within its limit."""

    refused = "refused"
    """An error of the package whose reason was shown to be true."""

    unproven = "unproven"
    """An error of the package whose reason was not shown to be true."""

    open = "open"
    """An answer that the independent road cannot reach in double precision."""

    wrong = "wrong"
    """An answer with an error beyond its limit, or an error whose reason is false."""

    raw = "raw"
    """Any other error."""

    slow = "slow"
    """No answer within a minute of processor time."""


DEFECTS = (Outcome.wrong, Outcome.raw, Outcome.slow)

PATIENCE = 60.0
"""Seconds of processor time for an answer, and for its judgment."""


class OutOfReach(ArithmeticError):
    """The independent road ends before it has an answer."""


class OutOfTime(Exception):
    """An answer or its judgment took too long."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise OutOfTime after so much processor time, which busy cores do not shorten."""

    def end(*_: object) -> None:
        raise OutOfTime(f"more than {seconds:g} s of processor time")

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def unproven(problem: Any, error: InfalignError) -> bool | None:
    """The reason of a refusal is not examined."""
    return None


@dataclass(frozen=True)
class Family:
    """Problems of one kind."""

    name: str

    road: str
    """What is checked, and how without the package: for the page."""

    draw: Callable[[np.random.Generator], Any]
    """A random problem; its `repr` tells how to ask for it again."""

    answer: Callable[[Any], Any]
    """The package's answer."""

    judge: Callable[[Any, Any], Errors]
    """Its errors. May raise OutOfReach."""

    limits: Errors
    """The largest error of each quantity that is allowed; infinite for one that is reported
    only."""

    share: float = 1.0
    """Of the time of a campaign, relative to other families."""

    refusal: Callable[[Any, InfalignError], bool | None] = unproven
    """Whether the reason of a refusal is true; None if that cannot be decided."""

    runs: tuple[Path, ...] = ()
    """Files that it runs without an import."""

    @property
    def files(self) -> list[Path]:
        """The files that its verdicts depend on: what it imports, directly or through others."""
        return imported.reached(Path(inspect.getfile(self.draw)), *self.runs)

    def problem(self, seed: int, number: int) -> Any:
        """The problem of a number."""
        return self.draw(np.random.default_rng([seed, zlib.crc32(self.name.encode()), number]))

    def try_(self, seed: int, number: int) -> dict:
        """The verdict on a problem, as a row of the journal."""
        problem = self.problem(seed, number)
        began = time.process_time()
        outcome, errors, words = self.verdict(problem)
        return {
            "case": number,
            "outcome": outcome,
            "errors": errors,
            "words": f"{problem}: {words}",
            "seconds": round(time.process_time() - began, 3),
        }

    def verdict(self, problem: Any) -> tuple[Outcome, dict[str, float], str]:
        """Outcome, errors and words."""
        try:
            with limited(PATIENCE):
                answer = self.answer(problem)
        except OutOfTime as end:
            return Outcome.slow, {}, str(end)
        except (SolveError, ArgumentError) as error:
            return self._refused(problem, error), {}, f"{type(error).__name__}: {error}"
        except Exception as error:
            return Outcome.raw, {}, f"{type(error).__name__}: {error}"
        try:
            with limited(PATIENCE):
                judged = self.judge(problem, answer)
        except (OutOfReach, OutOfTime) as end:
            return Outcome.open, {}, str(end)
        except Exception as error:  # of the answer, which is judged as far as it can be read
            return Outcome.raw, {}, f"{type(error).__name__}: {error}"
        errors = {name: float(error) for name, error in judged.items()}
        beyond = [name for name, error in errors.items() if not error <= self.limits[name]]
        words = ", ".join(f"{name} {errors[name]:.2g}" for name in beyond or errors)
        return (Outcome.wrong if beyond else Outcome.confirmed), errors, words

    def _refused(self, problem: Any, error: InfalignError) -> Outcome:
        try:
            with limited(PATIENCE):
                true = self.refusal(problem, error)
        except (OutOfReach, OutOfTime):
            true = None
        return {True: Outcome.refused, False: Outcome.wrong, None: Outcome.unproven}[true]
