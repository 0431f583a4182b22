"""Odd inputs: configurations, command lines, prompts files, and what reward functions return.

Every case runs a command to its end, in a process of its own. There must be no traceback and no
hang, and the exit code must be 0, 1 or 2. An input that is accepted must be read as it is written.
"""

import random
from collections.abc import Iterator

from . import folders
from .fuzz_commands import command_line
from .fuzz_configurations import configuration
from .fuzz_prompts import prompts_file
from .fuzz_rewards import reward_return
from .outcomes import Case, Wanted
from .world import World

SIZES = {
    "configurations": (configuration, 1500),
    "command lines": (command_line, 1500),
    "prompts files": (prompts_file, 1000),
    "reward returns": (reward_return, 1000),
}
"""What is fuzzed: how one case is made, and how many there are."""


def cases(world: World, rng: random.Random, wanted: Wanted) -> Iterator[Case]:
    """5,000 cases, each from a seed of its own."""
    seed = rng.getrandbits(32)
    for kind, (make, size) in SIZES.items():
        if not wanted(f"fuzzed {kind}"):
            continue
        if kind == "command lines":
            folders.finished_run(world), folders.exported(world)  # they name these
        for number in range(size):
            own = random.Random(f"{seed} {kind} {number}")
            yield Case(f"fuzzed {kind}", f"{kind} {number}", make(world, own))
