"""A changed key of the configuration makes exactly the stages run again that read it."""

import json
import shutil

import pytest
import yaml
from enumerable import EnumerableModel
from quick_runs import REWARD, counting

from infalign import storage
from infalign.config import load_config, parse_config
from infalign.manifest import Manifest
from infalign.pipeline.folder import Run
from infalign.pipeline.inputs import READS, STAGES, UNREAD, is_among, keys_of, stated
from infalign.pipeline.plan import plan
from infalign.pipeline.run import run
from infalign.stores.writer import StoreWriter

pytestmark = pytest.mark.filterwarnings("ignore")

TRAINED, HELD_OUT, K, M = 5, 3, 4, 4
"""Numbers of prompts, of calibration samples and of evaluation samples in the first run."""

METHODS = ("rloo", "rlhf", "likelihood")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Models, rewards and prompts, and other ones of each."""
    folder = tmp_path_factory.mktemp("files")
    for name, seed in (("base", 1), ("other", 2)):
        EnumerableModel.make(folder / name, seed=seed)
    shutil.copytree(folder / "base", folder / "copy")
    (folder / "rewards.py").write_text(REWARD)

    def write(name, texts, splits, **more):
        rows = [
            {"prompt_id": f"p{i}", "prompt": text, "split": split, "question": text[::-1]} | more
            for i, (text, split) in enumerate(zip(texts, splits, strict=True))
        ]
        (folder / name).write_text("\n".join(map(json.dumps, rows)))

    texts = ["ab", "ba", "aab", "bba", "abab", "bb", "aaa", "bbb", "abba", "baab"]
    splits = ["train"] * 6 + ["test"] * 4
    write("prompts.jsonl", texts, splits)
    write("same.jsonl", texts, splits)
    write("edited.jsonl", ["abc", *texts[1:]], splits)
    write("held.jsonl", ["cc", "cab", "cb"], ["test"] * 3)
    return folder


@pytest.fixture
def counts(monkeypatch):
    """Counts of what the stages are asked, which take no time."""
    return counting(monkeypatch)


def configuration(files, **changed):
    values = {
        "model": str(files / "base"),
        "reward": f"{files}/rewards.py:a",
        "prompts": {"file": str(files / "prompts.jsonl"), "limit": TRAINED},
        "procedure": "best-of-n:2",
        "kl": 0.1,
        "transform": "exponential:2",
        "sampling": {"max_new_tokens": 6, "batch_size": 8},
        "calibration": {"samples": K, "calibrator": "ecdf"},
        "train": {"method": "rloo", "baselines": list(METHODS[1:])}
        | {"steps": 2, "batch_size": 4, "group": 2, "save_steps": 1},
        "evaluate": {"prompts": {"limit": HELD_OUT}, "samples": M},
        "evidence": False,
    }
    for key, value in changed.items():
        section, _, name = key.rpartition("__")
        part = values
        for word in section.split("__") if section else ():
            part = part.setdefault(word, {})
        if value is None:
            part.pop(name, None)
        else:
            part[name] = value
    return parse_config(values)


def done(config, folder, counts):
    """What a call does: responses of the calibration, whether it designs, the methods it trains,
    the sets of samples with their numbers of responses, and whether it writes results."""
    counts.__init__()
    run(config, folder)
    own = {k: n for k, n in counts.drawn.items() if k != "base"}
    base = counts.drawn["base"]
    return base, bool(counts.designed), set(counts.trained), own, bool(counts.summarized)


ALL, NO_TRAINING = set(METHODS), set()
ON_POLICY, ON_DESIGN = {"rloo", "rlhf"}, {"rloo", "likelihood"}
EACH = HELD_OUT * M
"""Responses of one policy in the evaluation."""


def evaluated(methods, suffix="-2", number=EACH):
    return {f"{m}{suffix}": number for m in methods}


def training(methods):
    """Only these methods are trained, and their policies evaluated."""
    return 0, False, methods, evaluated(methods), True


NOTHING = (0, False, set(), {}, False)
RESULTS = (0, False, set(), {}, True)
CALIBRATED = (K * TRAINED, True, ALL, evaluated(ALL), True)
"""The calibration is drawn again, and all that follows; the evaluation's reference is not."""

EVERYTHING = (K * TRAINED + EACH, True, ALL, evaluated(ALL), True)
DESIGNED = (0, True, ALL, evaluated(ALL), True)
FURTHER = {m: 0 for m in METHODS}

ROWS = {
    "model": ("other", EVERYTHING),
    "reward": ("b", (0, True, ALL, evaluated(ALL), True)),
    "prompts.file": ("edited.jsonl", (K, True, ALL, evaluated(ALL), True)),
    "prompts.limit": (6, (K, True, ALL, evaluated(ALL), True)),
    "prompts.column": ("question", CALIBRATED),  # the held-out ones read the same backward
    "prompts.split": ("test", None),
    "prompts.dataset": (None, None),
    "prompts.config": (None, None),
    "prompts.id_column": (None, None),
    "prompts.system": ("Be b.", None),
    "prompts.system_column": (None, None),
    "prompts.test_fraction": (0.3, None),
    "procedure": ("best-of-n:3", DESIGNED),
    "against": ("sampling", DESIGNED),
    "kl": (0.2, DESIGNED),
    "beta": (None, None),
    "transform": ("exponential:3", (0, True, ON_DESIGN, evaluated(ON_DESIGN), True)),
    "sampling.temperature": (0.5, EVERYTHING),
    "sampling.top_p": (None, None),
    "sampling.max_new_tokens": (5, EVERYTHING),
    "sampling.batch_size": (2, NOTHING),
    "sampling.strip": (True, EVERYTHING),
    "sampling.answer": (None, None),
    "sampling.ask_again": (1, (K * TRAINED + EACH, True, ALL, evaluated(ALL), True)),
    "calibration.samples": (6, (2 * TRAINED, True, ALL, evaluated(ALL), True)),
    "calibration.store": (None, None),
    "calibration.extend": (None, None),
    "calibration.calibrator": ("tail", (0, True, ON_DESIGN, evaluated(ON_DESIGN), True)),
    "train.method": ("rlhf", RESULTS),
    "train.baselines": (["rlhf", "likelihood", "identity"], None),
    "train.warm_start": (2, training(ON_POLICY)),
    "train.warm_start_loss": ("regression", training(ON_POLICY)),
    "train.warm_start_learning_rate": (1e-4, training(ALL)),
    "train.warm_start_batch_size": (32, training(ALL)),
    "train.passes": (3, training({"likelihood"})),
    "train.steps": (3, training(ON_POLICY)),
    "train.learning_rate": (3e-5, training(ON_POLICY)),
    "train.batch_size": (8, training(ON_POLICY)),
    "train.group": (4, training(ON_POLICY)),
    "train.lora": (2, training(ALL)),
    "train.save_steps": (2, training(ON_POLICY)),
    "train.select": ("gold:human", None),
    "train.validation": (0.4, training(ALL)),
    "train.kl_responses": (64, training(ALL)),
    "train.seed": (1, training(ALL)),
    "train.report_to": (None, None),
    "train.trl": ({"max_grad_norm": 0.5}, training(ON_POLICY)),
    "evaluate.prompts.file": ("held.jsonl", (EACH, False, set(), evaluated(ALL, ""), True)),
    "evaluate.prompts.dataset": (None, None),
    "evaluate.prompts.config": (None, None),
    "evaluate.prompts.split": (None, None),
    "evaluate.prompts.limit": (4, (M, False, set(), evaluated(ALL, "", M), True)),
    "evaluate.prompts.column": ("question", None),
    "evaluate.prompts.id_column": (None, None),
    "evaluate.prompts.system": (None, None),
    "evaluate.prompts.system_column": (None, None),
    "evaluate.samples": (6, (2 * HELD_OUT, False, set(), evaluated(ALL, "", 2 * HELD_OUT), True)),
    "evaluate.procedures": (["worst-of-n:2"], RESULTS),
    "evaluate.policies": ({"more": "other"}, None),
    "evaluate.gold": ({"human": "b"}, RESULTS),
    "evaluate.answers": ("first", RESULTS),
    "evaluate.judge": ("judge", RESULTS),
    "evaluate.judge_pairs": (2, RESULTS),
    "evaluate.judge_max_new_tokens": (9, RESULTS),
    "evaluate.judge_unreadable": ("missing", RESULTS),
    "evaluate.kl_samples": (2, RESULTS),
    "engine": ("ray", NOTHING),
    "dtype": ("bfloat16", EVERYTHING),
    "seed": (1, EVERYTHING),
    "evidence": (True, RESULTS),
    "trust_remote_code": (True, NOTHING),
}
"""Key → a changed value, and what the next call does; None where the value cannot be changed alone,
or where a test of its own follows."""

PATHS = {
    "model": "{}/{}",
    "reward": "{}/rewards.py:{}",
    "prompts.file": "{}/{}",
    "evaluate.prompts.file": "{}/{}",
    "evaluate.answers": "python:{}/rewards.py:{}",
    "evaluate.judge": "python:{}/rewards.py:{}",
}


def test_every_key_has_a_row(files):
    keys = [key for key, _ in keys_of(configuration(files))]
    assert list(dict.fromkeys(keys)) == keys and set(ROWS) == set(keys)


def test_every_key_is_read_by_a_stage_or_by_none(files):
    patterns = tuple(p for reads in READS.values() for p in reads.keys)
    for key, _ in keys_of(configuration(files)):
        assert is_among(key, patterns) or is_among(key, UNREAD), key
    assert {s for reads in READS.values() for s in reads.stages} <= set(STAGES)


@pytest.mark.parametrize(
    ("name", "given"), [("warm_start_loss", "regression"), ("kl_responses", 64)]
)
def test_a_key_that_former_versions_lacked_is_stated_only_if_it_was_set(files, name, given):
    assert f"train.{name}" not in stated(configuration(files), "train")
    own = configuration(files, **{f"train__{name}": given})
    assert stated(own, "train")[f"train.{name}"] == given


@pytest.fixture(scope="module")
def finished(files, tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patched:
        assert done(configuration(files), folder, counting(patched)) == (
            *(K * TRAINED + EACH, True, ALL, evaluated(ALL, ""), True),
        )
    return folder


RUN = (
    *("model", "reward", "prompts.file", "prompts.limit", "kl", "transform", "calibration.samples"),
    *("sampling.batch_size", "train.learning_rate", "train.passes", "seed", "evidence"),
    *("evaluate.samples", "evaluate.prompts.limit", "evaluate.gold"),
)
"""Keys whose changes are run, one for each kind; of the others, the plan is compared, which the
runs of these show to be true."""


def changed_in(key, files):
    value, expected = ROWS[key]
    value = PATHS[key].format(files, value) if key in PATHS else value
    if key == "evaluate.gold":
        value = {"human": f"{files}/rewards.py:b"}
    return configuration(files, **{key.replace(".", "__"): value}), expected


@pytest.mark.parametrize("key", [key for key, (_, expected) in ROWS.items() if expected])
def test_the_plan_tells_what_a_changed_key_runs_again(key, files, finished):
    other, expected = changed_in(key, files)
    base, designed, trained, own, _ = expected
    plans = {p.name: p for p in plan(other, finished)}
    drawn = sum(plans[name].cost.responses for name in ("calibrate", "evaluate reference"))
    assert drawn == base, [p.words() for p in plans.values()]
    assert (plans["design"].state == "to run") == designed
    again = {m for m in other.methods if plans[f"train {m}"].state == "to run"}
    # A design that turns out to be the same for a method is not known before.
    assert again == trained or (designed and again == ALL)
    drawn_from = {m for m in other.methods if plans[f"evaluate {m}"].cost.responses}
    assert drawn_from == {name.removesuffix("-2") for name in own} or designed
    assert all(p.why for p in plans.values() if p.state == "to run" and p.stage == "train")


@pytest.mark.parametrize("key", RUN)
def test_a_changed_key_runs_again_what_reads_it_and_going_back_runs_nothing(
    key, files, finished, counts, tmp_path
):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    other, expected = changed_in(key, files)
    told = plan(other, folder)
    before = {p: p.read_bytes() for p in paid_for(folder)}
    results = (folder / "evaluation/results.json").read_text()
    own = done(other, folder, counts)
    assert own == expected
    assert promised(told) >= spent(own)
    assert {p: p.read_bytes() for p in before} == before, "nothing that was paid for is changed"
    trained = storage.read_json(folder / "evaluation/results.json")["trained"]
    assert trained == {m: f"{m}-2" if m in own[2] else m for m in other.methods}
    back = configuration(files)
    assert all(p.state == "reused" for p in plan(back, folder) if p.stage != "report")
    assert done(back, folder, counts)[:4] == NOTHING[:4]
    assert (folder / "evaluation/results.json").read_text() == results
    if key in ("seed", "calibration.samples", "evaluate.samples"):
        assert done(other, folder, counts)[:4] == NOTHING[:4]


def paid_for(folder):
    """The files of stores, designs and trainings."""
    parts = ("calibration*/**/*", "design*.json", "train/**/*")
    return [p for part in parts for p in folder.glob(part) if p.is_file() and p.name != ".lock"]


def spent(own):
    base, _, trained, evaluated, _ = own
    return base + sum(evaluated.values()) + len(trained)


def promised(plans):
    """What a plan says that a call will draw and train, at most."""
    drawn = sum(p.cost.responses for p in plans if p.stage != "train")
    return drawn + sum(p.state == "to run" for p in plans if p.stage == "train")


def test_a_path_says_nothing_and_its_content_all(files, finished, counts, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    moved = {"model": str(files / "copy"), "prompts__file": str(files / "same.jsonl")}
    again = done(configuration(files, **moved), tmp_path / "run", counts)
    assert again[:4] == NOTHING[:4]


def test_a_new_baseline_is_trained_alone(files, finished, counts, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    more = configuration(files, train__baselines=["rlhf", "likelihood", "identity"])
    expected = (0, False, {"identity"}, {"identity": EACH}, True)
    assert done(more, tmp_path / "run", counts) == expected


@pytest.mark.parametrize("noted", [False, True], ids=["now", "formerly noted"])
def test_another_transform_trains_no_method_that_does_not_read_it(
    noted, files, finished, counts, tmp_path
):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    more = {"train__baselines": ["rlhf", "likelihood", "identity"]}
    done(configuration(files, **more), folder, counts)
    if noted:  # former versions stated the design's transform for every method
        manifest = Manifest(folder)
        parts = manifest.listed(folder / "train/identity")
        read = {p: dict(manifest.made_from(p)) for p in parts}
        design = storage.read_json(folder / "design.json")
        formerly = {name: design[name] for name in ("transform", "beta")}
        manifest.restate({p: {**m, "design": m["design"] | formerly} for p, m in read.items()})
    plans = plan(configuration(files, **more), folder)
    assert all(p.state == "reused" for p in plans if p.stage != "report")
    other = configuration(files, **more, transform="exponential:3")
    assert done(other, folder, counts) == (0, True, ON_DESIGN, evaluated(ON_DESIGN), True)


def test_a_gold_reward_that_chooses_checkpoints_counts_by_its_content(
    files, finished, counts, tmp_path
):
    def choosing(name, reward):
        gold = {name: f"{files}/rewards.py:{reward}"}
        return configuration(files, train__select=f"gold:{name}", evaluate__gold=gold)

    shutil.copytree(finished, tmp_path / "run")
    assert done(choosing("human", "b"), tmp_path / "run", counts) == training(ON_POLICY)
    assert done(choosing("expert", "b"), tmp_path / "run", counts) == RESULTS
    again = {p.name for p in plan(choosing("human", "c"), tmp_path / "run") if p.state == "to run"}
    assert {f"train {m}" for m in METHODS} & again == {f"train {m}" for m in ON_POLICY}


def test_the_beta_of_the_kl_is_designed_again(files, finished, counts, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    by_beta = configuration(files, kl=None, beta=0.7)
    assert done(by_beta, tmp_path / "run", counts) == DESIGNED


def test_another_policy_of_an_evaluation_is_drawn_alone(files, finished, counts, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    more = configuration(files, evaluate__policies={"more": str(files / "other")})
    assert done(more, tmp_path / "run", counts) == (EACH, False, set(), {}, True)


def test_fewer_prompts_and_samples_need_nothing_drawn(files, finished, counts, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    fewer = configuration(
        files,
        prompts__limit=4,
        calibration__samples=3,
        evaluate__prompts__limit=2,
        evaluate__samples=3,
    )
    base, designed, trained, own, _ = done(fewer, tmp_path / "run", counts)
    assert (base, designed, trained) == (0, True, ALL)
    assert own == evaluated(ALL, "-2", 6)
    assert Run(fewer, tmp_path / "run").store_path.name == "calibration"
    assert done(configuration(files), tmp_path / "run", counts)[:4] == NOTHING[:4]


def test_several_attempts_are_numbered_and_each_is_found_again(files, finished, counts, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    rates = (1e-3, 2e-3, 3e-3)
    configs = [configuration(files, train__learning_rate=rate) for rate in rates]
    for number, config in enumerate(configs, 2):
        assert done(config, folder, counts)[3] == evaluated(ON_POLICY, f"-{number}")
    shutil.rmtree(folder / "train/rloo-2")  # a removed attempt is trained again, in its place
    own = done(configs[0], folder, counts)
    assert own[2] == {"rloo"} and (folder / "train/rloo-2/landing.json").exists()
    known = [load_config(p).model_dump() for p in sorted((folder / "configs").iterdir())]
    assert configuration(files).model_dump() in known and configs[1].model_dump() in known
    assert load_config(folder / "config.yaml").model_dump() == configs[0].model_dump()


def test_raised_samples_are_those_of_a_store_made_at_once(files, counts, tmp_path):
    few, many = (configuration(files, calibration__samples=k) for k in (K, 7))
    run(few, tmp_path / "grown", until="calibrate")
    counts.__init__()
    run(many, tmp_path / "grown", until="calibrate")
    assert counts.drawn == {"base": 3 * TRAINED}
    run(many, tmp_path / "whole", until="calibrate")
    grown, whole = tmp_path / "grown/calibration-2", tmp_path / "whole/calibration"
    assert {p.name: p.read_bytes() for p in grown.glob("*.parquet")} == {
        p.name: p.read_bytes() for p in whole.glob("*.parquet")
    }
    assert yaml.safe_load((grown / "manifest.json").read_text()) == yaml.safe_load(
        (whole / "manifest.json").read_text()
    )


@pytest.mark.parametrize("changed", [{}, {"train__learning_rate": 3e-5}], ids=str)
def test_a_folder_of_the_former_layout_is_used_as_any_other(
    files, finished, counts, tmp_path, changed
):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    former = as_before(folder)
    assert done(configuration(files, **changed), folder, counts)[:4] == (
        training(ON_POLICY)[:4] if changed else NOTHING[:4]
    )
    assert {p: p.read_bytes() for p in former} == former
    assert done(configuration(files), folder, counts)[:4] == NOTHING[:4]


def test_a_former_folder_whose_configuration_was_lost_keeps_its_results_unused(
    files, finished, counts, tmp_path
):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    former = as_before(folder)
    (folder / "config.yaml").unlink()
    assert done(configuration(files), folder, counts)[:3] == (0, True, ALL)
    assert {p: p.read_bytes() for p in former} == former
    assert (folder / "design-2.json").exists() and (folder / "train/rloo-2/model").exists()


def as_before(folder):
    """Make a run folder what a version wrote whose stages had read the whole configuration;
    returns the files that must stay."""
    manifest = Manifest(folder)
    stated = yaml.safe_load((folder / "config.yaml").read_text())
    mark = {"configuration": storage.fingerprint(stated)}
    calibration = {"calibration": storage.sha256(folder / "calibration/manifest.json")[:16]}
    design = {"design": storage.sha256(folder / "design.json")[:16]}
    listed = manifest.listed(folder)
    manifest.restate(
        {p: mark for p in listed if p.name in ("config.yaml", "provenance.json")}
        | {folder / "design.json": mark | calibration}
        | {p: mark | calibration | design for p in listed if folder / "train" in p.parents}
    )
    (folder / "current.json").unlink()
    manifest.forget(folder / "current.json")
    return {p: p.read_bytes() for p in paid_for(folder)}


def test_a_calibration_on_a_cluster_has_the_blocks_of_its_workers(files, tmp_path, monkeypatch):
    asked = []

    def block_of(*_, gpus, **__):
        asked.append(gpus)
        raise KeyboardInterrupt

    monkeypatch.setattr("infalign.pipeline.stages.block_of", block_of)
    monkeypatch.setattr("infalign.pipeline.stages.has_gpus", lambda: True)
    for engine in ("ray", "local"):
        with pytest.raises(KeyboardInterrupt):
            run(configuration(files, engine=engine), tmp_path / engine, until="calibrate")
    assert asked == [True, None]


def test_an_unfinished_calibration_goes_on_with_other_batches_and_says_so(
    files, counts, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("infalign.pipeline.stages.block_of", lambda *_, **__: K)

    def call(size, shards=None):
        config = configuration(files, sampling__batch_size=size)
        if shards is None:
            return run(config, tmp_path / "run", until="calibrate")
        with monkeypatch.context() as patched:
            add, left = StoreWriter.add, iter(range(shards))

            def interrupted(*arguments):
                if next(left, None) is None:
                    raise KeyboardInterrupt
                add(*arguments)

            patched.setattr(StoreWriter, "add", interrupted)
            with pytest.raises(KeyboardInterrupt):
                run(config, tmp_path / "run", until="calibrate")

    def sizes():
        manifest = json.loads((tmp_path / "run/calibration/manifest.json").read_text())
        return manifest["provenance"]["sampling"]["batch_size"]

    call(8, 2)
    assert sizes() == 8 and not caplog.messages
    call(2, 0)
    assert sizes() == 8, "nothing was drawn with the other size"
    call(2, 1)
    assert sizes() == [8, 2]
    assert any("`sampling.batch_size` 8, the rest gets 2" in m for m in caplog.messages)
    call(8)
    assert sizes() == [8, 2] and not (tmp_path / "run/calibration-2").exists()
    counts.drawn.clear()
    call(4)
    assert not counts.drawn and sizes() == [8, 2]
