"""`infalign init`: what it finds, asks and writes; what it writes passes all checks of a run."""

import io
import json
import sys

import pytest
import yaml

from infalign.cli.candidates import candidates, reward_functions
from infalign.cli.first_config import configuration, reward_function
from infalign.config import Config, load_config, parse_config
from infalign.manifest import Manifest
from infalign.pipeline.checks import check, checks_of
from infalign.pipeline.folder import Run
from infalign.prompts import run_prompts

MODEL = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 64}
CLASSIFIER = {"architectures": ["GPT2ForSequenceClassification"]}
REWARDS = """
def helper(text): ...
def _private(prompts, completions): ...
async def kind(completions, **columns): ...
def score(prompts, *, completions): ...
class Reward:
    def __call__(self, prompts, completions): ...
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def model(folder, config):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"")


def questions(path, count=60, **more):
    rows = [{"question": f"What is {i} + 1?", **more} for i in range(count)]
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def written(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def passes(config, folder):
    run = Run(config, folder / "runs/first")
    return check(checks_of(run), config.folder)


def test_an_empty_folder_gets_a_configuration_that_passes_every_check(cli, here):
    code, out, errors = cli("init", "--yes")
    assert code == 0 and out.split() == ["reward.py", "config.yaml"], errors
    config = load_config(here / "config.yaml")
    assert (config.model, config.reward) == ("bundled:language-model", "reward.py:score")
    assert "reward on two responses" in passes(config, here)
    assert "of the demonstration (there is none here; --model names yours)" in errors


@pytest.mark.parametrize("count", [2, 3, 9, 400])
@pytest.mark.parametrize("form", [str, lambda text: [{"role": "user", "content": text}]])
def test_the_configuration_fits_the_number_and_the_form_of_the_prompts(cli, here, count, form):
    rows = [{"question": form(f"What is {i} + 1?"), "answer": i + 1} for i in range(count)]
    (here / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, errors = cli("init", "--yes", "--procedure", "best-of-n:2")
    assert code == 0 and "prompts: asked.jsonl" in errors
    config = load_config(here / "config.yaml")
    assert {"number of prompts", "reward on two responses"} <= set(passes(config, here))
    assert config.prompts.file == "asked.jsonl"
    assert "question, answer" in " ".join((here / "reward.py").read_text().split())


def test_what_is_here_is_recognized_and_nothing_else(here):
    model(here / "policies/mine", MODEL)
    model(here / "judge", CLASSIFIER)
    model(here / "other", {"architectures": ["BertModel"]})
    model(here / "a/b/c/deep", MODEL)
    (here / "my_rewards.py").write_text(REWARDS)
    (here / "test_rewards.py").write_text(REWARDS)
    (here / "broken.py").write_text("def score(completions:\n")
    questions(here / "data/asked.jsonl")
    (here / "table.csv.gz").write_bytes(b"prompt\nHow?\n")
    (here / "package.json").write_text('{"name": "x", "files": ["a", "b"]}')
    (here / "both.jsonl").write_text('{"instruction": "Add.", "input": "1, 2"}\n')
    for name in (".hidden", "node_modules", "venv", "runs"):
        questions(here / name / "asked.jsonl")
    (here / "runs/provenance.json").write_text("{}")
    questions(here / "store/asked.jsonl")
    (here / "store/rewards-00000.parquet").write_bytes(b"")
    questions(here / "attacked/asked.jsonl")
    with (manifest := Manifest(here / "attacked")).recording(
        manifest.folder / "asked.jsonl", stage="red-team"
    ):
        pass
    (here / "data/manifest.json").write_text('{"files": ["asked.jsonl"]}')  # of another program
    known = candidates(here)
    assert known.models == ["policies/mine"]
    assert sorted(known.rewards) == ["judge", "my_rewards.py:kind", "my_rewards.py:score"]
    assert sorted(known.prompts) == ["data/asked.jsonl", "table.csv.gz"]
    assert sorted(known.refused) == ["both.jsonl", "data/manifest.json", "package.json"]


def test_a_file_whose_columns_are_unclear_is_a_candidate_and_a_single_record_is_none(here):
    questions(here / "odd.jsonl", column="x", input="y")
    (here / "tickets.csv").write_text("Customer question,Topic\nHow?,food\nWhy?,city\n")
    (here / "settings.json").write_text('{"name": "x", "files": ["a", "b"]}')
    known = candidates(here)
    assert sorted(known.unclear) == ["odd.jsonl", "tickets.csv"] and not known.prompts
    assert list(known.refused) == ["settings.json"]
    known = candidates(here, "Customer question")
    assert known.prompts == ["tickets.csv"] and not known.unclear


def test_what_is_here_once_is_used(cli, here):
    model(here / "mine", MODEL)
    (here / "my_rewards.py").write_text("def score(completions): ...\n")
    questions(here / "asked.jsonl")
    code, out, _ = cli("init", "--yes", "--out", "first.yaml")
    assert code == 0 and out.split() == ["first.yaml"]
    config = load_config(here / "first.yaml")
    assert (config.model, config.reward) == ("mine", "my_rewards.py:score")
    assert config.sampling.max_new_tokens == 32  # half of what the model can read


@pytest.mark.parametrize("what", ["model", "reward", "prompts"])
def test_of_several_candidates_none_is_chosen(cli, here, what):
    for i in "ab":
        if what == "model":
            model(here / i, MODEL)
        elif what == "reward":
            model(here / i, CLASSIFIER)
        else:
            questions(here / f"{i}.jsonl")
    code, _, errors = cli("init", "--yes")
    assert code == 1 and f"2 candidates for `{what}` here: a" in errors
    assert f"Name one with --{what}" in errors and not (here / "config.yaml").exists()


def test_no_file_is_overwritten(cli, here):
    (here / "reward.py").write_text("# mine")
    assert cli("init", "--yes")[0] == 0
    before = written(here)
    assert before["reward.py"] == b"# mine" and "rewards.py" in before
    code, _, errors = cli("init", "--yes", "--reward", "new")
    assert code == 1 and "config.yaml exists and is not overwritten" in errors
    assert written(here) == before


REFUSED = {
    "no such file": (("--prompts", "no.csv"), "no.csv does not exist"),
    "unclear columns": (("--prompts", "both.jsonl"), "`instruction`, `input`. Name it with `prom"),
    "unclear files": ((), "No file here can be read as prompts"),
    "one prompt": (("--prompts", "one.jsonl"), "Add prompts, or name other prompts"),
    "procedure": (("--prompts", "bundled:helpful", "--procedure", "best"), "must be sampling, bes"),
    "not by rank": (("--prompts", "bundled:helpful", "--procedure", "rewind:0.9:8"),
                    "must select by rank; rewind:0.9:8"),
    "url": (("--model", "ftp://x"), "is a URL, and none that can be used"),
    "file without a function": (("--prompts", "bundled:helpful", "--reward", "my_rewards.py"),
                                "Name a function of it, as in 'my_rewards.py:score'"),
}  # fmt: skip


@pytest.mark.parametrize(("words", "named"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_is_refused_before_anything_is_written(cli, here, words, named):
    (here / "both.jsonl").write_text('{"instruction": "Add.", "input": "1, 2"}\n')
    if "one.jsonl" in words:
        (here / "one.jsonl").write_text('{"prompt": "Add."}\n')
    before = written(here)
    code, out, errors = cli("init", "--yes", *words)
    assert code in (1, 2) and named in errors and not out
    assert written(here) == before


def test_a_column_that_names_leave_open_is_named(cli, here):
    (here / "both.jsonl").write_text('{"instruction": "Add.", "input": "1, 2"}\n' * 2)
    questions(here / "more.jsonl", column="x", input="y")
    code, *_ = cli("init", "--yes", "--prompts", "more.jsonl", "--column", "question")
    assert code == 0 and load_config(here / "config.yaml").prompts.column == "question"


@pytest.mark.parametrize("asking", [False, True])
@pytest.mark.parametrize("words", [(), ("--prompts", "tickets.csv")])
def test_a_stated_column_is_looked_for_in_the_files_that_are_here(
    cli, here, monkeypatch, words, asking
):
    tickets(here)
    answer(monkeypatch, *[""] * 4)
    yes = () if asking else ("--yes",)
    code, _, errors = cli("init", *yes, "--column", "Customer question", *words)
    assert code == 0, errors
    source = load_config(here / "config.yaml").prompts
    assert (source.file, source.column) == ("tickets.csv", "Customer question")


@pytest.mark.parametrize("named", ["1", "Customer question"])
def test_the_columns_of_an_unclear_file_are_shown_and_asked(cli, here, monkeypatch, named):
    tickets(here)
    answer(monkeypatch, "", "", named, "", "")
    code, _, errors = cli("init")
    assert code == 0, errors
    assert "  1  Customer question, such as 'What is 0?'\n" in errors
    assert "tickets.csv: 25 to train on, 35 to evaluate on" in errors
    source = load_config(here / "config.yaml").prompts
    assert (source.file, source.column) == ("tickets.csv", "Customer question")


def test_prompts_that_cannot_be_read_are_asked_again_and_the_last_ones_are_named(
    cli, here, monkeypatch
):
    tickets(here)
    answer(monkeypatch, "", "no.csv", "bundled:helpful", "", "")
    code, _, errors = cli("init")
    assert code == 0 and "no.csv does not exist" in errors
    assert "bundled:helpful: 256 to train on" in errors and "tickets.csv: " not in errors


def test_a_procedure_and_a_number_that_cannot_be_used_are_asked_again(cli, here, monkeypatch):
    model(here / "m1", MODEL), model(here / "m2", MODEL)
    questions(here / "asked.jsonl")
    answer(monkeypatch, "3", "2", "", "1", "", "best-of-4", "rewind:0.9:8", "best-of-n:2")
    code, _, errors = cli("init")
    assert code == 0, errors
    assert "There is no candidate 3 among the 2 listed." in errors
    assert "There is no candidate 1 among the 0 listed." in errors
    assert errors.count("How will the policy be decoded") == 3
    assert "got 'best-of-4'" in errors and "must select by rank; rewind:0.9:8" in errors
    config = load_config(here / "config.yaml")
    assert (config.model, config.reward) == ("m2", "reward.py:score")
    assert config.procedure == "best-of-n:2"


@pytest.mark.parametrize(("count", "least"), [(40, 12), (64, 24), (200, 32), (400, 32)])
def test_enough_prompts_are_held_out_to_compare_policies(cli, here, count, least):
    questions(here / "asked.jsonl", count)
    code, _, errors = cli("init", "--yes")
    assert code == 0 and "ids follow" not in errors  # no note for each share that is tried
    config = load_config(here / "config.yaml")
    read = run_prompts(config)
    assert len(read.test) >= least and len(read.train) >= 0.4 * count
    assert len(read.test) < 2 * least


def tickets(folder):
    rows = "".join(f"What is {i}?,food\n" for i in range(60))
    (folder / "tickets.csv").write_text("Customer question,Topic\n" + rows)


def answer(monkeypatch, *lines):
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_what_is_not_given_is_asked_with_what_is_here(cli, here, monkeypatch):
    model(here / "m1", MODEL), model(here / "m2", MODEL)
    (here / "my_rewards.py").write_text(REWARDS)
    questions(here / "asked.jsonl", input="x")
    answer(monkeypatch, "2", "asked.jsonl", "question", "1", "worst-of-n:2")
    code, out, errors = cli("init")
    assert code == 0 and out.split() == ["config.yaml"], errors
    assert "  2  m2\n" in errors and "  2  input, such as 'x'\n" in errors
    config = load_config(here / "config.yaml")
    assert (config.model, config.reward) == ("m2", "my_rewards.py:kind")
    assert config.prompts.column == "question" and config.procedure == "worst-of-n:2"


def test_empty_answers_take_the_default_and_no_answers_are_an_error(cli, here, monkeypatch):
    questions(here / "asked.jsonl")
    answer(monkeypatch, "", "")
    code, _, errors = cli("init")
    assert code == 1 and "Standard input ended before all questions" in errors
    assert not (here / "config.yaml").exists()
    answer(monkeypatch, "", "", "", "")
    assert cli("init")[0] == 0
    assert load_config(here / "config.yaml").prompts.file == "asked.jsonl"


def test_a_data_set_of_the_hub_is_named_and_not_read(cli, here):
    assert cli("init", "--yes", "--prompts", "who/what", "--model", "who/model")[0] == 0
    config = load_config(here / "config.yaml")
    assert config.prompts.dataset == "who/what" and config.train.lora == 16


@pytest.mark.parametrize(
    ("installed", "account", "shown"),
    [
        ([], {}, None),
        (["tensorboard", "trackio", "wandb"], {}, ("tensorboard", "trackio")),
        (["wandb"], {"WANDB_MODE": "offline"}, ("wandb",)),
    ],
)
def test_installed_trackers_are_turned_on(cli, here, monkeypatch, installed, account, shown):
    monkeypatch.setattr("infalign.cli.init.find_spec", lambda name: name in installed)
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in account.items():
        monkeypatch.setenv(name, value)
    assert cli("init", "--yes")[0] == 0
    assert load_config(here / "config.yaml").train.report_to == shown


def test_every_key_is_written_as_it_is_read_and_explained():
    values = {
        "model": "a: b",
        "reward": "#c",
        "prompts": {"file": "null", "column": "yes"},
        "procedure": "best-of-n:4",
        "kl": 1e-5,
        "train": {"baselines": ["rlhf", "vbon"], "learning_rate": 1e-5},
    }
    text = configuration(values, "config.yaml")
    assert yaml.safe_load(text) == values
    assert parse_config(values).train.learning_rate == 1e-5
    for key in ("model", "reward", "procedure", "kl"):
        words = " ".join(text.replace("\n", " ").replace("# ", " ").split())
        assert " ".join(Config.model_fields[key].description.split()) in words
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("columns", [[], ["answer", "a b", "tests"]])
def test_the_reward_function_runs_on_the_form_that_it_states(tmp_path, plain, columns):
    text = reward_function("reward.py", "config.yaml", plain, columns)
    names: dict = {}
    exec(compile(text, "reward.py", "exec"), names)
    texts = ["a" * 100, "b" * 50]
    given = texts if plain else [[{"role": "assistant", "content": t}] for t in texts]
    assert names["score"](prompts=["", ""], completions=given, answer=[1, 2]) == [0.0, -0.5]
    assert all(column in text for column in columns)
    (tmp_path / "reward.py").write_text(text)
    assert reward_functions(tmp_path / "reward.py") == ["score"]
