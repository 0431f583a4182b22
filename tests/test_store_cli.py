"""`infalign store` as a user types it."""

import json

import numpy as np
import pytest

from infalign.calibration.store import StoreWriter


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
    assert code == 0 and "60 prompts (finished), 8 samples each" in out and "reward: mine" in out
    code, out, _ = cli("store", "show", folder, "--json")
    assert json.loads(out)["provenance"] == {"reward": "mine"}


def test_check_of_a_sound_store_finds_nothing(cli, folder):
    code, out, _ = cli("store", "check", folder, "--procedure", "best-of-n:2")
    assert code == 0 and "all as written" in out and "nothing changed" in out
    assert "K = 8 costs" in out and "comes within a point" in out
    found = json.loads(cli("store", "check", folder, "--json")[1])
    assert found["ties"] == 0 and found["p_shift"] >= 0.01


def test_a_reward_that_changed_while_collecting_is_found(cli, tmp_path):
    rng = np.random.default_rng(1)
    rewards = rng.normal(size=(200, 8))
    rewards[:, 4:] += 0.5  # another reward for the later samples of every prompt
    with StoreWriter(tmp_path / "store", {}, 200) as out:
        out.add([f"p{i}" for i in range(200)], [["text"] * 8] * 200, rewards)
    code, out, _ = cli("store", "check", tmp_path / "store")
    assert code == 0 and "changed while it was collected" in out and "p = 0.001" in out


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
