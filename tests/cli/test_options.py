"""Every option of every command acts, or is refused by name: in each mode of the command.

The commands are found by walking the app, so an option without a row here fails. What computes or
loads is replaced by functions that record what they are given; an option acts if it changes what
is recorded, printed or written.
"""

import hashlib
import io
import re
import shutil
import sys
from dataclasses import is_dataclass
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from walked import commands, option_flags

from infalign.cli.app import main
from infalign.evaluation.pilot import Components
from infalign.models.interfaces import Response
from infalign.pipeline.workload import Room
from infalign.red_team.campaign import summarize
from infalign.stores import StoreWriter
from infalign.stores.exchange import export_rewards

RUN, SHORTER = "run.yaml", "shorter.yaml"
CONFIG = """
model: bundled:language-model
reward: bundled:harmless
prompts: {file: "bundled:harmless", limit: 4}
kl: 0.5
"""
NONE: dict[str, str] = {}
EVALUATE = (
    "--policy a=m --reference m --reward bundled:helpful --prompts bundled:helpful --limit 4 "
    "--procedure majority-vote:4 --procedure sampling"
)
SAMPLE = "--model m --max-new-tokens 8"
RED_TEAM = "--model m --prompts bundled:harmless --limit 4 --attempts 8 --out red"
SIDES = "--reference a=first.csv --policy b=second.csv"
JUDGED = "--verdicts judged.csv"
BY_REWARD = "--reward bundled:harmless --threshold -0.6"
STORE = "store/calibration"

# For each mode of a command: the words typed, the options that act, each with a value, and the
# options that are refused.
MODES: dict[str, dict[str, tuple[str, dict[str, str], dict[str, str]]]] = {
    "demo": {
        "": ("", {"--out": "other", "--quick": "", "--dry-run": ""}, {"--measure": "1"}),
        "dry": ("--dry-run", {"--measure": "1"}, NONE),
    },
    "run": {
        "": (
            RUN,
            {"--out": "other", "--until": "design", "--dry-run": ""},
            {"--measure": "1"},
        ),
        "dry": (f"{RUN} --dry-run", {"--measure": "1", "--until": "design"}, NONE),
    },
    "compare": {
        "": (
            RUN,
            {"--methods": "rlhf,rloo", "--kl": "0.1,0.2", "--seeds": "4", "--tasks": "other"}
            | {"--out": "other", "--archive": "cells", "--json": "", "--dry-run": ""},
            {"--measure": "1"},
        ),
        "dry": (
            f"{RUN} --dry-run",
            {"--methods": "rlhf", "--kl": "0.1", "--seeds": "4", "--out": "other"}
            | {"--archive": "cells", "--tasks": "other", "--measure": "1"},
            {"--json": ""},
        ),
    },
    "calibrate": {
        "": (RUN, {"--out": "other", "--dry-run": ""}, {"--measure": "1"}),
        "dry": (f"{RUN} --dry-run", {"--measure": "1"}, NONE),
    },
    "train": {
        "": (RUN, {"--out": "other", "--dry-run": ""}, {"--measure": "1"}),
        "dry": (f"{RUN} --dry-run", {"--measure": "1"}, NONE),
    },
    "report": {
        "": (RUN, {"--out": "other", "--dry-run": ""}, {"--measure": "1"}),
        "dry": (f"{RUN} --dry-run", {"--measure": "1"}, NONE),
    },
    "evaluate": {
        "of a run": (
            RUN,
            {"--out": "other", "--format": "json", "--dry-run": ""},
            {
                "--measure": "1",
                "--policy": "a=m",
                "--reference": "m",
                "--reward": "bundled:helpful",
                "--gold": "g=bundled:helpful",
                "--judge": "http://localhost/v1#m",
                "--judge-pairs": "2",
                "--judge-max-new-tokens": "9",
                "--judge-unreadable": "missing",
                "--prompts": "bundled:helpful",
                "--split": "train",
                "--column": "prompt_id",
                "--limit": "3",
                "--test-fraction": "0.5",
                "--procedure": "sampling",
                "--against": "sampling",
                "--answers": "numeric",
                "--samples": "8",
                "--kl-samples": "4",
                "--no-kl": "",
                "--temperature": "0.5",
                "--top-p": "0.5",
                "--max-new-tokens": "9",
                "--batch-size": "9",
                "--strip": "",
                "--dtype": "bfloat16",
                "--answer": "after-thinking",
                "--ask-again": "2",
                "--seed": "9",
                "--trust-remote-code": "",
                "--difference": "4",
                "--kl": "1",
                "--pilot": "pilot",
            },
        ),
        "of a run, dry": (f"{RUN} --dry-run", {"--measure": "1"}, {"--format": "json"}),
        "of policies, dry": (f"{EVALUATE} --dry-run", {"--measure": "1"}, {"--format": "json"}),
        "of policies": (
            EVALUATE,
            {
                "--policy": "b=n",
                "--reference": "n",
                "--reward": "bundled:harmless",
                "--gold": "g=bundled:helpful",
                "--prompts": "bundled:harmless",
                "--split": "train",
                "--column": "prompt_id",
                "--limit": "3",
                "--test-fraction": "0.2",
                "--procedure": "best-of-n:2",
                "--against": "sampling",
                "--answers": f"python:{__name__}:last_word",
                "--samples": "8",
                "--kl-samples": "4",
                "--no-kl": "",
                "--temperature": "0.5",
                "--top-p": "0.5",
                "--max-new-tokens": "9",
                "--batch-size": "9",
                "--strip": "",
                "--dtype": "bfloat16",
                "--answer": "after-thinking",
                "--ask-again": "2",
                "--seed": "9",
                "--trust-remote-code": "",
                "--out": "other",
                "--format": "json",
                "--dry-run": "",
            },
            {
                "--measure": "1",
                "--judge-pairs": "2",
                "--judge-max-new-tokens": "9",
                "--judge-unreadable": "missing",
                "--difference": "4",
                "--kl": "1",
                "--pilot": "pilot",
            },
        ),
        "of policies, judged, without a vote": (
            EVALUATE.replace("majority-vote:4", "best-of-n:4") + " --judge http://localhost/v1#m",
            {
                "--judge": "http://localhost/v1#n",
                "--judge-pairs": "2",
                "--judge-max-new-tokens": "9",
                "--judge-unreadable": "missing",
            },
            {"--answers": "numeric"},
        ),
        "of a plan": (
            "--plan --procedure best-of-n:2",
            {
                "--procedure": "sampling",
                "--against": "sampling",
                "--difference": "4",
                "--kl": "1",
                "--pilot": "pilot",
                "--format": "json",
            },
            {
                "--dry-run": "",
                "--measure": "1",
                "--policy": "a=m",
                "--reference": "m",
                "--reward": "bundled:helpful",
                "--gold": "g=bundled:helpful",
                "--judge": "http://localhost/v1#m",
                "--judge-pairs": "2",
                "--judge-max-new-tokens": "9",
                "--judge-unreadable": "missing",
                "--prompts": "bundled:helpful",
                "--split": "train",
                "--column": "prompt_id",
                "--limit": "3",
                "--test-fraction": "0.5",
                "--answers": "numeric",
                "--samples": "8",
                "--kl-samples": "4",
                "--no-kl": "",
                "--temperature": "0.5",
                "--top-p": "0.5",
                "--max-new-tokens": "9",
                "--batch-size": "9",
                "--strip": "",
                "--dtype": "bfloat16",
                "--answer": "after-thinking",
                "--ask-again": "2",
                "--seed": "9",
                "--trust-remote-code": "",
                "--out": "other",
            },
        ),
        "of a plan, on paper": ("--plan", {}, {"--format": "latex"}),
    },
    "analyze": {
        "": (
            SIDES,
            {
                "--reference": "z=third.csv",
                "--policy": "c=third.csv",
                "--procedure": "best-of-n:2",
                "--column": "score=other",
                "--where": "task=x",
                "--drop": "truncated",
                "--format": "json",
                "--out": "analysis",
            },
            {"--margin": "2", "--own": "j=a"},
        ),
        "of judges": (
            f"{JUDGED} --reference a --drop missing --format json",
            {
                "--reference": "b",
                "--policy": "b",
                "--verdicts": "k=other.csv",
                "--own": "j=a",
                "--column": "verdict=other",
                "--where": "turn=1",
                "--fail-under": "60",
                "--fail-if-worse-than": "a",
                "--format": "latex",
                "--out": "analysis",
            },
            {"--procedure": "best-of-n:2", "--margin": "2"},
        ),
        "of judges, as a gate": (
            f"{JUDGED} --reference a --fail-under 0 --format json",
            {"--margin": "50"},
            NONE,
        ),
        "with forecasts": (
            f"{SIDES} --forecast 100 --target 50 --forecast-above 0 --format json",
            {"--forecast": "200", "--target": "60", "--forecast-above": "0.5"},
            NONE,
        ),
        "as a gate": (
            f"{SIDES} --procedure best-of-n:2 --fail-under 0 --format json",
            {"--fail-under": "90", "--fail-if-worse-than": "a", "--margin": "2"},
            NONE,
        ),
    },
    "plan": {
        "": (
            "--procedure best-of-n:2",
            {
                "--procedure": "sampling",
                "--against": "sampling",
                "--difference": "4",
                "--kl": "1",
                "--pilot": "pilot",
                "--format": "json",
            },
            NONE,
        ),
        "on paper": ("", {}, {"--format": "markdown"}),
    },
    "design": {
        "at a budget": (
            "--procedure best-of-n:2 --kl 0.2 --transform identity",
            {
                "--procedure": "best-of-n:3",
                "--kl": "0.3",
                "--against": "sampling",
                "--transform": "log",
                "--samples": "8",
                "--json": "",
                "--plot": "plot.png",
            },
            {"--beta": "0.2"},
        ),
        "at a strength": (
            "--procedure best-of-n:2 --beta 0.2 --transform identity",
            {"--beta": "0.3"},
            {"--kl": "0.2"},
        ),
    },
    "sample": {
        "by reward": (
            f"{SAMPLE} --reward bundled:helpful hello",
            {
                "--model": "n",
                "--reward": "bundled:harmless",
                "--procedure": "best-of-n:2",
                "--temperature": "0.5",
                "--top-p": "0.5",
                "--max-new-tokens": "9",
                "--strip": "",
                "--dtype": "bfloat16",
                "--answer": "after-thinking",
                "--ask-again": "2",
                "--seed": "9",
                "--all": "",
                "--json": "",
                "--out": "other",
                "--trust-remote-code": "",
                "--dry-run": "",
            },
            {
                "--measure": "1",
                "--prompts": "bundled:helpful",
                "--split": "train",
                "--column": "prompt_id",
                "--calibration": STORE,
                "--references": "8",
                "--answers": "numeric",
            },
        ),
        "from a file": (
            f"{SAMPLE} --procedure sampling --prompts bundled:helpful --limit 2",
            {
                "--prompts": "bundled:harmless",
                "--split": "train",
                "--column": "prompt_id",
                "--limit": "1",
            },
            NONE,
        ),
        "by quantile": (
            f"{SAMPLE} --reward bundled:helpful --procedure soft-best-of-n:2:0.1 hello",
            {"--references": "8", "--calibration": STORE},
            NONE,
        ),
        "by quantile of a store": (
            f"{SAMPLE} --reward bundled:helpful --procedure soft-best-of-n:2:0.1 hello "
            f"--calibration {STORE}",
            NONE,
            {"--references": "8"},
        ),
        "dry": (
            f"{SAMPLE} --procedure sampling hello --dry-run",
            {"--measure": "1"},
            {"--all": "", "--json": ""},
        ),
        "by vote": (
            f"{SAMPLE} --procedure majority-vote:4 hello",
            {"--answers": f"python:{__name__}:first_word"},
            NONE,
        ),
    },
    "red-team": {
        "by reward": (
            f"{RED_TEAM} {BY_REWARD}",
            {
                "--model": "n",
                "--prompts": "bundled:helpful",
                "--reward": "bundled:helpful",
                "--threshold": "0",
                "--attempts": "9",
                "--augment": "noise",
                "--sigma": "0.3",
                "--split": "train",
                "--column": "prompt_id",
                "--limit": "3",
                "--temperature": "0.5",
                "--top-p": "0.5",
                "--max-new-tokens": "9",
                "--strip": "",
                "--dtype": "bfloat16",
                "--answer": "after-thinking",
                "--ask-again": "2",
                "--seed": "9",
                "--out": "other",
                "--json": "",
                "--trust-remote-code": "",
                "--dry-run": "",
            },
            {"--success": f"python:{__name__}:last_word", "--measure": "1"},
        ),
        "dry": (f"{RED_TEAM} {BY_REWARD} --dry-run", {"--measure": "1"}, {"--json": ""}),
        "by a function": (
            f"{RED_TEAM} --success python:{__name__}:last_word",
            {"--success": f"python:{__name__}:first_word", "--reward": "bundled:helpful"},
            {"--threshold": "0"},
        ),
        "without augmentation": (
            f"{RED_TEAM} {BY_REWARD} --augment none",
            {"--augment": "all"},
            {"--sigma": "0.3"},
        ),
    },
    "init": {
        "": (
            "--prompts bundled:helpful --yes",
            {
                "--model": "m",
                "--reward": "bundled:harmless",
                "--prompts": "bundled:harmless",
                "--column": "prompt_id",
                "--procedure": "best-of-n:2",
                "--out": "other",
            },
            NONE,
        ),
        "asked": ("", {"--yes": ""}, NONE),  # of two files, the first is only proposed
    },
    "list": {"": ("procedures", {"--json": ""}, NONE)},
    "explore": {
        "to a file": ("", {"--out": "other", "--serve": ""}, {"--port": "8000"}),
        "served": ("--serve", {"--out": "other", "--port": "8000"}, NONE),
    },
    "export-prompts": {
        "": (
            "run --for trl --out out",
            {"--for": "verl", "--out": "other", "--trust-remote-code": ""},
            NONE,
        )
    },
    "serve-reward": {
        "": (
            "run",
            {
                "--host": "0.0.0.0",
                "--port": "9",
                "--raw": "",
                "--batch": "9",
                "--window-ms": "9",
                "--waiting": "9",
                "--largest-mb": "9",
                "--arrival": "9",
                "--allow-host": "gpu7",
                "--trust-remote-code": "",
            },
            NONE,
        )
    },
    "store show": {"": (STORE, {"--json": ""}, NONE)},
    "store check": {
        "": (
            STORE,
            {"--procedure": "best-of-n:2", "--rescore": "2", "--seed": "9", "--json": ""},
            {"--kl": "1", "--config": RUN, "--trust-remote-code": ""},
        ),
        "for a procedure": (f"{STORE} --procedure best-of-n:2", {"--kl": "1"}, NONE),
        "scored again": (
            f"{STORE} --rescore 2",
            {"--config": SHORTER, "--trust-remote-code": ""},
            NONE,
        ),
    },
    "store merge": {"": (f"{STORE} more --out out", {"--out": "other"}, NONE)},
    "store export": {
        "rewards": (
            f"{STORE} --out out.parquet",
            {"--out": "other.parquet", "--samples": "", "--rewards": "r", "--key": "k"},
            NONE,
        ),
        "samples": (f"{STORE} --out out.parquet --samples", {}, {"--rewards": "r", "--key": "k"}),
    },
    "store import": {
        "": ("plain.parquet --out out", {"--out": "other", "--provenance": "model=m"}, NONE),
        "of other columns": (
            "named.parquet --out out --rewards r --key k",
            {"--rewards": "reference_rewards", "--key": "prompt_id"},  # which the file lacks
            NONE,
        ),
    },
}
CASES = [(command, mode) for command, modes in MODES.items() for mode in modes]
ACTING = [(*case, flag) for case in CASES for flag in MODES[case[0]][case[1]][1]]
REFUSED = [(*case, flag) for case in CASES for flag in MODES[case[0]][case[1]][2]]


def last_word(text):
    return text.split()[-1]


def first_word(text):
    return text.split()[0]


class FakeSampler:
    """Responses of a few words by seed."""

    def sample(self, conversations, n, *, seed, keys=None):
        rng = np.random.default_rng(seed)
        words = rng.integers(1000, size=(len(conversations), n, 2))
        return [[Response(f"{a} {b}") for a, b in row] for row in words.tolist()]


def broken(campaign, prompts, *more):
    """Results of a red team: one attempt in seven succeeds."""
    return _summary(tuple(campaign.attacks), len(prompts), campaign.attempts, campaign.seed)


@cache  # its forecasts take longer than the rest of a test
def _summary(attacks, prompts, attempts, seed):
    successes = np.arange(prompts * attempts).reshape(prompts, attempts) % 7 == 0
    return summarize(dict.fromkeys(attacks, successes), seed=seed)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder with a configuration, stores and files of rewards."""
    folder = tmp_path_factory.mktemp("options")
    rng = np.random.default_rng(0)
    (folder / RUN).write_text(CONFIG)
    (folder / SHORTER).write_text(CONFIG.replace("limit: 4", "limit: 3"))
    (folder / "store").mkdir()
    (folder / "store" / "config.yaml").write_text(CONFIG)
    for name, ids in ((STORE, ["0", "p1", "p2"]), ("more", ["q0"])):
        with StoreWriter(folder / name, {}, len(ids)) as out:
            out.add(ids, [["text"] * 16] * len(ids), rng.normal(size=(len(ids), 16)))
    for name in ("first", "second"):
        (folder / f"{name}.jsonl").write_text('{"prompt": "How?"}\n{"prompt": "Why?"}\n')
    for name, shift in (("first", 0), ("second", 1), ("third", 2)):
        rows = ["id,correct,other,task,finish_reason"]
        for place in range(24):
            cut = "length" if place == 5 else "stop"
            own = (place + shift) % 5 // 3, place * (shift + 1) % 7, "xy"[place % 2], cut
            rows.append(",".join(map(str, (place // 6, *own))))
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n")
    for name, shift in (("judged", 0), ("other", 1)):
        rows = ["id,model_a,model_b,winner,other,turn" + (",judge" if name == "judged" else "")]
        for place in range(24):
            sides = "ab" if place % 3 else "bc" if place % 2 else "ca"
            won = sides[(place + shift) % 5 // 3], sides[place * (shift + 1) % 7 // 4]
            judge = ("jk"[place % 2],) if name == "judged" else ()
            rows.append(",".join((str(place // 4), *sides, *won, "12"[place % 4 // 2], *judge)))
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n")
    export_rewards(folder / STORE, folder / "plain.parquet")
    export_rewards(folder / STORE, folder / "named.parquet", rewards="r", key="k")
    return folder


@pytest.fixture
def outcome(template, tmp_path, monkeypatch, capsys):
    """What a command line does: exit code, errors, and all that is recorded, printed, written."""
    recorded: list = []

    def record(name, result=lambda *a, **k: None):
        def call(*arguments, **settings):
            recorded.append((name, whole(arguments), whole(settings)))
            return result(*arguments, **settings)

        return call

    def replace(path, result=lambda *a, **k: None):
        monkeypatch.setattr(path, record(path, result))

    def score(prompts, completions, **columns):
        return [float(sum(map(ord, c[-1]["content"]))) for c in completions]

    drift = SimpleNamespace(responses=32, changed=0.0, swapped=0.0)
    dry = SimpleNamespace(
        checks=[], works=[], costs=[], speed=None, room=Room(0, 0), plan=[], longest=None
    )
    replace("infalign.pipeline.dry.dry_run", lambda *a, **k: dry)
    for name in ("dry_comparison", "dry_campaign", "dry_decoding"):
        replace(f"infalign.pipeline.dry_models.{name}", lambda *a, **k: dry)
    replace("infalign.pipeline.decoding_work.inspect_policy")
    replace("infalign.pipeline.decoding_work.inspect_reward")
    replace("infalign.pipeline.run.run", lambda c, out, **k: SimpleNamespace(folder=out))
    made = {"versions": {}, "dtype": {}, "machines": [], "configuration": "1", "began": None}
    study = {"tasks": [], "cells": 0, "evidence": True, "made": made}
    replace("infalign.study.run.run_study", lambda *a, **k: study)
    dry_study = SimpleNamespace(tasks={"run": dry}, cells=1, finished=0, seconds=1.0)
    replace("infalign.study.dry.dry_study", lambda *a, **k: dry_study)
    replace("infalign.cli.run.print_results")
    replace("infalign.cli.evaluate.print_results")
    replace("infalign.comparison.run.compare_policies")
    replace("infalign.reports.page.build_report")
    replace("infalign.pipeline.bill.origin_of_comparison")
    replace("infalign.cli.plan._pilot", lambda *a: Components(0.01, 0.0, 0.01, 9, 9, 9))
    replace("infalign.models.samplers.load_sampler", lambda *a, **k: FakeSampler())
    replace("infalign.models.rewards.load_reward", lambda *a, **k: score)
    replace("infalign.pipeline.decoding_work.load_reward", lambda *a, **k: score)
    replace("infalign.red_team.red_team", broken)
    replace("infalign.explorer.write_page", str)
    replace("infalign.explorer.serve")
    opened = SimpleNamespace(config=SimpleNamespace(reward="r"), prompts=[])
    replace("infalign.frameworks.opened.open_run", lambda folder, **k: opened)
    replace("infalign.frameworks.opened.policy_text")
    replace("infalign.frameworks.opened.run_scorer")
    replace("infalign.frameworks.serving.make_app")
    replace("infalign.frameworks.serving.serve")
    replace("infalign.frameworks.export.export_prompts", lambda *a: [])
    replace(
        "infalign.pipeline.read.read_design", lambda run: SimpleNamespace(beta=0.2, target_kl=0.5)
    )
    replace("infalign.collection.rescore.rescore", lambda *a, **k: drift)
    monkeypatch.setattr("infalign.cli.progress.quiet_libraries", lambda: None)

    def call(words):
        place = tmp_path / "place"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(template, place)
        monkeypatch.chdir(place)
        monkeypatch.setattr(sys, "argv", ["infalign", *words])
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n" * 8))
        recorded.clear()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        printed = capsys.readouterr()
        files = sorted(
            (str(f.relative_to(place)), hashlib.sha256(f.read_bytes()).hexdigest())
            for f in place.rglob("*")
            if f.is_file()
        )
        sent = re.sub(r" at 0x\w+", "", repr(recorded))
        return code, printed.err, (code, printed.out, sent, files)

    return call


def whole(value) -> str:
    """A value with everything it holds; a `repr` is made to fit on a screen."""
    if is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__name__}({whole(vars(value))})"
    if isinstance(value, dict):
        return repr({key: whole(held) for key, held in value.items()})
    if isinstance(value, list | tuple):
        return repr([whole(held) for held in value])
    return repr(value)


def line(command, mode, *more):
    return [*command.split(), *MODES[command][mode][0].split(), *more]


def given(flag, value):
    return [flag, value] if value else [flag]


def test_every_option_of_every_command_has_a_row():
    assert set(MODES) == set(commands())
    for name, command in commands().items():
        rows = {flag for _, acts, refused in MODES[name].values() for flag in acts | refused}
        rows |= {"--plan"} if name == "evaluate" else set()  # a mode of its own
        assert rows == option_flags(command), name


def test_every_mode_of_an_evaluation_says_something_about_every_option():
    flags = option_flags(commands()["evaluate"])
    for mode in ("of a run", "of a plan"):
        words, acts, refused = MODES["evaluate"][mode]
        assert set(acts) | set(refused) | set(words.split()) >= flags - {"--plan"}, mode


@pytest.mark.parametrize(("command", "mode"), CASES)
def test_a_mode_works_and_does_the_same_again(outcome, command, mode):
    code, errors, first = outcome(line(command, mode))
    assert code == 0, errors
    assert outcome(line(command, mode))[2] == first


@pytest.mark.parametrize(("command", "mode", "flag"), ACTING)
def test_an_option_that_is_accepted_acts(outcome, command, mode, flag):
    value = MODES[command][mode][1][flag]
    *_, plain = outcome(line(command, mode))
    code, errors, other = outcome(line(command, mode, *given(flag, value)))
    assert code != 2, errors
    assert other != plain


@pytest.mark.parametrize(("command", "mode", "flag"), REFUSED)
def test_an_option_that_would_do_nothing_is_refused_by_name(outcome, command, mode, flag):
    value = MODES[command][mode][2][flag]
    code, errors, _ = outcome(line(command, mode, *given(flag, value)))
    assert code == 2 and flag in errors and "Traceback" not in errors
