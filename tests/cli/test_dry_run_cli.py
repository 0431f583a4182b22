"""`--dry-run` of commands that use models as they are: what can be known is said before the first
response, the work is counted, and nothing is written. Without it, they check the same."""

import sys

import pytest

from infalign.errors import DataError
from infalign.models.hf import LanguageModel

MODEL = "bundled:language-model"
CODE = """
def length(prompts, completions, **columns):
    return [float(len(c if isinstance(c, str) else c[-1]["content"])) for c in completions]
def needs(prompts, completions, target):
    return [0.0 for _ in completions]
def few(prompts, completions, **columns):
    return [0.0]
def broke(prompt, response):
    return len(response) > 9
def number(prompt, response):
    return 0.5
def target(prompt, response, target):
    return True
def lists(prompts, completions, **columns):
    return True
def judge(prompts, first, second):
    return [2.0 for _ in first]
def answer(text):
    return []
"""
SAMPLE = ("sample", "--model", MODEL, "--max-new-tokens", 4, "How?", "Why?")
RED_TEAM = (
    *("red-team", "--model", MODEL, "--prompts", "bundled:harmless", "--limit", 2),
    *("--attempts", 3, "--max-new-tokens", 4, "--out", "out"),
)
EVALUATE = (
    *("evaluate", "--policy", f"mine={MODEL}", "--reference", MODEL, "--prompts"),
    *("bundled:harmless", "--limit", 2, "--samples", 3, "--procedure", "best-of-n:3"),
    *("--max-new-tokens", 4, "--out", "out"),
)
REWARD = ("--reward", "mine.py:length")
COMMANDS = {
    "sample": (*SAMPLE, *REWARD),
    "red-team": (*RED_TEAM, *REWARD, "--threshold", 9),
    "evaluate": (*EVALUATE, *REWARD),
}


@pytest.fixture
def command(cli, tmp_path, monkeypatch):
    """Runs a command beside `mine.py`; its exit code, output, errors, and the files beside it."""
    (tmp_path / "mine.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def run(*words):
        code, out, errors = cli(*words)
        files = {p.name for p in tmp_path.iterdir()} - {"mine.py"}
        return code, " ".join(out.split()), " ".join(errors.split()), files

    yield run
    sys.modules.pop("mine", None)


@pytest.fixture
def silent(monkeypatch):
    """Models that must not write."""

    def refuse(*arguments, **settings):
        raise AssertionError("a response was drawn")

    monkeypatch.setattr(LanguageModel, "sample", refuse)


@pytest.mark.parametrize(
    ("words", "counts"),
    [
        (COMMANDS["sample"], "sample 8 8 0"),
        ((*SAMPLE, "--procedure", "majority-vote:5"), "sample 10 0 0"),
        (
            (*SAMPLE, *REWARD, "--procedure", "soft-best-of-n:2:0.1", "--references", 7),
            "sample 18 18 0",
        ),
        (COMMANDS["red-team"], "red-team 12 12 0"),
        ((*RED_TEAM, "--success", "mine.py:broke", "--augment", "none"), "red-team 6 0 0"),
        (COMMANDS["evaluate"], "evaluate 12 12 0"),
        (
            (*EVALUATE, *REWARD, "--gold", "g=mine.py:length", "--judge", "reward:mine.py:length"),
            "evaluate 12 24 4",
        ),
    ],
)
def test_the_work_is_counted_and_nothing_is_drawn_or_written(command, silent, words, counts):
    code, out, errors, files = command(*words, "--dry-run", "--measure", 0)
    assert code == 0, errors
    assert "checks passed" in out and counts in out and "Nothing was written" in out
    assert files == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_models_are_measured_for_as_long_as_asked(command, name):
    code, out, errors, files = command(*COMMANDS[name], "--dry-run", "--measure", 20)
    assert code == 0, errors
    assert "Measured on" in out and f"{name} " in out and files == set()


WRONG = [
    ("sample", ("--reward", "mine.py:nothing"), "mine.py:nothing"),
    ("sample", ("--reward", "mine.py:few"), "must return one number per completion"),
    ("sample", ("--reward", "mine.py:needs"), "needs `target`"),
    ("sample", (*REWARD, "--model", "no/such"), "no/such"),
    ("sample", (*REWARD, "--max-new-tokens", 100_000), "positions"),
    ("sample", (*REWARD, "--out", "mine.py/results"), "mine.py is not a folder"),
    (
        "sample",
        ("--procedure", "majority-vote:3", "--answers", "mine.py:answer"),
        "must be hashable",
    ),
    ("red-team", ("--reward", "mine.py:few", "--threshold", 0), "must return one number per"),
    ("red-team", ("--success", "mine.py:number"), "must return True or False; got 0.5"),
    ("red-team", ("--success", "mine.py:lists"), "must return a list with True or False"),
    ("red-team", ("--success", "mine.py:target"), "needs `target`"),
    ("red-team", ("--success", "mine.py:broke", "--model", "no/such"), "no/such"),
    ("evaluate", ("--reward", "mine.py:few"), "must return one number per completion"),
    ("evaluate", (*REWARD, "--judge", "mine.py:judge"), "must return 1, 0.5 or 0"),
    ("evaluate", (*REWARD, "--gold", "g=mine.py:needs"), "needs `target`"),
    (
        "evaluate",
        (*REWARD, "--procedure", "majority-vote:3", "--answers", "mine.py:answer"),
        "must be hashable",
    ),
]


@pytest.mark.parametrize("dry", [("--dry-run", "--measure", 0), ()], ids=["dry", "real"])
@pytest.mark.parametrize(("name", "more", "words"), WRONG)
def test_what_is_wrong_is_said_before_the_first_response(command, silent, dry, name, more, words):
    start = {"sample": SAMPLE, "red-team": RED_TEAM, "evaluate": EVALUATE}[name]
    code, out, errors, files = command(*start, *more, *dry)
    assert code == 1 and words in errors and out == "", (out, errors)
    assert "Traceback" not in errors and files == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_servers_are_probed(command, name, monkeypatch):
    asked, url = [], "http://127.0.0.1:9/v1#m"

    def probe(spec, **settings):
        asked.append(spec)
        if spec == url:
            raise DataError("The server is not there.")
        return {"weights": "known"}

    for module in ("pipeline.check", "comparison.origins", "red_team.campaign"):
        monkeypatch.setattr(f"infalign.{module}.policy_parts", probe)
    words = [f"mine={url}" if w == f"mine={MODEL}" else w for w in COMMANDS[name]]
    words = [url if w == MODEL and name != "evaluate" else w for w in words]
    code, _, errors, files = command(*words, "--dry-run", "--measure", 0)
    assert code == 1 and "The server is not there." in errors and url in asked
    assert files == set()


@pytest.mark.parametrize("name", ["red-team", "evaluate"])
def test_what_is_stored_is_not_counted_again(command, name):
    judge = () if name == "red-team" else ("--judge", "reward:mine.py:length")
    words = (*COMMANDS[name], *judge)
    assert command(*words)[0] == 0
    _, out, _, _ = command(*words, "--dry-run", "--measure", 0)
    assert f"{name} done" in out
    if name == "evaluate":
        more = (*words, "--samples", 5, "--gold", "g=mine.py:length")
        # 2 policies and the reference's 2 more samples of 2 prompts; 12 stored scores of the gold.
        _, out, _, _ = command(*more, "--dry-run", "--measure", 0)
        assert "evaluate 8 28 4" in out
