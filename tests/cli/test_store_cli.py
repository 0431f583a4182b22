"""`infalign store` as a user types it."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infalign.stores import StoreWriter


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    with StoreWriter(tmp_path / "store", {"reward": "mine"}, 60) as out:
        for start in (0, 30):
            ids = [f"p{i}" for i in range(start, start + 30)]
            out.add(ids, [["text"] * 8] * 30, rng.normal(size=(30, 8)))
    return tmp_path / "store"


def test_show_says_what_it_is(cli, folder):
    code, out, _ = cli("store", "show", folder)
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 0 and lines[:2] == [
        "holds 60 prompts, 8 samples each, with texts",
        "state finished",
    ]
    assert lines[-2:] == ["made with", "reward mine"]
    found = json.loads(cli("store", "show", folder, "--json")[1])
    assert found["provenance"] == {"reward": "mine"} and found["shards"] == 4
    assert set(found["packages"]) >= {"python", "infalign", "numpy", "pyarrow", "torch"}


def test_show_has_a_line_for_every_entry_of_the_provenance(cli, tmp_path):
    made_with = {"sampling": {"top_p": 0.9, "stop": []}, "model": "[bold]", "seed": 3}
    with StoreWriter(tmp_path / "store", made_with, 5) as out:
        out.add(["a", "b"], None, [[1.0], [2.0, 3.0]])
    code, out, _ = cli("store", "show", tmp_path / "store")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 0 and lines[:2] == [
        "holds 2 prompts, 1.5 samples each, rewards only",
        "state unfinished, of 5 prompts",
    ]
    after = lines[lines.index("made with") + 1 :]
    assert after == ["model [bold]", "sampling.top_p 0.9", "sampling.stop []", "seed 3"]


def test_show_shortens_fingerprints_for_people_only(cli, tmp_path):
    digest = "0123456789abcdef" * 4
    with StoreWriter(tmp_path / "store", {"x": 1, "reward": f"r@{digest}"}, 1) as out:
        out.add(["a"], None, [[1.0]])
    lines = [
        " ".join(line.split()) for line in cli("store", "show", tmp_path / "store")[1].splitlines()
    ]
    assert lines[lines.index("made with") + 1 :] == ["reward r@0123456789ab…", "x 1"]
    found = json.loads(cli("store", "show", tmp_path / "store", "--json")[1])
    assert found["provenance"]["reward"] == f"r@{digest}"


def test_check_of_a_sound_store_finds_nothing(cli, folder):
    code, out, _ = cli("store", "check", folder, "--procedure", "best-of-n:2")
    assert code == 0 and "all as written" in out and "no change during collection" in out
    assert "K = 8 is enough for best-of-n:2 at 0.5 nats" in out and "with pooled the" in out
    assert "Calibrator pooled: it predicts held-out samples of 60 prompts" in out
    found = json.loads(cli("store", "check", folder, "--json")[1])
    assert found["ties"] == 0 and found["p_shift"] >= 0.01


def test_a_reward_that_changed_while_collecting_is_found(cli, tmp_path):
    rng = np.random.default_rng(1)
    rewards = rng.normal(size=(200, 8))
    rewards[:, 4:] += 0.5  # another reward for the later samples of every prompt
    with StoreWriter(tmp_path / "store", {}, 200) as out:
        out.add([f"p{i}" for i in range(200)], [["text"] * 8] * 200, rewards)
    code, out, _ = cli("store", "check", tmp_path / "store")
    assert code == 0 and "changed during collection" in out and "p = 0.001" in out


def reward_by_length(prompts, completions, **columns):
    return [float(len(c[0]["content"])) for c in completions]


def reward_by_first_letter(prompts, completions, **columns):
    return [float(ord(c[0]["content"][0])) for c in completions]


@pytest.fixture
def scored_run(tmp_path):
    """A run folder as calibration leaves it, its reward the length of a response."""
    rng = np.random.default_rng(2)
    texts = [[chr(97 + int(rng.integers(26))) * int(n) for n in rng.integers(1, 30, 6)]
             for _ in range(20)]  # fmt: skip
    with StoreWriter(tmp_path / "run" / "calibration", {}, 20) as out:
        for start in (0, 10):
            rows = texts[start : start + 10]
            rewards = [[float(len(t)) for t in row] for row in rows]
            out.add([f"p{i}" for i in range(start, start + 10)], rows, rewards)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        "".join(json.dumps({"prompt_id": f"p{i}", "prompt": f"Say {i}"}) + "\n" for i in range(20))
    )
    config = {"model": "none", "kl": 0.5, "prompts": {"file": str(prompts)}}

    def write(reward):
        config["reward"] = f"python:{__name__}:{reward.__name__}"
        (tmp_path / "run" / "config.yaml").write_text(json.dumps(config))
        return tmp_path / "run" / "calibration"

    return write


def test_a_sample_scored_again_tells_whether_the_reward_is_the_same(cli, scored_run):
    folder = scored_run(reward_by_length)
    code, out, _ = cli("store", "check", folder, "--rescore", "12")
    assert code == 0 and "72 responses scored again: 0.0% changed" in out
    assert "the reward is the same" in out
    scored_run(reward_by_first_letter)
    code, out, _ = cli("store", "check", folder, "--rescore", "50", "--json")
    found = json.loads(out)
    assert code == 1 and found["rescored"] == 120
    assert found["changed"] > 0.9 and 0.3 < found["swapped"] < 0.7


def test_scoring_again_needs_the_prompts_and_says_so(cli, scored_run, folder, tmp_path):
    code, _, err = cli("store", "check", folder, "--rescore", "2")
    assert code == 1 and "config.yaml does not exist" in err and "--config" in err
    config = scored_run(reward_by_length).parent / "config.yaml"
    code, _, err = cli("store", "check", folder, "--rescore", "60", "--config", config)
    assert code == 1 and "is not among the 20 prompts given" in " ".join(err.split())


def test_a_damaged_store_fails_with_one_message(cli, folder):
    file = next(folder.glob("rewards-*.parquet"))
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)
    code, out, err = cli("store", "check", folder)
    assert code == 1 and file.name in err and "Traceback" not in err and out == ""


def test_no_store_is_one_message(cli, tmp_path):
    code, _, err = cli("store", "show", tmp_path)
    assert code == 1 and "manifest.json" in err


# --- Merge, export, import. ---


def test_stores_become_one_and_tables_and_stores_again(cli, folder, tmp_path):
    other = tmp_path / "other"
    with StoreWriter(other, {"reward": "mine"}, 1) as out:
        out.add(["x"], [["text"] * 8], [list(range(8))])
    merged, table, back = tmp_path / "merged", tmp_path / "rewards.parquet", tmp_path / "back"
    code, out, err = cli("store", "merge", folder, other, "--out", merged)
    assert (code, err) == (0, "") and out == f"{merged}: 61 prompts, 8 samples each, with texts\n"
    code, out, _ = cli("store", "export", merged, "--out", table, "--rewards", "r")
    assert code == 0 and pq.read_schema(table).names == ["prompt_id", "r"]
    code, out, _ = cli("store", "import", table, "--out", back, "--rewards", "r")
    assert code == 0 and out == f"{back}: 61 prompts, 8 samples each, rewards only\n"
    assert json.loads(cli("store", "show", back, "--json")[1])["provenance"] == {"reward": "mine"}
    code, out, _ = cli("store", "export", merged, "--samples", "--out", tmp_path / "samples")
    assert code == 0 and len(pq.read_table(tmp_path / "samples")) == 61 * 8


def test_what_rewards_were_made_with_can_be_said(cli, folder, tmp_path):
    table, out = tmp_path / "t.parquet", tmp_path / "s"
    pq.write_table(pa.table({"prompt_id": ["a"], "reference_rewards": [[1.0, 2.0]]}), table)
    stated = ["--provenance", "model=a=b", "--provenance", "reward=c"]
    assert cli("store", "import", table, "--out", out, *stated)[0] == 0
    found = json.loads(cli("store", "show", out, "--json")[1])
    assert found["provenance"] == {"model": "a=b", "reward": "c"}
    code, _, err = cli("store", "import", table, "--out", tmp_path / "n", "--provenance", "model")
    assert code == 2 and "NAME=VALUE; got 'model'" in " ".join(err.split())


def test_a_store_that_cannot_be_merged_is_one_message(cli, folder, tmp_path):
    code, out, err = cli("store", "merge", folder, folder, "--out", tmp_path / "out")
    assert code == 1 and "'p0' is in" in err and out == "" and "Traceback" not in err
    code, _, err = cli("store", "merge", folder, "--out", tmp_path / "out")
    assert code == 1 and "two or more" in err
