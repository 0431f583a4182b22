"""Reward functions that return odd things."""

import asyncio
import inspect
import json
import math
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from .outcomes import Verdict, judge
from .processes import infalign
from .world import World

SCALARS = (
    *("1.5", "0", "-2", "True", "None", "float('nan')", "float('inf')", "-math.inf", "10**400"),
    *("1e308 * 10", "'1'", "''", "'x'", "b'1'", "1 + 2j", "Fraction(1, 3)", "Decimal('0.1')"),
    *("Decimal('nan')", "np.float32(0.5)", "np.float64('nan')", "np.int8(3)", "np.bool_(True)"),
    *("np.array(2.0)", "np.array([2.0])", "np.array([])", "torch.tensor(1.5)", "[1.0]", "(1.0,)"),
    *(
        "torch.tensor([1.5])",
        "torch.tensor(float('nan'))",
        "{'score': 1.0}",
        "{}",
        "[]",
        "object()",
    ),
    *("lambda: 1.0", "float", "Ellipsis", "range(3)", "np.datetime64('2020-01-01')", "slice(1)"),
    *("torch.tensor(1.0, requires_grad=True)", "torch.tensor(1.0, dtype=torch.bfloat16)"),
    *("np.ma.masked", "np.float16(1.5)", "np.longdouble(1)", "-0.0", "5e-324", "bytearray(b'1')"),
    *("type('F', (float,), {})(2.5)", "type('X', (), {'__float__': lambda s: 1 / 0})()"),
)
WHOLES = (
    *("{list}", "{list}", "tuple({list})", "np.array({list})", "np.array({list}, object)"),
    *("torch.tensor({list})", "[{list}]", "{list}[:-1]", "{list} + {list}", "iter({list})"),
    *("(x for x in {list})", "set(map(str, {list}))", "dict(enumerate({list}))", "str({list})"),
    *("{list}[0]", "None", "np.array([{list}])", "np.array({list})[:, None]", "[]", "{{}}"),
    *("pandas.Series({list})", "pandas.DataFrame({{'a': {list}}})", "{{'rewards': {list}}}"),
    *("raise_(ValueError('no'))", "raise_(KeyError('k'))", "raise_(SystemExit(0))", "exit_(0)"),
    *("raise_(StopIteration)", "raise_(MemoryError)", "deep_(0)"),
    *("raise_(type('E', (BaseException,), {{}})('own'))", "b'\\xff'.decode()"),
    *("async_({list})", "raise_(OSError(28, 'No space left on device'))", "raise_(Exception())"),
    *("print('noise') or {list}", "sys.exit(0)", "sys.exit('bye')", "raise_(GeneratorExit)"),
    *("np.array({list}).astype('U9')", "np.array({list}).astype('datetime64[s]')"),
    *("completions.clear() or {list}", "columns.clear() or {list}", "asyncio.sleep(0, {list})"),
)  # fmt: skip

MODULE = """\
import asyncio, math, sys
from decimal import Decimal
from fractions import Fraction
import numpy as np, pandas, torch

def raise_(error):
    raise error

def exit_(code):
    sys.exit(code)

def deep_(n):
    return deep_(n + 1)

async def async_(x):
    return x

def reward(*, completions, **columns):
    n = len(completions)
    return {whole}
"""


def reward_return(world: World, rng: random.Random) -> Callable[[Path], Verdict]:
    """A reward that returns one odd thing, in an odd container or in a list."""
    scalar = rng.choice(SCALARS)
    mixed = rng.choice(("({0},) * n", "[1.0] * (n - 1) + [{0}]", "[{0}] + [2.5] * (n - 1)"))
    numbers = f"list({mixed.format(scalar)})"
    whole = rng.choice(WHOLES).format(list=numbers)
    command = rng.choice(("sample", "sample", "calibrate", "red-team"))
    return partial(_try, world, MODULE.replace("{whole}", whole), command)


def _try(world: World, module: str, command: str, scratch: Path) -> Verdict:
    (scratch / "odd_reward.py").write_text(module)
    spec = "python:odd_reward:reward"
    few = ("--max-new-tokens", "2")
    words = {
        "sample": (
            *("sample", "--model", "model", "--reward", spec, "--procedure", "best-of-n:3"),
            *("--json", "--all", *few, "ab", "ch"),
        ),
        "calibrate": (
            *("calibrate", "config.yaml", f"reward={spec}", "prompts.limit=2"),
            *("train.batch_size=4", "--out", scratch / "run"),
        ),
        "red-team": (
            *("red-team", "--model", "model", "--reward", spec, "--threshold", "0", *few),
            *("--prompts", "prompts.jsonl", "--limit", "2", "--attempts", "2"),
            *("--augment", "none", "--out", scratch / "red"),
        ),
    }[command]

    def importable() -> None:
        import sys

        sys.path.insert(0, str(scratch))

    ended = infalign(*words, setup=world.setup(before=importable))

    def same() -> bool:
        return command != "sample" or scores_as_returned(module, ended.stdout)

    return judge(ended, same, names=("reward", "odd_reward"))


async def _awaited(value):
    return await value


def scores_as_returned(module: str, printed: str) -> bool:
    """Whether every reward of the output is one that the function returns."""
    lines = [own for own in printed.splitlines() if own.startswith("{")]
    if len(lines) != 2:
        return False
    names: dict = {}
    exec(module, names)
    returned = names["reward"](completions=["a"] * 6)
    if inspect.isawaitable(returned):
        returned = asyncio.run(_awaited(returned))
    if hasattr(returned, "detach"):
        returned = returned.detach().double().numpy()
    given = {float(np.ravel(getattr(x, "detach", lambda x=x: x)())[0]) for x in returned}
    shown = {c["reward"] for own in lines for c in json.loads(own)["candidates"]}
    return shown <= given and all(math.isfinite(x) for x in shown)
