"""Servers that are slow, huge or lying, as reward, policy and judge."""

import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from . import behaviors, loopback
from .outcomes import Case, Outcome, Verdict, Wanted, judge
from .processes import Ended, infalign
from .world import EVALUATE, World

SECONDS, RETRIES = 2.0, 1
"""Time limit and retries of the package's clients in this campaign."""

LIMIT = 30
"""Seconds, beside those of the client, after which a command hangs."""

MEMORY = behaviors.BOMB
"""Megabytes that a command may take beyond those of the loaded libraries."""

SAMPLE = ("sample", "--json", "--all", "--max-new-tokens", "4", "ab", "ch", "df")
ROLES = {
    "reward": (behaviors.REWARDS, ("--model", "model", "--procedure", "best-of-n:3", "--reward")),
    "policy": (
        behaviors.CHATS,
        ("--procedure", "best-of-n:2", "--reward", "python:rewards:early", "--model"),
    ),
}


def cases(world: World, rng: random.Random, wanted: Wanted) -> Iterator[Case]:
    """Every role × behavior."""
    for role, (own, words) in ROLES.items():
        for behavior in (*behaviors.OK, *behaviors.HTTP, *own):
            try_ = partial(_sample, world, role, behavior, (*SAMPLE, *words))
            yield Case(f"servers as {role}", f"{role} {behavior}", try_)
    for behavior in (*behaviors.OK, *behaviors.HTTP, *behaviors.CHATS):
        yield Case("servers as judge", f"judge {behavior}", partial(_judge, world, behavior))


def impatient() -> None:
    """Clients give up soon."""
    from infalign.models import model_server, reward_server

    for kind in (model_server.ServerModel, reward_server.ServerReward):
        kind.__init__.__kwdefaults__ |= {"timeout": SECONDS, "retries": RETRIES}


def url(behavior: str, role: str) -> str:
    """The address of a server that behaves like this."""
    base = f"http://127.0.0.1:{loopback.port()}/{behavior}"
    return base if role == "reward" else f"{base}/v1#m"


def _setup(world: World):
    return world.setup(before=impatient, seconds=LIMIT + 10 * SECONDS)


def _names(behavior: str) -> tuple[str, ...]:
    return (f"127.0.0.1:{loopback.port()}/{behavior}",)


def _sample(
    world: World, role: str, behavior: str, words: tuple[str, ...], scratch: Path
) -> Verdict:
    ended = infalign(*words, url(behavior, role), setup=_setup(world))

    def honest() -> bool:
        candidates = [c for own in ended.stdout.splitlines() for c in json.loads(own)["candidates"]]
        if role == "reward":
            return {c["reward"] for c in candidates} == {1.5}
        return all(c["text"].startswith("answer ") for c in candidates)

    same = partial(_read, behavior, role, honest)
    return _lean(ended, judge(ended, same, _names(behavior)))


def _read(behavior: str, role: str, honest: Callable[[], bool]) -> bool:
    return behavior in _may_be_read(role) and honest()


def _lean(ended: Ended, verdict: Verdict) -> Verdict:
    """The verdict, unless the command took the memory that a huge answer asks for."""
    plain = infalign("--version").megabytes
    if ended.megabytes < plain + MEMORY:
        return verdict
    return Verdict(Outcome.hang, f"{ended.megabytes:.0f} MB of memory: {verdict.words}")


def _may_be_read(role: str) -> tuple[str, ...]:
    """Behaviors with good answers. Of too many choices those that were asked for are good."""
    more = () if role == "reward" else ("more-choices",)
    return (*behaviors.OK, *more)


def _judge(world: World, behavior: str, scratch: Path) -> Verdict:
    at = EVALUATE.index("--judge") + 1
    words = (*EVALUATE[:at], url(behavior, "judge"), *EVALUATE[at + 1 :])
    words = (*words, "--format", "json", "--out", scratch / "out")
    ended = infalign(*words, setup=_setup(world))

    def honest() -> bool:
        policies = json.loads(ended.stdout)["policies"]
        # Who always prefers the first response finds both equally good.
        good = behavior in _may_be_read("judge")
        return good and all(p["judge"]["win_rate"]["value"] == 0.5 for p in policies)

    return _lean(ended, judge(ended, honest, ("judge", *_names(behavior))))
