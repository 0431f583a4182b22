"""Everything that can be known before the first generation is checked before it."""

import json
import logging
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from infalign.config import load_config, parse_config
from infalign.demo import bundled
from infalign.errors import ArgumentError, InfalignError
from infalign.models.functions import beside, searched
from infalign.models.hf import LanguageModel
from infalign.pipeline.checks import Check, check, checks_of
from infalign.pipeline.folder import Run
from infalign.pipeline.run import run

BASE = {
    "model": "bundled:language-model",
    "reward": "mine.py:length",
    "prompts": {"file": "bundled:harmless", "limit": 4},
    "procedure": "best-of-n:2",
    "kl": 0.3,
    "sampling": {"max_new_tokens": 4, "batch_size": 16},
    "calibration": {"samples": 4},
    "train": {"batch_size": 8, "group": 4, "steps": 1},
    "evaluate": {"prompts": {"limit": 4}, "samples": 4},
}


def changed(base, changes):
    """`base` with nested changes, as an override of the command line makes them."""
    merged = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = changed(base[key], value) if nested else value
    return merged


@pytest.fixture
def generated(monkeypatch):
    """The numbers of responses that a language model was asked for."""
    asked = []
    sample = LanguageModel.sample

    def counting(self, conversations, n, **options):
        asked.append(n * len(conversations))
        return sample(self, conversations, n, **options)

    monkeypatch.setattr(LanguageModel, "sample", counting)
    return asked


MINE = """
import math

def length(prompts, completions, **columns):
    return [float(len(str(c))) for c in completions]

def failing(prompts, completions, **columns):
    raise RuntimeError("no such table")

def infinite(prompts, completions, **columns):
    return [math.inf for _ in completions]

def words(prompts, completions, **columns):
    return ["good" for _ in completions]

def short(prompts, completions, **columns):
    return [1.0] * (len(completions) - 1)

def needy(prompts, completions, tests):
    return [1.0 for _ in completions]

def both(prompts, first, second):
    return [2.0 for _ in first]

def unhashable(text):
    return [text]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    rows = [{"prompt": f"What is {n}?", "prompt_id": f"p{n}", "split": "train"} for n in range(4)]
    held = [{"prompt": f"Why is {n}?", "prompt_id": f"p{n}", "split": "test"} for n in range(4)]
    (tmp_path / "same-ids.jsonl").write_text("\n".join(map(json.dumps, rows + held)))
    for name in ("here.jsonl", "there.jsonl"):
        (tmp_path / name).write_text(json.dumps({"prompt": "Who?"}))
    (tmp_path / "empty.jsonl").write_text(json.dumps({"prompt": " "}))
    (tmp_path / "long.jsonl").write_text(
        "\n".join(json.dumps({"prompt": f"{n} " * 2000}) for n in range(4))
    )
    return tmp_path


def named(file):
    return {"prompts": {"file": file}}


REFUSED = {
    "transform": ({"transform": "exponentiel:5"}, ["transform", "exponentiel"]),
    "procedure": ({"procedure": "best-of:4"}, ["procedure", "best-of"]),
    "method": ({"train": {"method": "ppo"}}, ["train.method", "must be one of rloo"]),
    "KL of the transform": ({"kl": 99.0, "transform": "identity"}, ["does not reach kl=99"]),
    "KL with K samples": (
        {"kl": 2.5},
        ["`kl` 2.5 nats", "`calibration.samples` 4", "at most 2.08", "such as"],
    ),
    "KL with K samples and a pooled table": (
        {"kl": 2.5, "calibration": {"calibrator": "pooled"}},
        ["`calibration.samples` 4"],
    ),
    "KL of the raw reward": (
        {"kl": 0.72, "calibration": {"samples": 2}},
        ["`rlhf`", "log 2 = 0.693", "more `calibration.samples`"],
    ),
    "KL of one baseline": (
        {"kl": 0.72, "calibration": {"samples": 2}, "train": {"baselines": ["pkpo"]}},
        ["`pkpo`", "log 2 = 0.693"],
    ),
    "bonbon": (
        {"procedure": "worst-of-n:2", "train": {"method": "bonbon"}},
        ["`bonbon`", "worst-of-n:2"],
    ),
    "prompts that are missing": (named("none.jsonl"), ["none.jsonl does not exist"]),
    "prompts that are empty": (named("empty.jsonl"), ["empty.jsonl, line 1", "empty"]),
    "prompts in both": (
        {"prompts": {"file": "here.jsonl"}, "evaluate": {"prompts": {"file": "there.jsonl"}}},
        ["1 of 1 evaluation prompts are training"],
    ),
    "ids in both": (named("same-ids.jsonl"), ["4 of 4", "the id of a training prompt", "'p0'"]),
    "prompts that are too long": (
        {"prompts": {"file": "long.jsonl"}, "evaluate": {"prompts": {"file": "bundled:harmless"}}},
        ["positions", "too long"],
    ),
    "test prompts that are too long": (
        {"evaluate": {"prompts": {"file": "long.jsonl"}}},
        ["positions", "(4 of 8 prompts are too long)"],
    ),
    "too few prompts": ({"train": {"batch_size": 64}}, ["at least 16 prompts"]),
    "a share of validation that rounds to no prompt": (
        {
            "prompts": {"limit": 24},
            "train": {"validation": 0.02, "steps": 2, "save_steps": 1, "select": "gold:true"},
            "evaluate": {"gold": {"true": "bundled:harmless"}},
        },
        ["`train.validation` is 0.02", "24 prompts", "Raise it to 0.021 or more", "set it to 0"],
    ),
    "names of policies": (
        {"evaluate": {"policies": {"rloo": "bundled:language-model"}}},
        ["`evaluate.policies` has 'rloo'"],
    ),
    "procedures of the evaluation": (
        {"evaluate": {"procedures": ["best-of-n:8"]}},
        ["fewer than the 8"],
    ),
    "options of the trainer": (
        {"train": {"trl": {"max_grad_nrm": 1, "optim": 3}}},
        ["max_grad_nrm", "mean `max_grad_norm`?", "`train.trl.optim` is 3"],
    ),
    "options whose packages are not installed": (
        {"train": {"trl": {"use_vllm": True, "use_liger_kernel": True, "optim": "adamw_bnb_8bit"}}},
        [
            *("`train.trl.use_vllm` is True", "pip install vllm", "pip install liger-kernel"),
            *("`train.trl.optim` is 'adamw_bnb_8bit'", "pip install bitsandbytes"),
        ],
    ),
    "tracker that is unknown": (
        {"train": {"report_to": "tensorbord"}},
        ["`train.report_to` is 'tensorbord'", "mean `tensorboard`?"],
    ),
    "tracker that is not installed": (
        {"train": {"report_to": ["wandb"]}},
        ["`train.report_to` is wandb, which is not installed", "pip install wandb"],
    ),
    "tracker under TRL's name": (
        {"train": {"trl": {"report_to": "wandb"}}},
        ["`train.trl.report_to`", "The key `train.report_to` decides it"],
    ),
    "model": ({"model": "nowhere/model"}, ["The model 'nowhere/model'"]),
    "reward that is missing": ({"reward": "mine.py:nothing"}, ["mine.py:nothing"]),
    "reward that fails": ({"reward": "mine.py:failing"}, ["`failing`", "no such table"]),
    "reward that is infinite": ({"reward": "mine.py:infinite"}, ["infinite", "finite"]),
    "reward of words": ({"reward": "mine.py:words"}, ["`words`", "number"]),
    "reward that leaves out": ({"reward": "mine.py:short"}, ["`short`", "1 for 2"]),
    "reward without its column": ({"reward": "mine.py:needy"}, ["`needy`", "tests"]),
    "gold reward that fails": (
        {"evaluate": {"gold": {"true": "mine.py:failing"}}},
        ["`failing`", "no such table"],
    ),
    "gold reward that is the reward by another path": (
        {
            "evaluate": {"gold": {"true": "./mine.py:length"}},
            "train": {"select": "gold:true", "steps": 2, "save_steps": 1, "validation": 0.5},
        },
        ["`train.select` is gold:true", "content is that of `reward`", "Name another"],
    ),
    "judge that is missing": ({"evaluate": {"judge": "mine.py:none"}}, ["mine.py:none"]),
    "judge of other numbers": ({"evaluate": {"judge": "mine.py:both"}}, ["judge", "2.0"]),
    "answers that cannot vote": (
        {"evaluate": {"answers": "mine.py:unhashable", "procedures": ["majority-vote:3"]}},
        ["hashable"],
    ),
    "reward server": ({"reward": "http://127.0.0.1:9/score"}, ["127.0.0.1:9"]),
    "judge server": ({"evaluate": {"judge": "http://127.0.0.1:9/v1#m"}}, ["127.0.0.1:9"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_mistake_is_refused_before_anything_is_generated(case, folder, generated, monkeypatch):
    monkeypatch.setattr("urllib3.util.Retry.sleep", lambda *_: None)
    trackers = "transformers.integrations.integration_utils.get_available_reporting_integrations"
    monkeypatch.setattr(trackers, list)
    monkeypatch.setattr("infalign.training.trl_options.find_spec", lambda name: None)
    changes, words = REFUSED[case]
    with pytest.raises((InfalignError, ArgumentError)) as caught:
        run(parse_config(changed(BASE, changes)), folder / "run")
    for word in words:
        assert word in str(caught.value)
    assert generated == [] and not (folder / "run").exists()


def test_a_disk_without_room_is_refused_before_anything_is_generated(
    folder, generated, monkeypatch
):
    disk = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk(10**12, 10**12 - 10**6, 10**6))
    with pytest.raises(InfalignError, match=r"needs at least .* MB .*, and 1.0 MB are free"):
        run(parse_config(BASE), folder / "run")
    assert generated == [] and not (folder / "run").exists()


def test_every_failure_is_reported_at_once(folder, generated):
    changes = {
        "kl": 2.5,
        "prompts": {"file": "none.jsonl"},
        "train": {"trl": {"max_grad_nrm": 1}},
        "evaluate": {"answers": "mine.py:unhashable"},
    }
    with pytest.raises(InfalignError) as caught:
        run(parse_config(changed(BASE, changes)), folder / "run")
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("4 things must be mended before the run can begin:")
    for number, word in enumerate(["`kl` 2.5", "none.jsonl", "max_grad_nrm", "hashable"], 1):
        assert lines[number].startswith(f"{number}. ") and word in lines[number]


def test_a_check_without_what_it_needs_is_not_made():
    made = []

    def failing():
        raise InfalignError("the first failed")

    checks = [
        Check("first", failing),
        Check("second", lambda: made.append(2), ("first",)),
        Check("third", lambda: made.append(3)),
    ]
    with pytest.raises(InfalignError, match="the first failed"):
        check(checks)
    assert made == [3]


def test_a_run_that_can_be_done_passes_every_check(folder, generated):
    config = parse_config(changed(BASE, {"reward": "bundled:harmless"}))
    checks = checks_of(Run(config, folder / "run"))
    assert check(checks) == [one.name for one in checks]
    assert generated == [] and not (folder / "run").exists()


def test_a_model_of_the_hub_or_a_server_has_no_known_size(folder):
    from infalign.pipeline.workload import parameters_of

    weights = parameters_of(Run(parse_config(BASE), folder))
    stored = bundled("bundled:language-model", "model") / "model.safetensors"
    assert weights is not None and weights <= stored.stat().st_size
    server = parse_config(changed(BASE, {"model": "http://127.0.0.1:9/v1#m"}))
    assert parameters_of(Run(server, folder)) is None


def test_checks_look_for_functions_where_the_call_does(tmp_path):
    places = []
    look = Check("functions", lambda: places.append(searched()[0]))
    with beside(tmp_path):
        check([look])
        check([look], tmp_path / "other")
    assert places == [tmp_path, tmp_path / "other"]


def test_provenance_names_the_file_of_every_function(tmp_path, monkeypatch, caplog):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "own_score.py").write_text("def f(completions): ...\ndef g(*_): ...\n")
    (tmp_path / "judged.py").write_text("def f(*_): ...\n")
    config = {**BASE, "reward": "python:own_score:f"}
    config["evaluate"] = {"gold": {"q": "conf/own_score.py:f"}, "judge": "python:judged:f"}
    config["evaluate"]["answers"] = "python:own_score:g"
    (tmp_path / "conf" / "run.yaml").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO):
        files = Run(load_config(Path("conf/run.yaml")), tmp_path / "run").functions
    beside_it = str(tmp_path / "conf" / "own_score.py")
    assert files == {
        "reward": beside_it,
        "evaluate.gold.q": beside_it,
        "evaluate.judge": str(tmp_path / "judged.py"),
        "evaluate.answers": beside_it,
    }
    assert f"python:own_score:f is loaded from {beside_it}." in caplog.messages


@pytest.mark.parametrize(
    ("limit", "evidence", "said"),
    [(1, True, "no difference"), (6, True, "14 points or more"), (40, True, ""), (6, False, "")],
)
def test_too_few_test_prompts_to_compare_policies_are_said(tmp_path, caplog, limit, evidence, said):
    own = {"prompts": {"limit": limit}, "samples": 32}
    run = Run(
        parse_config(changed(BASE, {"evaluate": own, "evidence": evidence})), tmp_path / "run"
    )
    with caplog.at_level(logging.WARNING, "infalign"):
        check([c for c in checks_of(run) if c.name in POWER])
    warned = [r.getMessage() for r in caplog.records if "test prompts with 32" in r.getMessage()]
    assert len(warned) == bool(said) and all(said in w and "infalign plan" in w for w in warned)


@pytest.mark.parametrize(
    ("prompts", "share", "kept"), [(24, 0.02, None), (24, 0.021, 1), (24, 0, 0), (3, 0.15, None)]
)
def test_a_share_for_validation_holds_out_a_prompt_or_is_zero(tmp_path, prompts, share, kept):
    config = parse_config(
        changed(BASE, {"prompts": {"limit": prompts}, "train": {"validation": share}})
    )
    checks = [c for c in checks_of(Run(config, tmp_path / "run")) if c.name in VALIDATION]
    assert len(checks) == 2
    if kept is None:
        with pytest.raises(InfalignError, match=f"of {prompts} prompts holds out none"):
            check(checks)
    else:
        check(checks)
        assert prompts - config.train.trained_prompts(prompts) == kept
    untrained = checks_of(Run(config, tmp_path / "run"), trained=False)
    assert VALIDATION[1] not in [c.name for c in untrained]


@pytest.mark.parametrize("copies", [1, 2])
def test_validation_prompts_that_are_trained_on_are_said(tmp_path, caplog, copies):
    rows = [{"prompt": f"Question {i % 20}?", "prompt_id": f"q{i}"} for i in range(20 * copies)]
    path = tmp_path / "asked.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = {"prompts": {"file": str(path), "limit": None, "test_fraction": 0.3}}
    config = parse_config(changed(BASE, asked | {"train": {"validation": 0.25}}))
    run = Run(config, tmp_path / "run")
    with caplog.at_level(logging.WARNING, "infalign"):
        check([c for c in checks_of(run) if c.name in VALIDATION])
    said = [m for m in caplog.messages if "trained on too" in m]
    kept = len(run.prompts) - config.train.trained_prompts(len(run.prompts))
    assert [m.partition(" validation")[0] for m in said] == [f"{kept} of {kept}"] * (copies - 1)


VALIDATION = "training prompts", "validation prompts"
POWER = "training prompts", "test prompts", "comparison", "power of the comparison"


@pytest.mark.parametrize(
    "changes, asked",
    [
        ({}, True),
        ({"engine": "local"}, False),
        ({"dtype": "bfloat16"}, False),
        ({"model": "http://host/v1#name"}, False),  # the reward is a function
    ],
)
def test_the_workers_of_a_cluster_are_asked_for_their_precision(
    tmp_path, monkeypatch, changes, asked
):
    config = parse_config(changed(BASE, {"engine": "ray"} | changes))
    own = {"precision on Ray"} if asked else set()
    monkeypatch.setenv("RAY_ADDRESS", "ray.example:6379")
    assert {c.name for c in checks_of(Run(config, tmp_path))} & {"precision on Ray"} == own
    monkeypatch.delenv("RAY_ADDRESS")  # a cluster of this machine alone
    assert "precision on Ray" not in {c.name for c in checks_of(Run(config, tmp_path))}
