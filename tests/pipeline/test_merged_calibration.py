"""A calibration that was collected in parts, or in another order, serves a run as its own does."""

import json
import shutil

import numpy as np
import pytest
from enumerable import EnumerableModel

from infalign import CalibrationStore
from infalign.config import parse_config
from infalign.pipeline.folder import Run
from infalign.pipeline.plan import plan
from infalign.pipeline.read import open_store
from infalign.pipeline.run import run
from infalign.pipeline.stages import stored_samples
from infalign.stores.merge import merge

pytestmark = pytest.mark.filterwarnings("ignore:Two reference samples:UserWarning")

WORDS = ("ab", "c", "cabba", "bcacb")


def count_a(prompts, completions, **columns):
    return [float(c[0]["content"].count("a")) for c in completions]


@pytest.fixture(scope="module")
def config_of(tmp_path_factory):
    """Configurations that differ in their prompts alone."""
    folder = tmp_path_factory.mktemp("model")
    model = EnumerableModel.make(folder / "model", seed=1).path

    def config(words):
        rows = [{"prompt_id": f"{word}!", "prompt": word} for word in words]
        path = folder / f"{'-'.join(words)}.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        return parse_config(
            {
                "model": str(model),
                "reward": f"python:{__name__}:count_a",
                "prompts": {"file": str(path)},
                "procedure": "best-of-n:2",
                "kl": 0.3,
                "sampling": {"max_new_tokens": 3, "batch_size": 8},
                "calibration": {"samples": 16},
                "train": {"batch_size": 4, "group": 2},
                "evaluate": {"prompts": {"file": "bundled:harmless", "limit": 4}},
            }
        )

    return config


@pytest.fixture(scope="module")
def folders(config_of, tmp_path_factory):
    """Runs of all prompts and of two halves, calibrated, and the halves' stores merged."""
    folder = tmp_path_factory.mktemp("runs")
    for name, words in (("all", WORDS), ("first", WORDS[:2]), ("second", WORDS[2:])):
        run(config_of(words), folder / name, until="calibrate")
    merge([folder / "second" / "calibration", folder / "first" / "calibration"], folder / "merged")
    return folder


def design(config, folder):
    run(config, folder, until="design")
    return json.loads((folder / "design.json").read_text())


def samples(config, folder):
    """What training is given, by prompt."""
    opened = Run(config, folder)
    stored = stored_samples(opened)
    assert stored.logprobs.shape == stored.rewards.shape == (4, 16)
    rows = zip(stored.responses, stored.logprobs.tolist(), stored.rewards.tolist(), strict=True)
    return dict(zip([p.id for p in opened.prompts], rows, strict=True))


@pytest.mark.parametrize("begun", [True, False])
def test_a_merged_store_serves_the_run_of_all_its_prompts(config_of, folders, tmp_path, begun):
    config = config_of(WORDS)
    if begun:  # the run's own store is replaced
        shutil.copytree(folders / "all", tmp_path / "run")
        shutil.rmtree(tmp_path / "run" / "calibration")
    shutil.copytree(folders / "merged", tmp_path / "run" / "calibration")
    found, own = design(config, tmp_path / "run"), design(config, folders / "all")
    assert found["calibrator"] == own["calibrator"] and found["transform"] == own["transform"]
    assert found["beta"] == own["beta"]
    given, expected = samples(config, tmp_path / "run"), samples(config, folders / "all")
    for prompt, (tokens, logprobs, rewards) in expected.items():
        assert given[prompt][0] == tokens and given[prompt][2] == rewards
        assert given[prompt][1] == pytest.approx(logprobs, abs=1e-4)  # other batches, other digits


def test_a_run_of_the_same_prompts_in_another_order_trains_on_the_same(
    config_of, folders, tmp_path
):
    config = config_of(WORDS[::-1])
    shutil.copytree(folders / "all" / "calibration", tmp_path / "run" / "calibration")
    design(config, tmp_path / "run")
    assert [p.id for p in Run(config, tmp_path / "run").prompts] == [f"{w}!" for w in WORDS[::-1]]
    given = samples(config, tmp_path / "run")
    assert given == samples(config_of(WORDS), folders / "all")
    assert len({np.mean(rewards) for _, _, rewards in given.values()}) > 1


@pytest.mark.parametrize(("words", "new"), [(WORDS[:3], 0), ((*WORDS[:3], "bcac"), 1)])
def test_a_store_of_other_prompts_lends_those_that_are_asked_for(
    config_of, folders, tmp_path, words, new
):
    shutil.copytree(folders / "merged", tmp_path / "run" / "calibration")
    config = config_of(words)
    (own,) = plan(config, tmp_path / "run", until="calibrate")
    assert own.cost.responses == 16 * new and own.state == ("extended" if new else "reused")
    run(config, tmp_path / "run", until="calibrate")
    opened = Run(config, tmp_path / "run")
    assert opened.store_path.name == ("calibration-2" if new else "calibration")
    given, expected = open_store(opened), CalibrationStore.open(folders / "merged")
    assert set(given.rewards) == {f"{word}!" for word in words}
    for word in WORDS[:3]:
        assert given.rewards[f"{word}!"].tolist() == expected.rewards[f"{word}!"].tolist()
