"""Runs that are killed at random moments in every stage, and continued.

Afterwards the folder must equal that of an uninterrupted run, byte by byte.
"""

import json
import random
import re
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from .outcomes import Case, Outcome, Verdict, Wanted, judge
from .processes import Ended, Process
from .world import World

WHOLE = ("run", "config.yaml", "--out")


@dataclass(frozen=True)
class Stage:
    """A part of a run, in which a kill can fall."""

    name: str
    before: str | None
    """The last stage that is finished in the folder to begin with; None: an empty folder."""

    after: str | None
    """The file with which the part begins, in seconds counted from there."""

    until: str
    """The file with which it ends."""


WARM, ON_POLICY = "train/rloo/warm_start/done.json", "train/rloo/on_policy/done.json"
STAGES = (
    Stage("calibrate", None, None, "config.yaml"),
    Stage("calibrate", None, "config.yaml", "design.json"),
    Stage("design", "calibrate", None, "design.json"),
    Stage("warm start", "design", None, WARM),
    Stage("on policy", "design", WARM, ON_POLICY),
    Stage("landing", "design", ON_POLICY, "train/rloo/landing.json"),
    Stage("evaluate", "train", None, "evaluation/identity.parquet"),
    Stage("judge", "train", "evaluation/identity.parquet", "evaluation/judge-identity.parquet"),
    Stage("results", "train", "evaluation/judge-identity.parquet", "evaluation/results.json"),
    Stage("report", "evaluate", None, "report.html"),
)  # fmt: skip
RUNS = 100
POLITE = 4
"""One in so many runs is ended with SIGTERM or SIGINT instead of SIGKILL."""

AGAIN = 0.3
"""Chance that the continuation is killed too."""

IGNORED = (".lock", "README.md", "costs.jsonl")
TIMES = ("step_time", "_runtime", "_per_second")
"""Endings of the names of the metrics that are measured by the clock."""


def cases(world: World, rng: random.Random, wanted: Wanted) -> Iterator[Case]:
    """Kills in the stages, in turn."""
    world.stage("report")
    for number in range(RUNS):
        stage = STAGES[number % len(STAGES)]
        polite = number // len(STAGES) % POLITE == POLITE - 1
        sent = rng.choice((signal.SIGTERM, signal.SIGINT)) if polite else signal.SIGKILL
        try_ = partial(_try, world, stage, sent, rng.getrandbits(32))
        kind = "runs killed" if sent == signal.SIGKILL else "runs interrupted"
        yield Case(f"{kind}: {stage.name}", f"{number}: {sent.name} in {stage.name}", try_)


def _try(world: World, stage: Stage, sent: int, seed: int, scratch: Path) -> Verdict:
    rng, folder = random.Random(seed), scratch / "run"
    if stage.before:
        shutil.copytree(world.folder / f"run-{stage.before}", folder)
    seconds = _duration(world, stage)
    ended = _interrupted(world, folder, stage.after, rng.random() * seconds, sent)
    if sent != signal.SIGKILL and ended.code != 0:
        verdict = judge(ended, names=("interrupted", "terminated"), codes=(128 + sent,))
        if verdict.outcome != Outcome.named:
            return verdict
    if rng.random() < AGAIN:
        _interrupted(world, folder, None, rng.random() * seconds, signal.SIGKILL)
    ended = world.run(*WHOLE, folder)
    verdict = judge(ended)
    if verdict.outcome != Outcome.survived:
        return Verdict(max(verdict.outcome, Outcome.unclear), verdict.words)
    different = differences(folder, world.folder / "run-report")
    if different:
        return Verdict(Outcome.silent, f"different: {', '.join(different)}")
    return Verdict(Outcome.survived)


def _interrupted(world: World, folder: Path, after: str | None, seconds: float, sent: int) -> Ended:
    """The run, signaled so long after the file `after` appeared, unless it ended before."""
    process = Process([*map(str, WHOLE), str(folder)], world.setup())
    _wait_for(process, after and folder / after)
    if process.running_after(seconds):
        process.signal(sent)
    return process.end()


def _wait_for(process: Process, path: Path | None) -> None:
    while path is not None and not path.exists() and process.running_after(0.002):
        pass


@cache
def _duration(world: World, stage: Stage) -> float:
    """Seconds that the stage takes in an uninterrupted run, at the machine's present load."""
    folder = world.folder / f"timed-{stage.name}-{time.monotonic_ns()}"
    if stage.before:
        shutil.copytree(world.folder / f"run-{stage.before}", folder)
    process = Process([*map(str, WHOLE), str(folder)], world.setup())
    _wait_for(process, stage.after and folder / stage.after)
    began = time.monotonic()
    _wait_for(process, folder / stage.until)
    seconds = time.monotonic() - began
    process.signal(signal.SIGKILL)
    process.end()
    shutil.rmtree(folder)
    return seconds


def differences(folder: Path, whole: Path) -> list[str]:
    """The files in which two run folders differ: missing, left over, or with other content."""
    own, expected = contents(folder), contents(whole)
    return [name for name in sorted(own | expected) if own.get(name) != expected.get(name)]


def contents(folder: Path) -> dict[str, object]:
    """Every file by name; of metrics, all values but those that the clock gives; of manifests, all
    but the folder's own place. Left out are locks, which name the process that took them, and TRL's
    READMEs, whose tags are in the order of a Python set."""
    read = {"metrics.jsonl": _metrics, "manifest.json": _manifest}
    files = (p for p in folder.rglob("*") if p.is_file() and p.name not in IGNORED)
    return {str(p.relative_to(folder)): read.get(p.name, Path.read_bytes)(p) for p in files}


def _manifest(path: Path) -> dict:
    """Without the place of trained policies, and without the checksum that includes it."""
    text = re.sub(r'"/[^"]*/(train/[^"]*)"', r'"\1"', path.read_text())
    return {k: v for k, v in json.loads(text).items() if k != "sha256"}


def _metrics(path: Path) -> list[dict]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.endswith(TIMES)} for row in rows]
