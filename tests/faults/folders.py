"""Folders that commands make, finished or interrupted, and the commands that read them."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from runs import kill_at_file_operation

from .processes import Ended, infalign
from .world import EVALUATE, RED_TEAM, World

RUN = ("evaluate", "config.yaml", "--format", "json", "--out")
"""Continues a run up to its evaluation, and prints the results."""


@dataclass(frozen=True)
class Reader:
    """A command that reads a folder."""

    name: str
    words: tuple[str, ...]
    """Its arguments; FOLDER stands for the folder and OUT for a new one."""

    reads: Callable[[str], bool] = lambda name: True
    """Whether it may read the file of this name, so that damage to it is worth trying."""

    before: Callable[[], None] | None = None
    compared: tuple[str, ...] = ()
    """Patterns of files whose content is part of the result, besides standard output."""

    def run(self, world: World, folder: Path, scratch: Path) -> Ended:
        """The command on this folder."""
        places = {"FOLDER": str(folder), "OUT": str(scratch / "out")}
        words = [_filled(word, places) for word in self.words]
        return infalign(*words, setup=world.setup(before=self.before))

    def result(self, ended: Ended, folder: Path, scratch: Path) -> dict[str, object]:
        """What must be the same: standard output, and the files it is about."""
        shown = ended.stdout.replace(str(folder), "FOLDER").replace(str(scratch), "SCRATCH")
        result: dict[str, object] = {"standard output": shown}
        for base, at in (("FOLDER", folder), ("OUT", scratch / "out")):
            for pattern in self.compared:
                for path in sorted(at.glob(pattern)):
                    if path.is_file():
                        result[f"{base}/{path.relative_to(at)}"] = path.read_bytes()
        return result


def _filled(word: str, places: dict[str, str]) -> str:
    for name, place in places.items():
        word = word.replace(name, place)
    return word


def _score_some() -> None:
    """Replace serving by scoring two responses, so that `serve-reward` ends."""
    from infalign.frameworks import serving

    def score(app, host, port, announce):
        import json

        from starlette.testclient import TestClient

        labels = [f"p{i}" for i in range(12) for _ in "ab"]
        body = {"labels": labels, "responses": [f"{x}c" for _ in range(12) for x in "ab"]}
        with TestClient(app, base_url="http://127.0.0.1") as client:
            answer = client.post("/", json=body)
        if answer.status_code != 200:
            from infalign.errors import DataError

            raise DataError(f"status {answer.status_code}: {answer.text}")
        print(json.dumps(answer.json()))

    serving.serve = score


def _of(*beginnings: str) -> Callable[[str], bool]:
    return lambda name: name.startswith(beginnings)


TRAINED = _of("train/", "manifest.json", "design.json")
CONTINUE = Reader("run", (*RUN, "FOLDER"), compared=("evaluation/*.parquet", "train/*/model/*"))
DESIGN = Reader(
    "run",
    ("run", "config.yaml", "--until", "design", "--out", "FOLDER"),
    compared=("design.json",),
)
REPORT = Reader(
    "report",
    ("report", "config.yaml", "--out", "FOLDER"),
    _of("evaluation/", "report", "plots/", "train/rloo/on_policy/metrics", "config", "design"),
    compared=("evaluation/results.json", "report.html"),
)
OPENING = _of("config.yaml", "design.json", "calibration/", "provenance.json", "manifest.json")
EXPORT = Reader(
    "export-prompts", ("export-prompts", "FOLDER", "--for", "openrlhf", "--out", "OUT"), OPENING
)
SERVE = Reader("serve-reward", ("serve-reward", "FOLDER", "--port", "0"), OPENING, _score_some)
CHECK = Reader("store check", ("store", "check", "FOLDER/calibration"), _of("calibration/"))
SAMPLE = Reader(
    "sample",
    (
        *("sample", "--model", "FOLDER/train/rloo/model", "--procedure", "sampling", "--json"),
        *("--max-new-tokens", "4", "ab", "ch", "df"),
    ),
    _of("train/rloo/model/"),
)
"""A damaged tensor may make one response of three no different: then the fault is harmless here."""

IMPORT = Reader("store import", ("store", "import", "FOLDER", "--out", "OUT"), compared=("*",))
EXPORT_STORE = Reader(
    "store export", ("store", "export", "FOLDER", "--out", "OUT"), compared=("**/*.parquet",)
)
REWIND = Reader(
    "sample --calibration",
    (
        *("sample", "--model", "model", "--reward", "python:rewards:early", "--json"),
        *("--procedure", "rewind:0.5:4", "--calibration", "FOLDER", "--max-new-tokens", "4"),
        *("--prompts", "prompts.jsonl", "--split", "train", "--limit", "12"),
    ),
)


@dataclass(frozen=True)
class Subject:
    """A folder to damage, and its readers."""

    name: str
    make: Callable[[World], Path]
    readers: tuple[Reader, ...]


def _run_until(stage: str) -> Callable[[World], Path]:
    return lambda world: world.stage(stage)


def _killed(name: str, words: tuple[str, ...], landmark: str) -> Callable[[World], Path]:
    """A folder whose command was killed once the file `landmark` existed."""

    def make(world: World) -> Path:
        folder = world.folder / name
        if not (world.folder / f"{name}.done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            at = partial(kill_at_file_operation, (folder / landmark).exists)
            ended = world.run(*words, folder, before=at)
            assert ended.code == -9, f"{name}: {ended.stderr}"
            (world.folder / f"{name}.done").touch()
        return folder

    return make


finished_run = _run_until("report")


def _store(world: World) -> Path:
    return _run_until("calibrate")(world) / "calibration"


def exported(world: World) -> Path:
    store = _store(world)
    return world.made("exported", "store", "export", store)


PARTS_OF_EVALUATION = (*EVALUATE, "--batch-size", "1", "--format", "json", "--out")
SUBJECTS = (
    Subject(
        "finished run",
        finished_run,
        (CONTINUE, REPORT, EXPORT, SERVE, CHECK, SAMPLE),
    ),
    Subject("trained run", _run_until("train"), (replace(CONTINUE, reads=TRAINED),)),
    Subject("calibrated run", _run_until("calibrate"), (DESIGN,)),
    Subject(
        "interrupted training",
        _killed(
            "interrupted-training",
            ("run", "config.yaml", "--until", "train", "--out"),
            "train/rloo/on_policy/checkpoint-1/trainer_state.json",
        ),
        (replace(CONTINUE, reads=TRAINED),),
    ),
    Subject(
        "evaluation",
        lambda world: world.made("evaluation", *EVALUATE),
        (Reader("evaluate", (*EVALUATE, "--format", "json", "--out", "FOLDER")),),
    ),
    Subject(
        "interrupted evaluation",
        _killed(
            "interrupted-evaluation", PARTS_OF_EVALUATION, "evaluation/parts/mine-00002.parquet"
        ),
        (Reader("evaluate", (*PARTS_OF_EVALUATION, "FOLDER")),),
    ),
    Subject(
        "red team",
        lambda world: world.made("red-team", *RED_TEAM),
        (Reader("red-team", (*RED_TEAM, "--json", "--out", "FOLDER")),),
    ),
    Subject(
        "calibration store",
        _store,
        (Reader("store check", ("store", "check", "FOLDER")), EXPORT_STORE, REWIND),
    ),
    Subject("export of a store", exported, (IMPORT,)),
)
