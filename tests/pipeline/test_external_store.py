"""`calibration.store` uses a store from anywhere that fits, and names each way in which it does
not."""

import json
import shutil

import pytest
from test_inputs import HELD_OUT, TRAINED, K, M, configuration, counting, files  # noqa: F401

from infalign import CalibrationStore, DataError
from infalign.pipeline.folder import Run
from infalign.pipeline.plan import plan
from infalign.pipeline.read import open_store, run_samples
from infalign.pipeline.run import run
from infalign.stores.exchange import export_rewards, import_rewards

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def counts(monkeypatch):
    return counting(monkeypatch)


@pytest.fixture(scope="module")
def first(files, tmp_path_factory):  # noqa: F811
    """The store of another run."""
    folder = tmp_path_factory.mktemp("first") / "run"
    with pytest.MonkeyPatch.context() as patched:
        counting(patched)
        run(configuration(files), folder, until="calibrate")
    return folder / "calibration"


def content(store):
    return {p.name: p.read_bytes() for p in store.iterdir()}


def using(files, store, **changed):  # noqa: F811
    return configuration(files, calibration__store=str(store), **changed)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"seed": 5},
        {"sampling__batch_size": 2},
        {"prompts__limit": 4},
        {"calibration__samples": 3},
        {"prompts__limit": 3, "calibration__samples": 2},
        {"kl": 0.2, "procedure": "best-of-n:3"},
    ],
    ids=str,
)
def test_a_store_that_fits_is_read_in_place(files, first, counts, tmp_path, changed):  # noqa: F811
    before = content(first)
    config = using(files, first, **changed)
    assert [p.state for p in plan(config, tmp_path / "run", until="calibrate")] == ["reused"]
    run(config, tmp_path / "run")
    assert counts.drawn["base"] == HELD_OUT * M, "of the evaluation alone"
    assert content(first) == before and not list((tmp_path / "run").glob("calibration*"))
    opened = Run(config, tmp_path / "run")
    assert opened.store_path == first
    store, whole = open_store(opened), CalibrationStore.open(first)
    prompts, samples = (
        changed.get("prompts__limit", TRAINED),
        changed.get("calibration__samples", K),
    )
    assert len(store.rewards) == prompts and store.samples == samples
    rows = run_samples(opened, ["reward", "sample"])
    assert rows.matrix("sample").tolist() == [list(range(samples))] * prompts
    for prompt_id, rewards in zip(rows.prompt_ids, rows.rows("reward"), strict=True):
        assert sorted(rewards) == store.rewards[prompt_id].tolist()
        if samples == K:
            assert sorted(rewards) == whole.rewards[prompt_id].tolist()


MISFITS = {
    "model": ({"model": "other"}, ["model '", "weights or"], False),
    "reward": ({"reward": "rewards.py:b"}, ["reward '"], False),
    "temperature": ({"sampling__temperature": 0.5}, ["sampling.temperature 1.0, not 0.5"], False),
    "length": ({"sampling__max_new_tokens": 9}, ["sampling.max_new_tokens 6, not 9"], False),
    "strip": ({"sampling__strip": True}, ["sampling.strip False, not True"], False),
    "two settings": (
        {"sampling__strip": True, "sampling__temperature": 0.5},
        ["sampling.strip False, not True", "sampling.temperature 1.0, not 0.5"],
        False,
    ),
    "new prompts": (
        {"prompts__limit": 6},
        ["1 of 6 prompts are not in it ('p5')", "draws the 4 missing responses"],
        K,
    ),
    "other messages": (
        {"prompts__file": "edited.jsonl"},
        ["1 of 5 prompts have other messages in it", "('p0')", "draws the 4 missing"],
        K,
    ),
    "few samples": (
        {"calibration__samples": 6},
        [
            "5 prompts have 4 samples of 6 ('p0', 'p1', 'p2', …)",
            "`calibration.samples: 4`",
            "draws the 10 missing responses",
        ],
        2 * TRAINED,
    ),
    "prompts and samples": (
        {"prompts__limit": 6, "calibration__samples": 5},
        ["1 of 6 prompts are not in it", "5 prompts have 4 samples of 5", "draws the 10 missing"],
        10,
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_each_misfit_is_named_before_anything_is_drawn(
    files,  # noqa: F811
    first,
    counts,
    tmp_path,
    name,
):
    changed, words, extended = MISFITS[name]
    paths = ("model", "reward", "prompts__file")
    changed = {k: str(files / v) if k in paths else v for k, v in changed.items()}
    before, config = content(first), using(files, first, **changed)
    with pytest.raises(DataError) as caught:
        run(config, tmp_path / "run", until="calibrate")
    assert str(first) in str(caught.value) and "`calibration.store`" in str(caught.value)
    for word in words if name != "model" else words[:1]:
        assert word in str(caught.value)
    assert not (tmp_path / "run").exists() and counts.drawn["base"] == 0
    config = using(files, first, calibration__extend=True, **changed)
    if extended is False:
        with pytest.raises(DataError, match="does not fit this run"):
            run(config, tmp_path / "run", until="calibrate")
        assert counts.drawn["base"] == 0
    else:
        (own,) = plan(config, tmp_path / "run", until="calibrate")
        assert (own.state, own.cost.responses) == ("extended", extended)
        run(config, tmp_path / "run", until="calibrate")
        assert counts.drawn["base"] == extended
        alone = {k: v for k, v in changed.items()}
        run(configuration(files, **alone), tmp_path / "alone", until="calibrate")
        ours = CalibrationStore.open(tmp_path / "run/calibration")
        theirs = CalibrationStore.open(tmp_path / "alone/calibration")
        assert {i: r.tolist() for i, r in ours.rewards.items()} == {
            i: r.tolist() for i, r in theirs.rewards.items()
        }
    assert content(first) == before


def test_a_folder_without_a_store_is_named(files, counts, tmp_path):  # noqa: F811
    with pytest.raises(DataError, match=r"`calibration\.store` is .*holds no calibration store"):
        run(using(files, tmp_path), tmp_path / "run", until="calibrate")


def test_an_interrupted_store_says_so(files, first, counts, tmp_path):  # noqa: F811
    from infalign import storage

    shutil.copytree(first, tmp_path / "store")
    manifest = json.loads((tmp_path / "store/manifest.json").read_text())
    manifest.pop("checksum")
    manifest["prompts"] += 1
    manifest |= {"checksum": storage.fingerprint(manifest)}
    storage.write_json(tmp_path / "store/manifest.json", manifest)
    with pytest.raises(DataError, match="its collection is unfinished"):
        run(using(files, tmp_path / "store"), tmp_path / "run", until="calibrate")


def test_a_store_of_rewards_alone_serves_its_own_prompts(files, first, counts, tmp_path):  # noqa: F811
    export_rewards(first, tmp_path / "rewards.parquet")
    import_rewards(tmp_path / "rewards.parquet", tmp_path / "store")
    run(using(files, tmp_path / "store"), tmp_path / "run", until="design")
    assert counts.drawn["base"] == 0
    for changed in ({"prompts__limit": 4}, {"calibration__samples": 3}, {"prompts__limit": 6}):
        config = using(files, tmp_path / "store", calibration__extend=True, **changed)
        with pytest.raises(DataError, match="holds rewards only, so it serves just its own"):
            run(config, tmp_path / "other", until="calibrate")


def test_an_edited_column_is_scored_again_without_drawing(files, counts, tmp_path):  # noqa: F811
    (tmp_path / "graded.py").write_text(
        "def score(prompts, completions, answer, **columns):\n"
        "    return [float(c.count(a)) + 0.001 * len(c) for c, a in zip(completions, answer)]\n"
    )

    def write(answers):
        rows = [
            {"prompt_id": f"q{i}", "prompt": "ab" + "a" * i, "answer": a}
            for i, a in enumerate(answers)
        ]
        (tmp_path / "graded.jsonl").write_text("\n".join(map(json.dumps, rows)))

    changed = {
        "reward": f"{tmp_path}/graded.py:score",
        "prompts": {"file": str(tmp_path / "graded.jsonl")},
        "evaluate__prompts__file": str(files / "held.jsonl"),
    }
    config = configuration(files, **changed)
    write("aabb")
    run(config, tmp_path / "run", until="calibrate")
    before = CalibrationStore.open(tmp_path / "run/calibration")
    counts.__init__()
    write("abbb")
    (own,) = plan(config, tmp_path / "run", until="calibrate")
    assert (own.cost.responses, own.cost.scored) == (0, K)
    run(config, tmp_path / "run", until="calibrate")
    after = open_store(Run(config, tmp_path / "run"))
    assert counts.drawn["base"] == 0
    same = {i: after.rewards[i].tolist() == before.rewards[i].tolist() for i in before.rewards}
    assert same == {"q0": True, "q1": False, "q2": True, "q3": True}
