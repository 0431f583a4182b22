"""Two processes in one folder, the second after a random time.

Either one is refused by name, or both end well; in any case the folder holds what one gives.
"""

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .kills import differences
from .outcomes import Case, Outcome, Verdict, Wanted, judge
from .processes import Process
from .world import EVALUATE, RED_TEAM, World


@dataclass(frozen=True)
class Pair:
    """A command, the folder that it begins with, and the folder that it must lead to."""

    name: str
    words: tuple[str, ...]
    before: str | None
    after: str
    seconds: float
    """Longest time between the two processes."""


RUN = ("run", "config.yaml", "--until")
COMMANDS = (
    Pair("calibrate", (*RUN, "calibrate", "--out"), None, "run-calibrate", 0.6),
    Pair("train", (*RUN, "train", "--out"), "run-design", "run-train", 5),
    Pair("evaluate a run", (*RUN, "evaluate", "--out"), "run-train", "run-evaluate", 2),
    Pair("evaluate", (*EVALUATE, "--out"), None, "evaluation", 2),
    Pair("red-team", (*RED_TEAM, "--out"), None, "red-team", 2),
)
TRIES = 10


def cases(world: World, rng: random.Random, wanted: Wanted) -> Iterator[Case]:
    """Every command, at several times."""
    world.stage("evaluate")
    world.made("evaluation", *EVALUATE)
    world.made("red-team", *RED_TEAM)
    for pair in COMMANDS:
        for number in range(TRIES):
            # Half of them begin together, where most is written for the first time.
            delay = rng.random() * pair.seconds * (0.05 if number % 2 else 1)
            yield Case("two processes", f"{pair.name} {number}", partial(_try, world, pair, delay))


def _try(world: World, pair: Pair, delay: float, scratch: Path) -> Verdict:
    folder = scratch / "folder"
    if pair.before:
        shutil.copytree(world.folder / pair.before, folder)
    words = [*pair.words, str(folder)]
    first = Process(words, world.setup())
    first.running_after(delay)
    second = Process(words, world.setup())
    both = [first.end(), second.end()]
    verdicts = [judge(ended, names=(str(folder), "folder")) for ended in both]
    for verdict in verdicts:
        if verdict.outcome not in (Outcome.named, Outcome.survived):
            return verdict
    if all(ended.code for ended in both):
        return Verdict(Outcome.unclear, f"both failed: {verdicts[0].words} {verdicts[1].words}")
    if different := differences(folder, world.folder / pair.after):
        return Verdict(Outcome.silent, f"different: {', '.join(different)}")
    return next((v for v in verdicts if v.outcome == Outcome.named), verdicts[0])
