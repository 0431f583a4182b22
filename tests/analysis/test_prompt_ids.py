"""One id is one prompt: equal ids of different prompts are told apart, refused, or stated."""

import json
import zipfile

import pytest

from infalign.analysis import read_samples
from infalign.errors import DataError


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def shards(folder, **text):
    """Two files that both count prompts from 0; the values of `text` are patterns."""
    for rank in range(2):
        rows = [
            {"id": i, "reward": float(rank)} | {c: t.format(rank, i) for c, t in text.items()}
            for i in range(3)
        ]
        lines(folder / f"rank{rank}.jsonl", rows)
    return str(folder)


def inspect_log(path, task, questions, right, message_id="m"):
    """A log of inspect_ai that numbers its samples from 1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = [
        {
            "id": number,
            "epoch": 1,
            "input": [{"id": f"{message_id}{number}", "role": "user", "content": question}],
            "scores": {"match": {"value": "C" if right else "I"}},
        }
        for number, question in enumerate(questions, 1)
    ]
    head = {"version": 2, "eval": {"task": task}}
    if path.suffix == ".json":
        path.write_text(json.dumps(head | {"samples": samples}))
        return
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("_journal/start.json", json.dumps(head))
        for s in samples:
            archive.writestr(f"samples/{s['id']}_epoch_1.json", json.dumps(s))


def test_an_id_with_different_texts_is_an_error_that_shows_both(tmp_path):
    source = shards(tmp_path / "shards", prompt="question {1} of shard {0}")
    with pytest.raises(
        DataError,
        match=r"3 of 3 ids in `id` have different prompts in `prompt`: '0' is 'question 0 of shard "
        r"0' \(.*rank0.jsonl, line 1\) and 'question 0 of shard 1' \(.*rank1.jsonl, line 1\)",
    ):
        read_samples(source, "a")


def test_each_remedy_of_that_error_works(tmp_path):
    source = shards(tmp_path, prompt="question {1} of shard {0}", shard="{0}")
    by_text = read_samples(source, "a", columns={"prompt": "prompt"})
    assert by_text.scores.tolist() == [[0.0]] * 3 + [[1.0]] * 3
    by_shard = read_samples(source, "a", columns={"task": "shard"})
    assert by_shard.prompts == ("0/0", "0/1", "0/2", "1/0", "1/1", "1/2")
    one = read_samples(source, "a", columns={"prompt-text": "id"})
    assert one.scores.tolist() == [[0.0, 1.0]] * 3


def test_shards_of_the_same_prompts_are_pooled(tmp_path):
    own = read_samples(shards(tmp_path, prompt="question {1}"), "a")
    assert own.scores.tolist() == [[0.0, 1.0]] * 3
    assert not any("several of" in note for note in own.notes)


@pytest.mark.parametrize(("text", "again"), [("question {1}", 3), ("question {0} {1}", 0)])
def test_ids_that_share_a_prompt_are_stated(tmp_path, text, again):
    own = read_samples(shards(tmp_path, prompt=text, shard="{0}"), "a", columns={"task": "shard"})
    said = [note for note in own.notes if "intervals are too narrow" in note]
    assert [note.partition(";")[0] for note in said] == [
        f"{again} of 6 ids have `prompt` of another id"
    ] * bool(again)


def test_attempts_at_one_goal_may_be_different_texts(tmp_path):
    own = read_samples(shards(tmp_path, goal="goal {1}", prompt="attempt {0} at {1}"), "a")
    assert own.scores.tolist() == [[0.0, 1.0]] * 3


def test_one_instruction_with_different_inputs_is_different_prompts(tmp_path):
    with pytest.raises(DataError, match="different prompts in `input`: '0' is 'text 0-0'"):
        read_samples(shards(tmp_path, instruction="Shorten:", input="text {0}-{1}"), "a")


def test_ids_without_texts_that_several_files_share_are_stated(tmp_path):
    own = read_samples(shards(tmp_path), "a")
    assert own.scores.tolist() == [[0.0, 1.0]] * 3
    assert (
        "3 of 3 ids occur in several of 2 files and are taken as the same prompts there; no column "
        "has the prompts' texts"
    ) in own.notes


@pytest.mark.parametrize("ending", ["json", "eval"])
def test_samples_of_several_tasks_of_inspect_ai_are_different_prompts(tmp_path, ending):
    for task, right in (("easy", True), ("hard", False)):
        path = tmp_path / f"{task}.{ending}"
        inspect_log(path, task, [f"{task} {i}" for i in range(2)], right)
    own = read_samples(str(tmp_path), "a")
    assert own.prompts == ("easy/1", "easy/2", "hard/1", "hard/2")
    assert own.scores.tolist() == [[1.0], [1.0], [0.0], [0.0]]
    assert "2 ids occur in several tasks, so prompts are `task`/`prompt_id`" in own.notes
    alone = read_samples(str(tmp_path), "a", where={"task": "hard"})
    assert alone.prompts == ("1", "2")


def test_one_task_with_different_inputs_is_refused_and_with_equal_ones_is_pooled(tmp_path):
    inspect_log(tmp_path / "law.json", "mmlu", ["a law?"], True)
    inspect_log(tmp_path / "law-again.json", "mmlu", ["a law?"], False, message_id="other")
    assert read_samples(str(tmp_path), "a").scores.tolist() == [[0.0, 1.0]]
    inspect_log(tmp_path / "virology.json", "mmlu", ["a virus?"], False)
    with pytest.raises(
        DataError, match=r"1 of 1 ids .* different prompts in `input`.*a law.*a vir"
    ):
        read_samples(str(tmp_path), "a")
    by_input = read_samples(str(tmp_path), "a", columns={"prompt": "input"})
    assert by_input.samples.tolist() == [2, 1]


def test_instances_of_several_scenarios_of_helm_are_different_prompts(tmp_path):
    for subject, right in (("anatomy", 1), ("law", 0)):
        folder = tmp_path / f"mmlu:subject={subject},model=openai_gpt2"
        folder.mkdir()
        stat = {"name": {"name": "exact_match"}, "count": 1, "sum": right}
        instance = {"instance_id": "id0", "train_trial_index": 0, "stats": [stat]}
        (folder / "per_instance_stats.json").write_text(json.dumps([instance]))
    own = read_samples(f"{tmp_path}/*/per_instance_stats.json", "a")
    assert own.prompts == ("mmlu:subject=anatomy/id0", "mmlu:subject=law/id0")
    assert own.scores.tolist() == [[1.0], [0.0]]
