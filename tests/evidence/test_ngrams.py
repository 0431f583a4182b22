"""The gold reward of words: it is the optimum of its loss, and knows its own weights."""

import runpy

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest


def test_the_weights_are_where_the_penalized_loss_is_flat():
    from ngram_reward import rows
    from ngrams import learned
    from preferences import Pair

    rng = np.random.default_rng(0)
    words = ["alpha", "beta", "gamma", "delta"]
    texts = [" ".join(rng.choice(words, 3)) for _ in range(60)]
    pairs = [Pair(("q",), a, b) for a, b in zip(texts[::2], texts[1::2], strict=True)]
    weights = learned(pairs)
    by = rows([p.chosen for p in pairs]) - rows([p.rejected for p in pairs])
    assert by.T @ (1 / (1 + np.exp(by @ weights))) == pytest.approx(weights, abs=1e-3)
    assert np.abs(weights).max() > 0.1


def test_the_reward_that_is_written_scores_and_refuses_other_weights(tmp_path):
    from ngrams import main
    from preferences import load_task

    (tmp_path / "preferences").mkdir()
    table = {
        "prompt": [f"\n\nHuman: question {i}\n\nAssistant:" for i in range(40)],
        "chosen": [f"good answer {i}" for i in range(40)],
        "rejected": [f"bad answer {i}" for i in range(40)],
    }
    pq.write_table(pa.table(table), tmp_path / "preferences" / "hh_helpful_base_test.parquet")
    assert len(load_task("helpful", tmp_path)) == 40
    main("helpful", tmp_path / "rewards", data=tmp_path)
    folder = tmp_path / "rewards" / "helpful-ngrams"
    score = runpy.run_path(str(folder / "reward.py"))["score"]
    good, bad, chat = score(["good one", "bad one", [{"content": "good one"}]])
    assert good == chat > bad
    np.save(folder / "weights.npy", np.load(folder / "weights.npy") + 1)
    with pytest.raises(ValueError, match="SHA-256"):
        runpy.run_path(str(folder / "reward.py"))["score"](["good one"])
