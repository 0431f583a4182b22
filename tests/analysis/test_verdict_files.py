"""Verdicts of judges are read from the files that people have, with their sides and orders."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infalign.analysis import join_verdicts, judge, read_verdicts
from infalign.analysis.judgment_tables import judgment_json, judgment_tables
from infalign.errors import ArgumentError, DataError
from infalign.evaluation.judging import judge_win_rate

nan = float("nan")


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(tmp_path, rows, name="judged.jsonl", **more):
    return read_verdicts(lines(tmp_path / name, rows), **more)


ARENA = [
    {"question_id": 1, "model_a": "new", "model_b": "old", "winner": "model_a", "judge": "j"},
    {"question_id": 1, "model_a": "old", "model_b": "new", "winner": "model_a", "judge": "j"},
    {"question_id": 2, "model_a": "new", "model_b": "old", "winner": "tie (bothbad)", "judge": "h"},
    {"question_id": 3, "model_a": "old", "model_b": "other", "winner": "other", "judge": "k"},
]


def test_a_table_of_winners_says_who_was_shown_first(tmp_path):
    own = read(tmp_path, ARENA)
    assert own.outcomes.tolist() == [1, 1, 0.5, 0] and own.ordered.all()
    assert own.first == ("new", "old", "new", "old") and own.prompts == ("1", "1", "2", "3")
    result = judge(own)  # the only policy of every verdict is the reference
    assert result.reference == "old" and set(result.panels) == {"new", "other"}
    panel = result.panels["new"]
    assert panel.win_rate.value == 0.5 and panel.judges[0].position_bias.value == 0.5
    assert panel.both_orders == 0.5 and panel.length is None
    assert result.panels["other"].win_rate.value == 1
    swapped = judge(own, reference="new")
    assert swapped.unused == 1 and list(swapped.panels) == ["old"]


def test_two_games_exchange_the_sides(tmp_path):
    # MT-bench names winners by column in both games: first `a` wins both times.
    row = {"question_id": 81, "model_1": "a", "model_2": "b", "judge": ["gpt-4", "pair-v2"]}
    rows = [
        row | {"g1_winner": "model_1", "g2_winner": "model_1", "turn": 1},
        row | {"g1_winner": "model_1", "g2_winner": "model_2", "turn": 2},
        row | {"g1_winner": "tie", "g2_winner": "error", "turn": 1, "question_id": 82},
    ]
    own = read(tmp_path, rows)
    np.testing.assert_array_equal(own.outcomes, [1, 0, 1, 1, 0.5, nan])
    with pytest.raises(
        DataError, match=r"1 of 6 answers .* invalid.*'gpt-4'.*'82'.*--drop missing"
    ):
        judge(own, reference="b")
    panel = judge(own, reference="b", drop=True).panels["a"]
    # Of question 82 one order is left, which would carry the judge's position bias.
    assert panel.win_rate.per_prompt == pytest.approx([(1 + 0.5) / 2]) and panel.excluded == 1
    assert panel.judges[0].invalid == 1 and panel.if_invalid[0] < panel.win_rate.value
    assert panel.judges[0].consistency.value == 0.5


def in_orders(prompts, orders, **more):
    """Verdicts of a judge who prefers the first place, in each order of each prompt."""
    sides = {"new first": ("new", "base"), "base first": ("base", "new")}
    names = ("prompt_id", "model_a", "model_b", "winner")
    return [
        dict(zip(names, (i, *sides[order], "A"), strict=True)) | more
        for i in prompts
        for order in orders
    ]


def test_pairs_without_a_row_for_the_other_order_are_refused_or_counted(tmp_path):
    rows = in_orders(range(10), sides := ["new first", "base first"])
    rows += in_orders(range(10, 20), sides[:1])
    own = read(tmp_path, rows)
    with pytest.raises(
        DataError,
        match=r"'judge' .* one order only on 10 of 20 pairs of 'new' and 'base', first on prompt "
        r"'10',.*other order too,.*--drop missing \(`drop=True`\)",
    ):
        judge(own, reference="base")
    result = judge(own, reference="base", drop=True)
    panel = result.panels["new"]
    assert panel.win_rate.value == 0.5 and (panel.pairs, panel.excluded) == (10, 10)
    first, second = judgment_tables(result)
    assert first.rows[0][first.head.index("invalid or absent")] == "10 (50.0–75.0)"
    assert second.rows[0][second.head.index("one order only")] == "10"
    assert judgment_json(result)["policies"][0]["judges"][0]["one_order"] == 10
    assert result._columns()["one_order"] == [10]


def test_a_judge_of_one_order_a_pair_is_allowed_with_a_note(tmp_path):
    rows = in_orders(range(15), ["new first"]) + in_orders(range(15, 20), ["base first"])
    result = judge(read(tmp_path, rows), reference="base")
    assert result.panels["new"].win_rate.value == 0.75
    (note,) = result.notes[1:]
    assert "no pair of new and base was judged in both orders" in note
    assert "new was shown first in 15 of 20 verdicts" in note
    rows += in_orders(["more"], ["new first", "base first"], judge="other")
    assert len(judge(read(tmp_path, rows), reference="base").notes) == 1


def test_games_of_arena_hard_show_the_reference_first(tmp_path):
    games = [{"score": "A>>B"}, {"score": "B>A"}]
    own = read(tmp_path, [{"question_id": "x", "model": "m", "judge": "j", "games": games}])
    assert judge(own).reference == "reference" and judge(own).panels["m"].win_rate.value == 0
    games = [{"score": "B>A"}, {"score": "A=B"}]
    rows = [{"question_id": "x", "model": "m", "judge": "j", "games": games}]
    own = read(tmp_path, rows, reference="gpt-4")
    assert judge(own).reference == "gpt-4" and judge(own).panels["m"].win_rate.value == 0.75


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "parquet"])
def test_annotations_of_alpaca_eval_have_lengths_and_an_unknown_order(tmp_path, form):
    rows = [
        {
            "instruction": f"q{i}",
            "output_1": "x" * 10,
            "output_2": "y" * (8 + i),
            "generator_1": "base",
            "generator_2": "new",
            "annotator": "gpt",
            "preference": preference,
        }
        for i, preference in enumerate((1.9, 1.0, 1.5, 0.0))
    ]
    path = tmp_path / f"annotations.{form}"
    if form == "json":
        path.write_text(json.dumps(rows))
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif form == "csv":
        text = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(text) + "\n")
    else:
        lines(path, rows)
    own = read_verdicts(str(path))
    result = judge(own)
    panel = result.panels["new"]
    assert result.reference == "base" and panel.judges[0].judge == "gpt"
    assert panel.win_rate.per_prompt == pytest.approx([0.9, 0, 0.5, 0.5])
    assert (panel.length.longer, panel.length.shorter) == (0.25, 0.5)
    assert panel.both_orders == 0 and panel.judges[0].position_bias is None


def test_verdicts_that_an_evaluation_stores_give_its_numbers(tmp_path):
    verdicts = np.random.default_rng(0).choice([0, 0.5, 1, nan], (9, 3, 2), p=[0.4, 0.1, 0.4, 0.1])
    rows = [
        {"prompt_id": f"p{i}", "pair": j, "policy_first": a, "reference_first": b}
        for i, prompt in enumerate(verdicts.tolist())
        for j, (a, b) in enumerate(prompt)
    ]
    rows = [{k: None if v != v else v for k, v in row.items()} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "judge-rlhf.parquet")
    own = read_verdicts(str(tmp_path / "judge-rlhf.parquet"), judge="mine")
    panel = judge(own, drop=True).panels["rlhf"]
    expected = judge_win_rate(verdicts, missing="exclude")
    (mine,) = panel.judges
    assert mine.judge == "mine" and mine.invalid == np.isnan(verdicts).sum()
    assert mine.position_bias.value == pytest.approx(expected.position_bias.value)
    assert mine.consistency.value == pytest.approx(expected.consistency.value)
    assert panel.win_rate.value == pytest.approx(expected.win_rate.value)
    assert panel.win_rate.low == pytest.approx(expected.win_rate.low)
    assert (panel.pairs, panel.excluded) == (expected.pairs, expected.excluded)


def test_one_file_for_each_judge_is_a_panel(tmp_path):
    rows = [
        {"prompt_id": p, "policy": "new", "reference": "old", "verdict": v}
        for p, v in (("a", 1), ("b", 0))
    ]
    one = read(tmp_path, rows, "one.jsonl", judge="one")
    other = read(tmp_path, [rows[0] | {"verdict": "B"}, rows[1] | {"verdict": "old"}], judge="two")
    panel = judge(join_verdicts([one, other])).panels["new"]
    assert [r.judge for r in panel.judges] == ["one", "two"]
    assert panel.win_rate.value == 0.25 and panel.agreement is not None
    assert panel.any_judge.high >= panel.win_rate.high


def test_other_responses_are_another_pair_and_the_same_ones_another_vote(tmp_path):
    def row(text, winner, sides=("new", "old")):
        responses = {"new": text, "old": "zz"}
        own = {f"response_{x}": responses[side] for x, side in zip("ab", sides, strict=True)}
        return {"id": 1, "model_a": sides[0], "model_b": sides[1], "winner": winner} | own

    rows = [row("x", "A"), row("x", "B"), row("x", "A", ("old", "new"))]
    rows += [row("other", "A"), row("other", "B", ("old", "new"))]
    result = judge(read(tmp_path, rows), reference="old")
    panel = result.panels["new"]
    # The pair with x: (½ + 0) / 2; the other one: 1.
    assert panel.win_rate.value == pytest.approx((0.25 + 1) / 2) and panel.pairs == 2
    assert "1 repeated votes" in result.notes[1] and panel.length.longer == 0.5
    bare = {"id": 1, "model_b": "old", "winner": "A"}
    result = judge(read(tmp_path, [*rows, {**bare, "model_a": "third"}]), reference="old")
    assert "lengths are known for 5 of 6" in result.notes[2]
    assert result.panels["third"].length is None


def test_policies_that_were_judged_on_the_same_prompts_are_ranked(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {"id": i, "model_a": name, "model_b": "old", "verdict": float(rng.random() < chance)}
        for i in rng.permutation(200).tolist()
        for name, chance in (("good", 0.8), ("bad", 0.2))
    ]
    ranking = judge(read(tmp_path, rows)).ranking
    assert [row.policy for row in ranking.policies] == ["good", "old", "bad"]
    assert [(row.best, row.worst) for row in ranking.policies] == [(1, 1), (2, 2), (3, 3)]
    assert judge(read(tmp_path, rows[:-1])).ranking is None


def test_a_judge_with_the_name_of_a_policy_is_of_its_family(tmp_path):
    rows = [row | {"judge": j} for row in ARENA[:2] for j in ("old", "k")]
    panel = judge(read(tmp_path, rows), reference="old").panels["new"]
    assert [r.own for r in panel.judges] == ["reference", None]
    panel = judge(read(tmp_path, rows), reference="old", own={"k": ["new"]}).panels["new"]
    assert [r.own for r in panel.judges] == ["reference", "policy"]


WRONG = {
    "a verdict that is none": ([ARENA[0] | {"winner": "maybe"}], r"line 1: `winner` must name"),
    "a chance above 1": ([ARENA[0] | {"winner": 2}], r"line 1: `winner` must name"),
    "no policy": ([ARENA[0] | {"model_a": ""}], "line 1: no name of a policy in `model_a`"),
    "a policy with itself": ([ARENA[0] | {"model_a": "old"}], "compares 'old' with itself"),
    "no verdict at all": (
        [{"question_id": 1, "model_a": "a", "model_b": "b"}],
        "column for the verdict",
    ),
    "one game": ([{"question_id": 1, "model": "m", "games": []}], "line 1: `games` must hold two"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_with_its_line(tmp_path, case):
    rows, message = WRONG[case]
    with pytest.raises(DataError, match=message):
        read(tmp_path, rows)


def test_names_that_do_not_occur_are_refused(tmp_path):
    own = read(tmp_path, ARENA[:3])
    with pytest.raises(ArgumentError, match="must be given"):
        judge(own)
    for more in ({"reference": "x"}, {"policies": ["x"]}, {"own": {"x": ["old"]}}):
        with pytest.raises(ArgumentError, match="'x'"):
            judge(own, **{"reference": "old"} | more)
