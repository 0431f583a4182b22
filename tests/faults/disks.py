"""Disks, descriptors, names and terminals that fail: every command that writes.

The command must name the path, or end as it does without the fault. The same command must then
finish the work where the fault is gone.
"""

import os
import random
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from infalign import storage

from .kills import contents, differences
from .outcomes import Case, Outcome, Verdict, Wanted, judge
from .processes import Process
from .world import EVALUATE, RED_TEAM, World

RUN = ("run", "config.yaml", "--until")


@dataclass(frozen=True)
class Writer:
    """A command that writes to a folder or file."""

    name: str
    words: tuple[str, ...]
    """Its arguments; the place to write to comes last."""

    before: str | None = None
    """Folder of the world that it continues."""

    file: str | None = None
    """Name of the file that it writes. Default: a folder."""


WRITERS = (
    Writer("calibrate", (*RUN, "calibrate", "--out")),
    Writer("train", (*RUN, "train", "--out"), "run-design"),
    Writer("evaluate a run", (*RUN, "evaluate", "--out"), "run-train"),
    Writer("report", (*RUN, "report", "--out"), "run-evaluate"),
    Writer("evaluate", (*EVALUATE, "--out")),
    Writer("red-team", (*RED_TEAM, "--out")),
    Writer("export-prompts", ("export-prompts", "run-design", "--for", "verl", "--out")),
    Writer("store export", ("store", "export", "run-design/calibration", "--out")),
    Writer("store import", ("store", "import", "exported", "--out")),
    Writer("explore", ("explore", "--out"), file="explorer.html"),
    Writer(
        "sample",
        (
            *("sample", "--model", "model", "--procedure", "sampling", "ab"),
            *("--max-new-tokens", "4", "--out"),
        ),
        file="answers.jsonl",
    ),
    Writer(
        "sample in parts",
        (
            *("sample", "--model", "model", "--reward", "python:rewards:early"),
            *("--procedure", "best-of-n:64", "--prompts", "prompts.jsonl", "--split", "train"),
            *("--max-new-tokens", "4", "--out"),
        ),
        file="answers.jsonl",
    ),
)
SAMPLE = ("sample", "--model", "model", "--procedure", "sampling", "--max-new-tokens", "4")
PRINTERS = (
    *(("evaluate", *EVALUATE[1:], "--format", form) for form in ("table", "json", "markdown")),
    ("report", "config.yaml"),
    (*RED_TEAM,),
    (*RED_TEAM, "--json"),
    (*SAMPLE, "ab"),
    (*SAMPLE, "--json", "é"),
    ("design", "--procedure", "best-of-n:4", "--kl", "1"),
    ("store", "show", "run-design/calibration"),
    ("store", "check", "run-design/calibration"),
    ("plan", "--procedure", "best-of-n:4"),
    ("export-prompts", "run-design", "--for", "trl"),
    ("--help",),
    ("run", "--help"),
    ("--version",),
)  # fmt: skip
RESULTS = {
    "calibrate": "run-calibrate",
    "evaluate a run": "run-evaluate",
    "train": "run-train",
    "report": "run-report",
    "evaluate": "evaluation",
    "red-team": "red-team",
}
"""Folder of the world with the results of a command."""

SIZES = 6
"""Number of sizes at which a disk, a file or the table of descriptors is full."""


def cases(world: World, rng: random.Random, wanted: Wanted) -> Iterator[Case]:
    """Every writer × fault, and every printer × terminal."""
    world.stage("report")
    world.made("evaluation", *EVALUATE)
    world.made("red-team", *RED_TEAM)
    world.made("exported", "store", "export", world.folder / "run-design/calibration")
    for writer in WRITERS:
        named = partial(_case, world, writer)
        largest = 700_000 if writer.name != "calibrate" else 40_000
        for i in range(SIZES):
            size = int(largest ** rng.random()) // 4096 * 4096
            yield named("full disks", f"{size} bytes {i}", partial(_full, size))
            size = 8192 + int(largest ** rng.random())  # standard error is a file too
            yield named("file-size limits", f"{size} bytes {i}", partial(_limited, size))
            yield named("no descriptors", f"{i}", partial(_few_descriptors, rng.randrange(1, 24)))
        yield named("read-only folders", "mounted read-only", _read_only)
        yield named("long names", "one name", partial(_placed, "x" * 300))
        yield named("long names", "many names", partial(_placed, "/".join(["y" * 200] * 30)))
        yield named("long names", "nearly too long", partial(_placed, "z" * 250))
        yield named("files for folders", "above", _file_above)
        yield named("files for folders", "itself", _file_itself)
        for name in _written(world, writer):
            yield named("folders for files", name, partial(_folder_instead, name))
    for words in PRINTERS:
        shown = " ".join(words)[:60]
        for terminal in ("/dev/full", "closed", "ASCII", "Latin-1"):
            case = f"{shown} to {terminal} #{PRINTERS.index(words)}"
            yield Case(f"output: {terminal}", case, partial(_print_to, world, words, terminal))


def _case(world: World, writer: Writer, kind: str, name: str, fault: Callable) -> Case:
    return Case(kind, f"{kind}: {writer.name}, {name}", partial(fault, world, writer))


def _written(world: World, writer: Writer) -> list[str]:
    """Files that the command adds to its folder."""
    if writer.name not in RESULTS:
        return [writer.file] if writer.file else []
    before = contents(world.folder / writer.before) if writer.before else {}
    return sorted(contents(world.folder / RESULTS[writer.name]).keys() - before.keys())


def _begun(world: World, writer: Writer, folder: Path) -> Path:
    """What the command writes to, with what it continues."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / (writer.file or "out")
    if writer.before:
        shutil.copytree(world.folder / writer.before, place)
    return place


def _checked(world: World, writer: Writer, place: Path, scratch: Path, **changes) -> Verdict:
    """The verdict on the command, and on the same command without the fault."""
    ended = world.run(*writer.words, place, **changes)
    verdict = judge(ended, names=(str(place), place.name, "descriptor", "open files", "name"))
    if verdict.outcome not in (Outcome.named, Outcome.survived):
        return verdict
    roomy = scratch / "roomy" / (writer.file or "out")
    roomy.parent.mkdir()
    if place.is_dir():
        shutil.copytree(place, roomy, symlinks=True)
    elif (parts := storage.parts_of(place)).is_dir():
        shutil.copytree(parts, storage.parts_of(roomy), symlinks=True)
    return verdict if ended.code == 0 else _finished(world, writer, roomy, scratch) or verdict


def _finished(world: World, writer: Writer, place: Path, scratch: Path) -> Verdict | None:
    """None if the command, continued there, ends with the results of an uninterrupted one."""
    if writer.name == "store export" and place.exists() and not any(place.iterdir()):
        place.rmdir()
    ended = world.run(*writer.words, place)
    if ended.code:
        return Verdict(Outcome.unclear, f"continued without the fault: {judge(ended).words}")
    whole = _begun(world, writer, scratch / "whole")
    assert world.run(*writer.words, whole).code == 0
    if place.is_dir():
        different = differences(place, whole)
    else:
        different = [] if place.read_bytes() == whole.read_bytes() else [place.name]
    return Verdict(Outcome.silent, f"different: {different}") if different else None


@contextmanager
def _disk(folder: Path, size: int) -> Iterator[None]:
    """A disk of this size in memory."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def mounts() -> bool:
    """Whether this process may mount disks."""
    return os.geteuid() == 0 and shutil.which("mount") is not None


def _full(size: int, world: World, writer: Writer, scratch: Path) -> Verdict:
    if not mounts():
        return Verdict(Outcome.survived, "not tried: needs root")
    begun = _begun(world, writer, scratch / "begun")
    used = sum(-(-p.stat().st_size // 4096) * 4096 + 4096 for p in begun.rglob("*"))
    with _disk(scratch / "disk", used + size + 16384):
        place = scratch / "disk" / begun.name
        if begun.is_dir():
            shutil.copytree(begun, place)
        return _checked(world, writer, place, scratch)


def _limited(size: int, world: World, writer: Writer, scratch: Path) -> Verdict:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return _checked(world, writer, _begun(world, writer, scratch / "f"), scratch, before=limit)


def _few_descriptors(more: int, world: World, writer: Writer, scratch: Path) -> Verdict:
    def limit() -> None:
        most = max(map(int, os.listdir("/proc/self/fd"))) + more
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    return _checked(world, writer, _begun(world, writer, scratch / "f"), scratch, before=limit)


def _read_only(world: World, writer: Writer, scratch: Path) -> Verdict:
    if not mounts():
        return Verdict(Outcome.survived, "not tried: needs root")
    with _disk(scratch / "disk", 2**26):
        place = _begun(world, writer, scratch / "disk" / "f")
        subprocess.run(["mount", "-o", "remount,ro", scratch / "disk"], check=True)
        return _checked(world, writer, place, scratch)


def _placed(name: str, world: World, writer: Writer, scratch: Path) -> Verdict:
    ended = world.run(*writer.words, scratch / name / (writer.file or ""))
    return judge(ended, names=(name[:20], "name"))


def _file_above(world: World, writer: Writer, scratch: Path) -> Verdict:
    (scratch / "file").write_text("mine")
    return _file(world, writer, scratch, scratch / "file" / "below" / (writer.file or "out"))


def _file_itself(world: World, writer: Writer, scratch: Path) -> Verdict:
    (scratch / "file").write_text("mine")
    return _file(world, writer, scratch, scratch / "file")


def _file(world: World, writer: Writer, scratch: Path, place: Path) -> Verdict:
    ended = world.run(*writer.words, place)
    mine = (scratch / "file").read_text()
    return judge(ended, lambda: bool(writer.file) or mine == "mine", names=("file",))


def _folder_instead(name: str, world: World, writer: Writer, scratch: Path) -> Verdict:
    place = _begun(world, writer, scratch / "f")
    taken = place if writer.file else place / name
    taken.mkdir(parents=True)
    (taken / "mine").write_text("mine")
    ended = world.run(*writer.words, place)

    def same() -> bool:
        if writer.name not in RESULTS:
            return False  # a folder is there now, and no file
        different = differences(place, world.folder / RESULTS[writer.name])
        return all(d.startswith(name) for d in different)

    return judge(ended, same, names=(name, Path(name).name, place.name))


def _print_to(world: World, words: tuple[str, ...], terminal: str, scratch: Path) -> Verdict:
    if words[0] in ("evaluate", "red-team", "report", "export-prompts"):
        finished = {"evaluate": "evaluation", "red-team": "red-team", "report": "run-report"}
        if words[0] in finished:
            shutil.copytree(world.folder / finished[words[0]], scratch / "out")
        words = (*words, "--out", str(scratch / "out"))

    def encoded() -> None:
        import sys

        sys.stdout.reconfigure(encoding=terminal, errors="strict")
        sys.stderr.reconfigure(encoding=terminal, errors="backslashreplace")

    if terminal in ("ASCII", "Latin-1"):
        return judge(Process([*map(str, words)], world.setup(before=encoded)).end())
    ended = Process([*map(str, words)], world.setup(stdout=terminal)).end()
    # Where nothing can be printed, exit code 0 would say that it was.
    return judge(ended, lambda: terminal == "closed", names=("standard output", "stdout"))
