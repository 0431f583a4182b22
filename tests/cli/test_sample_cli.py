"""`infalign sample`: what scripts and readers rely on."""

import io
import json
import re
import shlex
import sys

import pytest

import infalign as ia
from infalign.cli.sample import EXAMPLE, HELP, printable
from infalign.decoding import decode
from infalign.models.interfaces import Response
from infalign.models.rewards import load_reward
from infalign.models.samplers import load_sampler
from infalign.stores import StoreWriter

MODEL = "bundled:language-model"
FAST = ["--model", MODEL, "--max-new-tokens", 6]


@pytest.fixture
def sample(cli):
    """The command's standard output, when it succeeds."""

    def call(*arguments):
        code, out, errors = cli("sample", *arguments)
        assert code == 0, errors
        return out

    return call


@pytest.fixture
def records(sample):
    """The command's JSON Lines."""
    return lambda *arguments: [json.loads(x) for x in sample(*arguments, "--json").splitlines()]


@pytest.fixture
def refused(cli):
    """Exit code and message, unwrapped, of a command that fails."""

    def call(*arguments):
        code, out, errors = cli("sample", *arguments)
        assert out == ""
        return code, " ".join(re.sub("[│╭╮╰╯─]", " ", errors).split())

    return call


@pytest.fixture
def fake(monkeypatch):
    """A model that answers with these texts in turn."""

    def use(*texts):
        class Fake:
            def sample(self, conversations, n, *, seed, keys=None):
                return [[Response(texts[i % len(texts)]) for i in range(n)] for _ in conversations]

        monkeypatch.setattr("infalign.models.samplers.load_sampler", lambda *a, **k: Fake())
        monkeypatch.setattr("infalign.pipeline.decoding_work.inspect_policy", lambda *a, **k: None)

    return use


@pytest.fixture
def python(tmp_path, monkeypatch):
    """A module of the user's: `python:mine:NAME`."""
    (tmp_path / "mine.py").write_text(
        "def length(*, completions, **columns):\n"
        "    return [float(len(c[0]['content'])) for c in completions]\n"
        "def first(text):\n"
        "    return text[:1] or None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("mine", None)


def test_the_example_of_the_help_runs_offline(cli, sample):
    code, out, _ = cli("sample", "--help")
    assert code == 0 and EXAMPLE in " ".join(out.split()) and HELP.endswith(EXAMPLE)
    out = sample(*shlex.split(EXAMPLE)[2:])
    assert out.startswith("How do I bake bread?\n  ")
    assert re.search(r"best-of-n:8: reward -?\d\.\d+, rank 1 of 8\n$", out)


def test_the_results_are_those_of_the_library(records):
    command = [*FAST, "--reward", "bundled:helpful", "--procedure", "worst-of-n:3", "--seed", 5]
    (record,) = records(*command, "--temperature", 0.8, "--top-p", 0.9, "--all", "How?")
    assert set(record) == {
        *("prompt_id", "prompt", "procedure", "draws", "text", "reward", "logprob"),
        *("index", "rank", "candidates"),
    }
    sampler = load_sampler(MODEL, temperature=0.8, top_p=0.9, max_new_tokens=6)
    prompt = [{"role": "user", "content": "How?"}]
    scorer = load_reward("bundled:helpful")
    (own,) = decode(ia.WorstOfN(3), sampler, scorer, [prompt], seed=5)
    assert [c["text"] for c in record["candidates"]] == [c.text for c in own.candidates]
    assert [c["reward"] for c in record["candidates"]] == pytest.approx(own.rewards, abs=1e-5)
    assert (record["index"], record["rank"], record["draws"]) == (own.index, own.rank, 3)
    assert record["candidates"][own.index]["text"] == record["text"] == own.response.text
    assert (record["prompt_id"], record["prompt"], record["procedure"]) == (
        *("0", "How?"),
        "worst-of-n:3",
    )


def test_prompts_come_from_a_file_from_words_or_from_standard_input(records, tmp_path, monkeypatch):
    command = [*FAST, "--procedure", "sampling"]
    file = tmp_path / "prompts.jsonl"
    turns = [{"role": r, "content": r} for r in ("user", "assistant", "user")]
    rows = [{"prompt": "a", "prompt_id": "x"}, {"prompt": turns}, {"prompt": "c"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = records(*command, "--prompts", file, "--limit", 2)
    assert [r["prompt"] for r in found] == ["a", turns] and found[0]["prompt_id"] == "x"
    monkeypatch.setattr(sys, "stdin", io.StringIO("first\n\n second \n"))
    assert [r["prompt"] for r in records(*command, "-")] == ["first", " second "]
    assert [r["prompt"] for r in records(*command, "one", "two")] == ["one", "two"]
    assert len(records(*command, "--prompts", "bundled:helpful", "--limit", 3)) == 3


def test_the_same_seed_prints_the_same_and_a_file_holds_what_is_printed(sample, tmp_path):
    out = tmp_path / "folder" / "answers.jsonl"
    command = [*FAST, "--procedure", "sampling", "a", "b", "--seed", 3]
    printed = sample(*command, "--json", "--out", out)
    assert out.read_text() == printed == sample(*command, "--json")
    assert sample(*command[:-1], 4, "--json") != printed
    assert not printed.count("NaN")


def test_what_a_model_writes_is_neither_markup_nor_control(sample, fake, python):
    fake("[bold]not bold[/bold] \x1b[31mred\x07 [/] :smile:", "x", "")
    command = ["--model", "m", "--reward", "python:mine:length", "[red]prompt[/red]"]
    out = sample(*command, "--procedure", "best-of-n:3", "--all")
    assert "[bold]not bold[/bold] \\x1b[31mred\\x07 [/] :smile:" in out
    assert out.startswith("[red]prompt[/red]\n") and "\x1b" not in out
    assert "(nothing)" in out  # the empty candidate
    assert str(printable("line\nzürich\t日本 \u202e")) == "line\nzürich\t日本 \\u202e"


def test_a_vote_shows_its_answer_and_needs_no_reward(sample, records, fake, python):
    fake("It is 1,000.", "no", "1000.0!")
    command = ["--model", "m", "--procedure", "majority-vote:3", "How many?"]
    assert "majority-vote:3: answer 1000, 2 of 3 votes" in sample(*command)
    (record,) = records(*command, "--all")
    assert (record["answer"], record["votes"], record["rank"]) == ("1000", 2, None)
    assert [c["answer"] for c in record["candidates"]] == ["1000", None, "1000"]
    (record,) = records(*command, "--answers", "python:mine:first")
    assert record["answer"] in ("I", "n", "1") and record["votes"] == 1
    fake("none")
    assert "none of 3 has an answer" in sample(*command)


def test_rewind_calibrates_on_the_spot_or_reads_a_store(records, refused, fake, python, tmp_path):
    fake("a", "bb", "ccc")
    command = ["--model", "m", "--reward", "python:mine:length", "--procedure", "rewind:0.4:9", "x"]
    (record,) = records(*command, "--references", 3)
    assert (record["text"], record["draws"], record["quantile"]) == ("a", 9, pytest.approx(1 / 6))
    StoreWriter(tmp_path / "store", {}, 1).add(["0"], [["0", "1"]], [[0.0, 0.5]])
    (record,) = records(*command, "--calibration", tmp_path / "store")
    assert (record["quantile"], record["draws"]) == (1.0, 1)
    StoreWriter(tmp_path / "other", {"reward": "another"}, 1).add(["0"], [["0"]], [[0.0]])
    code, message = refused(*command, "--calibration", tmp_path / "other")
    assert code == 1 and "made with reward 'another'" in message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--procedure", "beast", "x"], "--procedure: must be sampling, best-of-n:N"),
        (
            ["--procedure", "best-of-n:0", "x"],
            "--procedure: `n` must be a whole number of at least",
        ),
        (["x"], "--reward: is needed: best-of-n:4 selects by reward"),
        (["--procedure", "sampling"], "give prompts either as arguments or with --prompts"),
        (
            ["--prompts", "bundled:helpful", "x"],
            "give prompts either as arguments or with --prompts",
        ),
        (["--procedure", "sampling", "--temperature", "0", "x"], "--temperature: must be above 0"),
        (
            ["--procedure", "sampling", "--calibration", "s", "x"],
            "--calibration: is not used: sampling does not read quantiles",
        ),
    ],
)
def test_wrong_usage_names_the_option(refused, arguments, words):
    code, message = refused(*FAST, *arguments)
    assert code == 2 and words in message


def test_what_cannot_be_found_fails_with_one_message(refused, tmp_path):
    for arguments, words in [
        (["--procedure", "sampling", "--prompts", tmp_path / "no.jsonl"], "does not exist"),
        (["--procedure", "majority-vote:2", "--answers", "letters", "x"], "The answers 'letters'"),
        (["--reward", "bundled:nothing", "x"], "There is no bundled reward 'nothing'"),
    ]:
        code, message = refused(*FAST, *arguments)
        assert code == 1 and message.startswith("infalign: ") and words in message
    code, message = refused("--model", "http://127.0.0.1:9/v1", "--procedure", "sampling", "x")
    assert code == 1 and "after a #" in message


def test_a_reward_that_tells_nothing_apart_is_said(cli, fake, tmp_path, monkeypatch):
    fake("a", "b", "c")
    (tmp_path / "flat.py").write_text(
        "def score(completions):\n    return [3] * len(completions)\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ["sample", "--model", "m", "--procedure", "best-of-n:3", "How?", "--reward"]
    code, _, errors = cli(*words, "flat.py:score")
    assert code == 0 and "of --reward gives 3 to all 3 responses, of which 3 are diff" in errors


def test_what_was_decided_about_the_prompts_is_said(cli, tmp_path):
    (tmp_path / "asked.csv").write_text("question\nHow?\n")
    words = (
        "--model",
        "bundled:language-model",
        "--procedure",
        "sampling",
        "--max-new-tokens",
        "1",
    )
    code, _, errors = cli("sample", *words, "--prompts", tmp_path / "asked.csv")
    assert code == 0 and "column `question`" in " ".join(errors.split())


def test_a_folder_in_place_of_the_file_is_said_before_anything_is_drawn(refused, fake, tmp_path):
    fake()  # it would fail
    command = ["--model", "m", "--procedure", "sampling", "How?", "--out", tmp_path]
    code, message = refused(*command)
    assert code == 1 and "it is a folder where a file is expected" in message


def test_a_file_that_was_interrupted_continues_and_ends_the_same(runs, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Why {i}?"}) + "\n" for i in range(5)))
    command = ["sample", "--model", MODEL, "--max-new-tokens", 1, "--prompts", prompts]
    # 256 responses, or two prompts, are drawn together.
    command += ["--procedure", "best-of-n:128", "--reward", "bundled:helpful", "--json", "--out"]
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    first = runs(*command, whole)
    assert first.code == 0, first.stderr
    parts = tmp_path / "out.jsonl.parts"
    killed = runs(*command, out, killed_after=parts / "parts" / "records-00000.parquet")
    assert killed.code == -9 and not out.exists()
    stopped = runs(*command, out, interrupted_after=parts / "parts" / "records-00001.parquet")
    assert stopped.code == 130 and not out.exists()
    again = shlex.join(map(str, ["infalign", *command, out]))
    assert f"What is finished is kept in {parts}. This continues: {again}" in stopped.stderr
    refused = runs(*command, out, "--seed", 1)
    assert refused.code == 1 and re.search(r"holds \d prompts .*seed 0, not 1\.", refused.stderr)
    ended = runs(*command, out)
    assert re.search(rf"Continues in {parts}, with \d of 5 prompts done\.", ended.stderr)
    assert out.read_bytes() == whole.read_bytes() and ended.stdout == first.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [prompts.name, whole.name, out.name]
    )
