"""What became of a fault: the outcomes that are allowed, and those that are defects."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from .processes import FAILED, Ended


class Outcome(StrEnum):
    """How a command dealt with a fault."""

    named = "named"
    """It ended with exit code 1 or 2 and one message, which names what is wrong."""

    survived = "survived"
    """It ended as it does without the fault, with the same results."""

    silent = "silent"
    """It ended with exit code 0 and other results."""

    unclear = "unclear"
    """It ended with a message that does not name what is wrong, or with several messages."""

    traceback = "traceback"
    """It ended with a traceback, with an error that the package did not foresee, or by a signal."""

    hang = "hang"
    """It did not end."""


ALLOWED = (Outcome.named, Outcome.survived)
DEFECTS = tuple(outcome for outcome in Outcome if outcome not in ALLOWED)


@dataclass(frozen=True)
class Verdict:
    """The outcome of a case, and the words of the command that show it."""

    outcome: Outcome
    words: str = ""


@dataclass(frozen=True)
class Case:
    """One fault."""

    kind: str
    """The row of the page that it counts in."""

    name: str
    """Unique in its part, and the same in every campaign of the same seed."""

    try_: Callable[[Path], Verdict]
    """Makes the fault in an empty folder, runs the command, judges."""


Wanted = Callable[[str], bool]
"""Whether a kind of fault is part of the campaign."""

UNFORESEEN = (
    "Traceback (most recent call last)",
    "--debug shows where",
    "Exception ignored",
    "Exception in thread",
)
FAILURES = (1, 2)
SHOWN = 600
"""Number of characters of a message that a verdict quotes."""


def judge(
    ended: Ended,
    same: Callable[[], bool] = lambda: True,
    names: Collection[str] = (),
    codes: Collection[int] = FAILURES,
) -> Verdict:
    """The verdict on a command.

    - `same`: whether its results are those without the fault; asked after exit code 0.
    - `names`: texts of which the message must contain one. Default: any message will do.
    - `codes`: exit codes of a failure that is allowed.
    """
    assert ended.code != FAILED, f"the campaign itself failed: {ended.stderr}"
    words = _last(ended.stderr)
    if ended.hung:
        return Verdict(Outcome.hang, words)
    if any(sign in ended.stderr for sign in UNFORESEEN) or ended.code not in (0, *codes):
        return Verdict(Outcome.traceback, f"exit {ended.code}: {words}")
    if ended.code == 0:
        return Verdict(Outcome.survived if same() else Outcome.silent, words)
    messages = len(re.findall(r"^infalign: ", ended.stderr, re.M))
    plain = re.sub(r"\s*│?\n│?\s*", " ", ended.stderr)  # undoes the wrapping of usage errors
    unwrapped = re.sub(r"\s+", "", plain)
    named = not names or any(re.sub(r"\s+", "", name) in unwrapped for name in names)
    if not words or messages > 1 or not named:
        return Verdict(Outcome.unclear, f"exit {ended.code}: {words}")
    return Verdict(Outcome.named, words)


def _last(stderr: str) -> str:
    """The end of standard error, from its message on."""
    start = stderr.rfind("infalign: ")
    return stderr[max(start, 0) :].strip()[-SHOWN:]
