"""The pairs of each task: both halves, no prompt in both, the judge's choice first."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

POSTS = [
    ("Post one TL;DR:", "person one", "model one", "ours"),
    ("Post two TL;DR:", "person two", "model two", "reference"),
    ("Post three TL;DR:", "person three", "model three", None),
]


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "preferences"
    folder.mkdir()
    names = ("prompt", "reference", "response", "preferred")
    columns = dict(zip(names, map(list, zip(*POSTS, strict=True)), strict=True))
    pq.write_table(pa.table(columns), folder / "tldr_oai1b_judged.parquet")
    rows = {
        "prompt": [f"\n\nHuman: question {i}\n\nAssistant:" for i in range(40)],
        "chosen": ["good"] * 40,
        "rejected": ["bad"] * 40,
    }
    pq.write_table(pa.table(rows), folder / "hh_helpful_base_test.parquet")
    return tmp_path


def test_the_judge_decides_and_an_unjudged_post_prefers_its_own_summary(data):
    from preferences import SUMMARIZE, load_task

    pairs = load_task("tldr", data)
    assert [(p.chosen, p.rejected) for p in pairs] == [
        ("model one", "person one"),
        ("person two", "model two"),
        ("person three", "person one"),
    ]
    assert pairs[0].turns == (SUMMARIZE + "Post one",)
    assert load_task("tldr", data, judged=True) == pairs[:2]


def test_halves_share_no_prompt_and_together_are_all(data):
    from preferences import half_of, load_task

    pairs = load_task("helpful", data)
    halves = {h: {p.turns[0] for p in pairs if half_of(p) == h} for h in "ab"}
    assert halves["a"] and halves["b"] and not halves["a"] & halves["b"]
    assert len(halves["a"]) + len(halves["b"]) == 40


def test_buckets_that_the_bundled_rewards_have_not_seen_are_in_half_b():
    from preferences import HALVES

    assert {0, 1} <= set(HALVES["b"])
