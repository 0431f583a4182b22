"""The prompts of a run: a test split is made where there is none, and stays when rows are added."""

import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infalign import DataError
from infalign.config import parse_config
from infalign.prompts import run_prompts


def config(path, evaluate=None, **prompts):
    given = {"model": "m", "reward": "r", "kl": 0.5, "prompts": {"file": str(path), **prompts}}
    return parse_config(given | ({"evaluate": {"prompts": evaluate}} if evaluate else {}))


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def questions(numbers, **more):
    return [{"prompt": f"Question {i}?", **more} for i in numbers]


def sides(run):
    return {p.id for p in run.train}, {p.id for p in run.test}


@pytest.mark.parametrize("more", [{}, {"split": None}, {"split": "train"}])
def test_part_of_the_prompts_is_held_out_and_it_is_said(tmp_path, caplog, more):
    caplog.set_level(logging.INFO)
    run = run_prompts(config(write(tmp_path / "a.jsonl", questions(range(300), **more))))
    train, test = sides(run)
    assert not train & test and len(train | test) == 300 and 15 < len(test) < 50
    assert f"there is no split 'test', so {len(test)} of 300" in caplog.text


@settings(max_examples=20)
@given(st.sets(st.integers(0, 300), min_size=60), st.floats(0.1, 0.5))
def test_prompts_stay_on_their_side_when_rows_are_added_or_moved(tmp_path_factory, numbers, share):
    folder = tmp_path_factory.mktemp("sides")
    known = sides(run_prompts(config(write(folder / "a.jsonl", questions(numbers)))))
    more = [*questions(range(300, 420)), *questions(sorted(numbers, reverse=True))]
    grown = sides(run_prompts(config(write(folder / "b.jsonl", more))))
    assert known[0] <= grown[0] and known[1] <= grown[1]
    # A larger share holds out more prompts, and none less.
    wider = sides(run_prompts(config(folder / "b.jsonl", test_fraction=share)))
    assert grown[1] <= wider[1]


def test_repeated_prompts_are_on_one_side(tmp_path):
    rows = questions([*range(50), *range(50)])
    run = run_prompts(config(write(tmp_path / "a.jsonl", rows), test_fraction=0.4))
    assert not {p.text for p in run.train} & {p.text for p in run.test}
    assert len(run.train) + len(run.test) == 100


def test_limits_apply_to_each_side(tmp_path):
    path = write(tmp_path / "a.jsonl", questions(range(300)))
    whole = run_prompts(config(path, test_fraction=0.3))
    run = run_prompts(config(path, {"limit": 7}, test_fraction=0.3, limit=40))
    assert run.train == whole.train[:40] and run.test == whole.test[:7]


def test_splits_that_exist_are_used_as_they_are(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    rows = [*questions(range(9), split="train"), *questions(range(20, 24), split="test")]
    run = run_prompts(config(write(tmp_path / "a.jsonl", rows)))
    assert len(run.train) == 9 and len(run.test) == 4 and "held out" not in caplog.text
    other = write(tmp_path / "b.jsonl", questions(range(30, 35)))
    run = run_prompts(config(tmp_path / "a.jsonl", {"file": str(other)}))
    assert len(run.train) == 9 and len(run.test) == 5 and "held out" not in caplog.text


def test_part_of_a_split_is_held_out_if_both_have_its_name(tmp_path):
    rows = [*questions(range(90), split="train"), *questions(range(90, 95), split="valid")]
    run = run_prompts(config(write(tmp_path / "a.jsonl", rows), {"split": "train"}))
    assert len(run.train) + len(run.test) == 90


REFUSED = {
    "other splits": (questions([1], split="train") + questions([2], split="valid"), {},
                     r"no split 'test' for evaluation; its splits are train .1., valid .1.. Name"),
    "a name of its own": (questions(range(90)), {"split": "tets"}, "no split 'tets' for evalu"),
    "one prompt": (questions([1]), {}, "leaves none to .* Add prompts, or name other prompts"),
    "one prompt twice": (questions([1, 1]), {}, "of its 2 prompts leaves none to"),
    "no training prompts": (questions([1], split="test"), {}, "holds no prompts with split 'tr"),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "evaluate", "words"), REFUSED.values(), ids=REFUSED)
def test_prompts_that_cannot_be_divided_are_refused(tmp_path, rows, evaluate, words):
    run = run_prompts(config(write(tmp_path / "rows.jsonl", rows), evaluate))
    with pytest.raises(DataError, match=f"rows.jsonl .*{words}"):
        _ = run.train
    with pytest.raises(DataError, match=r"rows\.jsonl "):
        _ = run.test


@pytest.mark.parametrize("count", [2, 5, 12])
def test_the_share_that_is_advised_works(tmp_path, count):
    path = write(tmp_path / "a.jsonl", questions(range(count)))
    with pytest.raises(
        DataError, match=r"leaves none to evaluate on\. Set `prompts.test_frac"
    ) as e:
        _ = run_prompts(config(path, test_fraction=1e-6)).test
    share = float(str(e.value).partition("`prompts.test_fraction` to ")[2].partition(",")[0])
    run = run_prompts(config(path, test_fraction=share))
    assert run.train and run.test


def test_held_out_prompts_are_read_as_the_training_prompts_are(tmp_path):
    rows = [*questions(range(3), split="train"), *questions(range(3, 5), split="test")]
    rows = [{"split": row["split"], "ask": row["prompt"], "key": row["prompt"]} for row in rows]
    path = write(tmp_path / "a.jsonl", rows)
    run = run_prompts(config(path, column="ask", id_column="key", system="Be kind."))
    assert [p.id for p in run.test] == ["Question 3?", "Question 4?"]
    assert run.test[0].messages[0]["content"] == "Be kind."
    other = write(tmp_path / "b.jsonl", questions([9]))
    run = run_prompts(
        config(path, {"file": str(other)}, column="ask", id_column="key", system="Be kind.")
    )
    assert [m["content"] for m in run.test[0].messages] == ["Be kind.", "Question 9?"]


def test_a_file_is_looked_for_beside_the_configuration_first(tmp_path, monkeypatch):
    from infalign.config import load_config

    (tmp_path / "here").mkdir(), (tmp_path / "there").mkdir()
    write(tmp_path / "here/a.jsonl", questions(range(40)))
    write(tmp_path / "here/b.jsonl", questions(range(40, 80)))
    write(tmp_path / "there/a.jsonl", questions(range(80, 120)))
    monkeypatch.chdir(tmp_path / "here")
    for name, first in (("a.jsonl", 80), ("b.jsonl", 40)):
        file = tmp_path / "there/config.yaml"
        file.write_text(f"{{model: m, reward: r, kl: 0.5, prompts: {{file: {name}}}}}")
        run = run_prompts(load_config(file))
        texts = {p.text for p in [*run.train, *run.test]}
        assert texts == {f"Question {i}?" for i in range(first, first + 40)}
