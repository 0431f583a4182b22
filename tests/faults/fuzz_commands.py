"""Command lines with odd options and values, for every command."""

import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cli.walked import commands

from .fuzz_configurations import only_begin
from .odd_values import NUMBERS, text
from .outcomes import Verdict, judge
from .processes import infalign
from .world import World

FITTING = (
    *("model", "other", "config.yaml", "prompts.jsonl", "run-report", "run-report/calibration"),
    *("best-of-n:2", "sampling", "python:rewards:early", "mine=other", "late=python:rewards:late"),
    *("python:rewards:judge", "trl", "json", "table", "exported", "new", "ab", "1", "2", "train"),
)
"""Values that some option takes; `run-report` and `exported` are folders of the world."""


def command_line(world: World, rng: random.Random) -> Callable[[Path], Verdict]:
    """A command with some of its options, and values that mostly do not fit."""
    known = commands()
    name = rng.choice(sorted(known))
    words = name.split()
    for parameter in known[name].params:
        wanted = 0.9 if parameter.required else 0.2
        if parameter.name == "help" or rng.random() > wanted:
            continue
        flag = parameter.param_type_name == "option"
        for _ in range(rng.choice((1, 1, 1, 2))):
            words += [max(parameter.opts, key=len)] if flag else []
            if not getattr(parameter, "is_flag", False):
                words += [argument(rng)]
    if rng.random() < 0.1:
        words.insert(rng.randrange(len(words) + 1), argument(rng))
    if rng.random() < 0.05:
        rng.shuffle(words)
    return partial(_try, world, [w.replace("\0", "") for w in words])


def argument(rng: random.Random) -> str:
    """A value on the command line."""
    kind = rng.randrange(10)
    if kind < 5:
        return rng.choice(FITTING)
    return str(rng.choice(NUMBERS)) if kind < 7 else text(rng)


def _try(world: World, words: list[str], scratch: Path) -> Verdict:
    for name in ("model", "other", "run-report", "exported"):
        shutil.copytree(world.folder / name, scratch / name)
    for name in ("config.yaml", "prompts.jsonl", "rewards.py"):
        shutil.copy(world.folder / name, scratch)
    return judge(infalign(*words, setup=world.setup(folder=scratch, before=_end_soon)))


def _end_soon() -> None:
    """Nothing is served or drawn at length: an odd number may well be large."""
    from infalign import explorer
    from infalign.frameworks import serving
    from infalign.models import samplers

    only_begin()
    serving.serve = lambda app, host, port, announce: announce(f"http://{host}:{port}")
    explorer.serve = lambda *arguments, **options: None
    samplers.load_sampler = _quick(samplers.load_sampler)


LONGEST, MOST = 8, 64
"""Tokens of a response, and responses to a prompt, that are drawn; more ends the command."""


def _quick(load: Callable) -> Callable:
    class Quick:
        """A sampler that draws little."""

        def __init__(self, sampler):
            self._sampler = sampler

        def __getattr__(self, name):
            return getattr(self._sampler, name)

        def sample(self, conversations, n, **options):
            if n > MOST:
                raise SystemExit(0)
            return self._sampler.sample(conversations, n, **options)

    def quick(model, *, max_new_tokens=LONGEST, **options):
        return Quick(load(model, max_new_tokens=min(max_new_tokens, LONGEST), **options))

    return quick
