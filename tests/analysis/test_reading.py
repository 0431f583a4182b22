"""Samples are read from the files that people have; nothing is lost or mixed silently."""

import gzip
import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infalign.analysis import read_samples
from infalign.errors import ArgumentError, DataError

LOGS = Path(__file__).parent / "logs"
"""Logs that the tools themselves wrote: two questions with two epochs each, and three questions
with four responses each under two filters."""

LONG = [
    {"prompt_id": p, "sample": i, "reward": r, "response": "x" * (i + 1)}
    for p, rewards in (("a", (0.5, 1.5)), ("b", (2.5, -1.0)))
    for i, r in enumerate(rewards)
]
SCORES = [[0.5, 1.5], [2.5, -1.0]]


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def as_csv(rows):
    head = list(rows[0])
    return "\n".join([",".join(head), *(",".join(str(r[h]) for h in head) for r in rows)]) + "\n"


def written(folder, form):
    """The same samples in one of the forms."""
    folder.mkdir(exist_ok=True)
    path = folder / f"own.{form}"
    if form == "jsonl":
        return lines(path, LONG)
    if form == "json":
        path.write_text(json.dumps(LONG, indent=1))
    elif form == "columns.json":
        path.write_text(json.dumps({k: [row[k] for row in LONG] for k in LONG[0]}))
    elif form in ("csv", "tsv"):
        path.write_text(as_csv(LONG).replace(",", "," if form == "csv" else "\t"))
    elif form == "jsonl.gz":
        path.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in LONG).encode()))
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(LONG), path)
    elif form == "wide.jsonl":
        wide = [
            {
                "prompt_id": p,
                "rewards": [r["reward"] for r in LONG if r["prompt_id"] == p],
                "response": [r["response"] for r in LONG if r["prompt_id"] == p],
            }
            for p in "ab"
        ]
        return lines(path, wide)
    return str(path)


FORMS = [
    *("jsonl", "json", "columns.json", "csv", "tsv", "jsonl.gz", "parquet", "wide.jsonl"),
]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_samples(tmp_path, form):
    own = read_samples(written(tmp_path, form), "rl")
    assert own.name == "rl"
    assert own.prompts == ("a", "b")
    assert own.scores.tolist() == SCORES
    assert own.lengths.tolist() == [[1, 2], [1, 2]]


def test_folders_and_patterns_are_read_in_order(tmp_path):
    for i, row in enumerate(LONG):
        lines(tmp_path / f"part-{i}.jsonl", [row])
    (tmp_path / "notes.txt").write_text("no samples")
    (tmp_path / ".hidden.jsonl").write_text("{")
    for source in (tmp_path, tmp_path / "part-*.jsonl"):
        assert read_samples(str(source), "a").scores.tolist() == SCORES
    with pytest.raises(DataError, match="matches no file"):
        read_samples(str(tmp_path / "*.parquet"), "a")
    with pytest.raises(DataError, match="does not exist"):
        read_samples(str(tmp_path / "none.jsonl"), "a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="without a file to read"):
        read_samples(str(tmp_path / "empty"), "a")


def test_standard_input_is_read(monkeypatch):
    import io

    for text in ("".join(json.dumps(r) + "\n" for r in LONG), as_csv(LONG)):
        stdin = io.TextIOWrapper(io.BytesIO(text.encode()))
        monkeypatch.setattr("sys.stdin", stdin)
        assert read_samples("-", "a").scores.tolist() == SCORES


def test_counts_are_samples_of_0_and_1(tmp_path):
    own = read_samples(lines(tmp_path / "c.jsonl", [{"id": 7, "c": 2, "n": 3}]), "a")
    assert own.prompts == ("7",)
    assert sorted(own.scores[0]) == [0, 1, 1]
    assert own.binary
    for row, message in (
        ({"id": 1, "c": 4, "n": 3}, "4 correct samples of 3"),
        ({"id": 1, "c": 1.5, "n": 3}, "whole number"),
        ({"id": 1, "c": None, "n": 3}, "whole number"),
    ):
        with pytest.raises(DataError, match=message):
            read_samples(lines(tmp_path / "bad.jsonl", [row]), "a")
    with pytest.raises(DataError, match="line 2: prompt '1' has counts already"):
        read_samples(lines(tmp_path / "bad.jsonl", [{"id": 1, "c": 1, "n": 3}] * 2), "a")


def test_counts_that_do_not_fit_in_memory_are_refused_before_they_are_scores(tmp_path):
    for attempts in ([10**9], [8, 9, 2**25]):
        rows = [{"id": i, "c": 1, "n": n} for i, n in enumerate(attempts)]
        with pytest.raises(DataError, match=f"line {len(rows)}: {attempts[-1]:,} attempts"):
            read_samples(lines(tmp_path / "large.jsonl", rows), "a")


def test_integers_beyond_double_precision_stay_apart_or_are_refused(tmp_path):
    near = [{"id": 2**53 + k, "reward": float(k)} for k in (0, 1)]
    own = read_samples(lines(tmp_path / "ids.jsonl", near), "a")
    assert own.prompts == ("9007199254740992", "9007199254740993")
    for row in (
        {"id": 1, "reward": 10**400},
        {"id": 1, "reward": 1.0, "length": 10**400},
        {"id": 1, "c": 10**400, "n": 10**400},
    ):
        with pytest.raises(DataError, match=r"an integer of 40\d digits"):
            read_samples(lines(tmp_path / "huge.jsonl", [row]), "a")


def test_the_columns_are_stated(tmp_path):
    own = read_samples(written(tmp_path, "jsonl"), "a")
    assert own.notes == ("prompts in `prompt_id`, scores in `reward`, samples in `sample`",)


def test_other_names_are_given(tmp_path):
    rows = [{"k": r["prompt_id"], "points": r["reward"], "other": 3.0} for r in LONG]
    path = lines(tmp_path / "a.jsonl", rows)
    own = read_samples(path, "a", columns={"prompt": "k", "score": "points"})
    assert own.scores.tolist() == SCORES
    with pytest.raises(DataError, match="--column prompt="):
        read_samples(path, "a")
    with pytest.raises(DataError, match=r"no column 'pints'.* Did you mean points\?"):
        read_samples(path, "a", columns={"prompt": "k", "score": "pints"})
    with pytest.raises(DataError, match=r"no column that is clearly a score.*--column score="):
        read_samples(lines(tmp_path / "w.jsonl", [{"id": 1, "x": "a"}, {"id": 2, "x": "b"}]), "a")
    with pytest.raises(ArgumentError, match="columns"):
        read_samples(path, "a", columns={"reward": "points"})


def test_two_scores_are_not_chosen_between(tmp_path):
    rows = [dict(r, correct=int(r["reward"] > 0)) for r in LONG]
    path = lines(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataError, match="more than one score: reward, correct"):
        read_samples(path, "a")
    own = read_samples(path, "a", columns={"score": "correct"})
    assert own.scores.tolist() == [[1, 1], [1, 0]]


def test_checkpoints_of_one_training_are_not_mixed(tmp_path):
    """TRL's completions: one column with the reward function's name, and a step."""
    rows = [
        {"step": step, "prompt": p, "completion": "so", "brevity_reward": s + step, "advantage": s}
        for step in (10, 20)
        for p in "ab"
        for s in (0.0, 1.0)
    ]
    path = tmp_path / "completions.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(DataError, match=r"2 values in `step` \(10, 20\).*--where step=20"):
        read_samples(str(path), "a")
    own = read_samples(str(path), "a", where={"step": "20"})
    assert own.score == "brevity_reward"
    assert own.scores.tolist() == [[20, 21], [20, 21]]
    with pytest.raises(DataError, match="no row with '30' in `step`; it has 10, 20"):
        read_samples(str(path), "a", where={"step": "30"})


def test_rollouts_of_verl_are_read(tmp_path):
    rows = [
        {"input": p, "output": "x" * (3 + i), "gts": "7", "score": float(i), "step": 5}
        for p in "ab"
        for i in range(2)
    ]
    own = read_samples(lines(tmp_path / "5.jsonl", rows), "a")
    assert own.scores.tolist() == [[0, 1], [0, 1]]
    assert own.lengths.tolist() == [[3, 4], [3, 4]]


def test_the_id_of_a_sample_is_not_taken_for_that_of_a_prompt(tmp_path):
    rows = [{"id": i, "prompt": p, "reward": float(i)} for i, p in enumerate("aabb")]
    own = read_samples(lines(tmp_path / "a.jsonl", rows), "a")
    assert own.prompts == ("a", "b")


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        ("missing", {"prompt_id": "a", "sample": 9, "reward": None}, "1 samples without a score"),
        ("missing", {"prompt_id": "a", "sample": 9}, "1 samples without a score, first .*line 5"),
        ("duplicates", LONG[0], "1 samples that occur again"),
    ],
)
def test_what_is_wrong_is_refused_or_dropped_and_counted(tmp_path, kind, row, message):
    path = lines(tmp_path / "a.jsonl", [*LONG, row])
    with pytest.raises(DataError, match=f"{message}.*--drop {kind}"):
        read_samples(path, "a")
    own = read_samples(path, "a", drop=[kind])
    assert own.scores.tolist() == SCORES
    assert any(note.startswith(message.split(", first")[0]) for note in own.notes)
    with pytest.raises(ArgumentError, match="drop"):
        read_samples(path, "a", drop=["all"])


def test_cut_responses_are_counted_and_dropped_on_request(tmp_path):
    rows = [dict(r, finish_reason="length" if i == 1 else "stop") for i, r in enumerate(LONG)]
    path = lines(tmp_path / "a.jsonl", rows)
    own = read_samples(path, "a")
    assert "1 responses that were cut at the limit of their length, included" in own.notes
    assert np.isnan(read_samples(path, "a", drop=["truncated"]).scores).sum() == 1


@pytest.mark.parametrize("score", ["good", [1.0, "x"], {"a": 1}, float("inf")])
def test_scores_that_are_no_numbers_are_refused(tmp_path, score):
    path = tmp_path / "a.parquet"
    rows = [{"prompt_id": "a", "reward": json.dumps(score) if isinstance(score, dict) else score}]
    if isinstance(score, list):
        path = lines(tmp_path / "a.jsonl", [{"prompt_id": "a", "reward": score}])
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(DataError, match="`reward` must be a number"):
        read_samples(str(path), "a")


def test_a_cut_line_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(LONG[0]) + "\n" + json.dumps(LONG[1])[:20])
    with pytest.raises(DataError, match="line 2"):
        read_samples(str(path), "a")


def test_words_for_right_and_wrong_are_numbers(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("prompt_id,correct\na,True\na,false\nb,1\nb,0\n")
    assert read_samples(str(path), "a").scores.tolist() == [[1, 0], [1, 0]]


def test_the_right_answer_of_a_problem_does_not_vote(tmp_path):
    """GSM8K's column `answer` is the solution, the same for every sample."""
    rows = [
        {"id": p, "answer": f"solution {p}", "prediction": str(c), "correct": c}
        for p in "ab"
        for c in (0, 1)
    ]
    path = lines(tmp_path / "a.jsonl", rows)
    own = read_samples(path, "a")
    assert own.answers is None
    assert any("majority votes are left out" in note for note in own.notes)
    named = read_samples(path, "a", columns={"answer": "prediction"})
    assert named.answers.tolist() == [["0", "1"], ["0", "1"]]
    with pytest.raises(DataError, match="scored differently on 2 of 2 prompts"):
        read_samples(path, "a", columns={"answer": "answer"})


SAMPLES = [
    {
        "id": question,
        "epoch": epoch,
        "output": {"completion": "so"},
        "scores": {"match": {"value": grade, "answer": "7"}},
    }
    for question, grades in ((1, "CI"), ("b", "CC"))
    for epoch, grade in enumerate(grades, 1)
]


def inspect_log(path, samples):
    if path.suffix == ".json":
        path.write_text(json.dumps({"version": 2, "eval": {"task": "t"}, "samples": samples}))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("header.json", "{}")
            for s in samples:
                archive.writestr(f"samples/{s['id']}_epoch_{s['epoch']}.json", json.dumps(s))
    return str(path)


@pytest.mark.parametrize("ending", ["json", "eval"])
def test_logs_of_inspect_ai_are_read(tmp_path, ending):
    own = read_samples(inspect_log(tmp_path / f"log.{ending}", SAMPLES), "a")
    assert own.prompts == ("1", "b")
    assert own.scores.tolist() == [[1, 0], [1, 1]]
    assert own.score == "match"
    failed = [*SAMPLES, {"id": "c", "epoch": 1, "error": {"message": "no answer"}}]
    with pytest.raises(DataError, match="1 samples without a score"):
        read_samples(inspect_log(tmp_path / f"failed.{ending}", failed), "a")


def test_several_scorers_are_not_chosen_between(tmp_path):
    samples = [dict(s, scores={**s["scores"], "rubric": {"value": {"tone": 3}}}) for s in SAMPLES]
    path = inspect_log(tmp_path / "log.json", samples)
    with pytest.raises(DataError, match=r"match, rubric\.tone"):
        read_samples(path, "a")
    assert read_samples(path, "a", columns={"score": "rubric.tone"}).scores.min() == 3


REMEDY = "Copy the file again; if its evaluation has not ended, run that again."


def test_damaged_archives_are_refused(tmp_path):
    path = tmp_path / "a.eval"
    path.write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(DataError, match=f"a.eval is not a readable log .*{REMEDY}"):
        read_samples(str(path), "a")
    whole = (LOGS / "inspect.eval").read_bytes()
    for end in range(0, len(whole), len(whole) // 30):
        path.write_bytes(whole[:end])
        with pytest.raises(DataError, match=f"a.eval is not a readable log .*{REMEDY}"):
            read_samples(str(path), "a")


@pytest.mark.parametrize("member", [None, "header.json", "sample.json"])
def test_archives_without_samples_are_refused(tmp_path, member):
    with zipfile.ZipFile(tmp_path / "b.eval", "w") as archive:
        if member:
            archive.writestr(member, "{}")
    with pytest.raises(DataError, match=r"b.eval holds no samples.*Name the log of an evaluation"):
        read_samples(str(tmp_path / "b.eval"), "a")


@pytest.mark.parametrize(
    "sample",
    [
        *({}, [], 1, None, {"id": None}, {"id": 1, "scores": {"match": 1}}, {"id": 1, "input": 3}),
        *(
            {"id": 1, "input": ["q"]},
            {"id": 1, "output": "so"},
            {"id": 1, "output": {"completion": 2}},
        ),
    ],
)
@pytest.mark.parametrize("ending", ["json", "eval"])
def test_samples_of_another_form_are_refused_by_place(tmp_path, ending, sample):
    path = tmp_path / f"log.{ending}"
    if ending == "json":
        path.write_text(json.dumps({"eval": {}, "samples": [sample]}))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("samples/1_epoch_1.json", json.dumps(sample))
    place = "sample 1" if ending == "json" else "samples/1_epoch_1.json"
    with pytest.raises(DataError, match=rf"log.{ending}, {place}: not a readable sample"):
        read_samples(str(path), "a")


def test_statistics_of_helm_are_read(tmp_path):
    stats = [
        {
            "instance_id": f"id{i}",
            "train_trial_index": trial,
            "stats": [{"name": {"name": "exact_match", "split": "test"}, "count": 1, "sum": right}],
        }
        for i in range(2)
        for trial, right in enumerate((1.0, 0.0))
    ]
    path = tmp_path / "per_instance_stats.json"
    path.write_text(json.dumps(stats))
    own = read_samples(str(path), "a")
    assert own.prompts == ("id0", "id1")
    assert own.scores.tolist() == [[1, 0], [1, 0]]


INSTANCE = {
    "instance_id": "id0",
    "train_trial_index": 0,
    "stats": [{"name": {"name": "exact_match", "split": "test"}, "count": 1, "sum": 1.0}],
}
STAT = INSTANCE["stats"][0]


def with_stat(**own):
    return INSTANCE | {"stats": [STAT | own]}


def lacking(owner, name):
    return {key: value for key, value in owner.items() if key != name}


@pytest.mark.parametrize("place", [1, 2])
@pytest.mark.parametrize(
    ("instance", "problem"),
    [
        (None, "None must be an object"),
        ([], r"\[\] must be an object"),
        (lacking(INSTANCE, "instance_id"), "`instance_id` is missing in"),
        (lacking(INSTANCE, "stats"), "`stats` is missing in"),
        (INSTANCE | {"instance_id": None}, "`instance_id` must be a text or a number; got None"),
        (INSTANCE | {"train_trial_index": []}, "`train_trial_index` must be a number"),
        (INSTANCE | {"perturbation": ["typos"]}, "`perturbation` must be an object or null"),
        (INSTANCE | {"perturbation": {"rate": 1}}, "`name` is missing in {'rate': 1}"),
        (INSTANCE | {"stats": None}, "`stats` must be a list; got None"),
        (INSTANCE | {"stats": {"exact_match": 1}}, "`stats` must be a list"),
        (INSTANCE | {"stats": [None]}, "None must be an object"),
        (INSTANCE | {"stats": [lacking(STAT, "name")]}, "`name` is missing"),
        (INSTANCE | {"stats": [lacking(STAT, "count")]}, "`count` is missing"),
        (INSTANCE | {"stats": [lacking(STAT, "sum")]}, "`sum` is missing"),
        (with_stat(name="exact_match"), "`name` must be an object; got 'exact_match'"),
        (with_stat(name={"name": ["exact_match"]}), "`name` must be a text"),
        (with_stat(count=None), "`count` must be a number; got None"),
        (with_stat(count=-1), "`count` must be at least 0; got -1"),
        (with_stat(sum=[1.0]), "`sum` must be a number"),
        (with_stat(sum=True), "`sum` must be a number; got True"),
        (with_stat(sum=10**400), "too large"),
    ],
)
def test_statistics_of_helm_of_another_form_are_refused_by_place(
    tmp_path, place, instance, problem
):
    path = tmp_path / "per_instance_stats.json"
    path.write_text(json.dumps([instance, INSTANCE][:: 1 if place == 1 else -1]))
    with pytest.raises(
        DataError,
        match=rf"stats.json, instance {place}: not a readable sample of HELM \(.*{problem}.*"
        + REMEDY,
    ):
        read_samples(str(path), "a")


def test_a_statistic_of_helm_that_counts_nothing_has_no_value(tmp_path):
    path = tmp_path / "per_instance_stats.json"
    path.write_text(json.dumps([INSTANCE, with_stat(count=0) | {"train_trial_index": 1}]))
    with pytest.raises(DataError, match=r"1 samples without a score, first .*instance 2"):
        read_samples(str(path), "a")


@pytest.mark.parametrize(
    ("log", "problem"),
    [
        ({"status": "error", "eval": {"task": "t"}}, "holds no samples.*has ended"),
        ({"eval": {}, "samples": None}, "holds no samples"),
        ({"eval": {}, "samples": 1}, "`samples` must be a list; got 1.*Copy"),
        ({"eval": {}, "samples": {"1": SAMPLES[0]}}, "`samples` must be a list"),
        ({"eval": ["t"], "samples": SAMPLES}, "sample 1: .*`eval` must be an object or null"),
        ({"eval": {"task": ["t"]}, "samples": SAMPLES}, "sample 1: .*`task` must be a text"),
    ],
)
def test_logs_of_inspect_ai_of_another_form_are_refused(tmp_path, log, problem):
    path = tmp_path / "log.json"
    path.write_text(json.dumps(log))
    with pytest.raises(DataError, match=f"log.json.*{problem}"):
        read_samples(str(path), "a")


ANNOTATION = {"instruction": "a", "output_1": "x", "output_2": "yy", "preference": 1.9}


@pytest.mark.parametrize("place", [1, 2])
@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (None, "None must be an object"),
        *((lacking(ANNOTATION, name), f"`{name}` is missing") for name in ANNOTATION),
        (ANNOTATION | {"preference": "1.9"}, "`preference` must be a number or null; got '1.9'"),
        (ANNOTATION | {"preference": [1]}, "`preference` must be a number or null"),
        (ANNOTATION | {"output_2": ["yy"]}, "`output_2` must be a text or null"),
    ],
)
def test_annotations_of_alpaca_eval_of_another_form_are_refused_by_place(
    tmp_path, place, row, problem
):
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps([row, ANNOTATION][:: 1 if place == 1 else -1]))
    with pytest.raises(
        DataError, match=rf"annotations.json, row {place}: .*alpaca_eval \({problem}.*{REMEDY}"
    ):
        read_samples(str(path), "a")


def test_annotations_of_alpaca_eval_are_chances_to_be_preferred(tmp_path):
    rows = [
        {"instruction": "a", "output_1": "x", "output_2": "yy", "preference": 1.9},
        {"instruction": "b", "output_1": "x", "output_2": "y", "preference": 1.0},
    ]
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(rows))
    own = read_samples(str(path), "a")
    assert own.scores.ravel() == pytest.approx([0.9, 0.0])
    assert own.score == "preferred"
    path.write_text(json.dumps([dict(rows[0], preference=0)]))  # how some annotators write a tie
    assert read_samples(str(path), "a").scores.ravel() == [0.5]
    path.write_text(json.dumps([dict(rows[0], preference=3)]))
    with pytest.raises(DataError, match="between 1 and 2"):
        read_samples(str(path), "a")


def test_sample_files_of_lm_evaluation_harness_are_read(tmp_path):
    rows = [
        {
            "doc_id": i,
            "doc": {"question": "?"},
            "target": "7",
            "resps": [["7"]],
            "filtered_resps": ["7"],
            "filter": name,
            "metrics": ["exact_match"],
            "doc_hash": f"hash{i}",
            "exact_match": float(name == "flexible" or i == 0),
        }
        for name in ("strict", "flexible")
        for i in range(2)
    ]
    path = lines(tmp_path / "samples_gsm8k.jsonl", rows)
    with pytest.raises(DataError, match="--where filter=flexible"):
        read_samples(path, "a")
    own = read_samples(path, "a", where={"filter": "strict"})
    assert own.prompts == ("hash0", "hash1")
    assert own.scores.tolist() == [[1], [0]]


def test_a_log_that_inspect_ai_wrote_is_read():
    own = read_samples(str(LOGS / "inspect.eval"), "a")
    assert own.prompts == ("q0", "q1")
    assert own.scores.tolist() == [[1, 1], [0, 0]]
    assert own.score == "match"
    assert own.answers is not None


def deflated(path):
    """A log as another tool packs it, whose damage raises other errors."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", json.dumps({"eval": {"task": "t"}}))
        for s in SAMPLES:
            archive.writestr(f"samples/{s['id']}_epoch_{s['epoch']}.json", json.dumps(s))
    return path.read_bytes()


@pytest.mark.parametrize("packed", ["zstandard", "deflated"])
def test_a_flipped_byte_in_a_log_is_an_error(tmp_path, packed):
    """Or it is in a part that is not read. A sample is never lost without an error."""
    path = tmp_path / "a.eval"
    whole = (LOGS / "inspect.eval").read_bytes()
    if packed == "deflated":
        whole = deflated(path)
    path.write_bytes(whole)
    expected = read_samples(str(path), "a")
    directory = whole.index(b"PK\x01\x02")
    places = [*range(100, directory, directory // 60), *range(directory, len(whole), 3)]
    messages = set()
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            own = read_samples(str(path), "a")
        except DataError as error:
            messages.add(str(error))
            continue
        assert (own.prompts, own.scores.tolist()) == (expected.prompts, expected.scores.tolist())
    assert all("a.eval is not a readable log" in text and REMEDY in text for text in messages)
    assert any("its directory is damaged at" in text for text in messages)
    if packed == "deflated":
        assert any("while decompressing data" in text for text in messages)


def test_samples_that_lm_evaluation_harness_wrote_are_read():
    path = str(LOGS / "samples_toy.jsonl")
    with pytest.raises(DataError, match="--where filter="):
        read_samples(path, "a")
    own = read_samples(path, "a", where={"filter": "first"})
    assert len(own.prompts) == 3
    assert own.score == "exact_match"
    assert any("one score for several responses" in note for note in own.notes)


@pytest.mark.parametrize("column", ["model", "generator_2", "checkpoint", "annotator"])
def test_several_policies_in_one_file_are_not_one(tmp_path, column):
    rows = [{"prompt_id": i, column: m, "reward": m == "b"} for m in "ab" for i in range(3)]
    path = tmp_path / "two.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=f"2 values in `{column}` .*--where {column}=b"):
        read_samples(str(path), "a")
    own = read_samples(str(path), "a", where={column: "b"})
    assert own.scores.tolist() == [[1.0]] * 3


@pytest.mark.parametrize(
    "cut", ["LENGTH", "max_tokens", "MAX_TOKENS", "model_length", "max_length", True, 1, "Yes"]
)
def test_every_form_of_a_cut_response_is_counted_and_dropped(tmp_path, cut):
    whole = "stop" if isinstance(cut, str) else type(cut)(0)
    wide, long = tmp_path / "wide.jsonl", tmp_path / "long.jsonl"
    row = {"prompt_id": 0, "rewards": [1, 0, 0.5], "finish_reason": [whole, cut, cut]}
    wide.write_text(json.dumps(row) + "\n")
    rows = [
        {"prompt_id": 0, "reward": own, "truncated": word}
        for own, word in zip(row["rewards"], row["finish_reason"], strict=True)
    ]
    long.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for path in (wide, long):
        assert "2 responses that were cut" in read_samples(str(path), "a").notes[-1]
        assert read_samples(str(path), "a", drop=["truncated"]).scores.tolist() == [[1.0]]


def test_what_was_cut_cannot_be_left_out_if_no_column_says_it(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt_id": 0, "reward": 1}\n')
    with pytest.raises(DataError, match=r"which responses were cut.*--column truncated=NAME"):
        read_samples(str(path), "a", drop=["truncated"])
    path.write_text('{"prompt_id": 0, "rewards": [1, 0], "finish_reason": ["stop"]}\n')
    with pytest.raises(DataError, match="`finish_reason` has 1 entries for 2 scores"):
        read_samples(str(path), "a")
    path.write_text('{"prompt_id": 0, "rewards": [1, 0], "finish_reason": "length"}\n')
    with pytest.raises(DataError, match="must be a list with one entry per score; got 'length'"):
        read_samples(str(path), "a")


def test_lists_and_numbered_samples_of_one_prompt_are_all_read(tmp_path):
    rows = [{"prompt_id": "a", "reward": [3, 1, 2]}, {"prompt_id": "a", "reward": 5, "sample": 3}]
    for given in (rows, rows[::-1]):
        (scores,) = read_samples(lines(tmp_path / "own.jsonl", given), "own").scores
        assert sorted(scores) == [1, 2, 3, 5]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_scores_that_rounding_would_tie_are_refused(tmp_path, form):
    rows = [{"prompt_id": "a", "reward": 2**53 + i} for i in (0, 1)]
    path = tmp_path / f"own.{form}"
    path.write_text(as_csv(rows) if form == "csv" else "".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(DataError, match=r"`reward` holds 9007199254740993, which double precision"):
        read_samples(str(path), "own")
