"""`infalign evaluate` as a user types it."""

import json
import logging

import pytest

from infalign.cli.evaluate import _held_out
from infalign.config import EvaluationPrompts
from infalign.prompts import held_out, load_prompts

POLICIES = ("--policy", "a=bundled:language-model", "--policy", "b=bundled:language-model")
SMALL = (
    *("--reference", "bundled:language-model", "--reward", f"python:{__name__}:length"),
    *("--prompts", "bundled:helpful", "--limit", 4, "--samples", 4, "--max-new-tokens", 4),
)


def length(prompts, completions, **columns):
    return [len(c[-1]["content"]) for c in completions]


def vowels(prompts, completions, **columns):
    return [sum(map(c[-1]["content"].count, "aeiou")) for c in completions]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluate") / "out"


def test_one_command_compares_policies_and_writes_a_page(cli, folder):
    options = ("--procedure", "best-of-n:2", "--procedure", "sampling", "--out", folder)
    code, out, err = cli("evaluate", *POLICIES, *SMALL, *options)
    assert code == 0, err
    for words in ("4 held-out prompts × 4 samples", "best-of-2", "plain sampling", "report.html"):
        assert words in out
    assert "evaluate reference" in err and "evaluate reference" not in out
    page = (folder / "report.html").read_text()
    assert "decoded with best-of-2" in page and "Report of a comparison" in page
    assert "--out NEW" in page and "responses written" in page
    assert (folder / "plots" / "by_n.png").exists()


def test_again_with_a_gold_reward_as_json_it_draws_nothing_anew(cli, folder):
    before = (folder / "evaluation" / "a.parquet").stat().st_size
    options = ("--procedure", "worst-of-n:2", "--gold", f"vowels=python:{__name__}:vowels")
    code, out, _ = cli("evaluate", *POLICIES, *SMALL, *options, "--out", folder, "--format", "json")
    results = json.loads(out)
    assert code == 0 and results["procedure"] == "worst-of-n:2"
    assert set(results["policies"][0]["gold"]["vowels"]) == {"worst-of-n:2"}
    assert (folder / "evaluation" / "a.parquet").stat().st_size > before


@pytest.mark.parametrize(("form", "words"), [("markdown", "| ---: |"), ("latex", "\\toprule")])
def test_tables_for_papers(cli, folder, form, words):
    code, out, _ = cli("evaluate", *POLICIES, *SMALL, "--out", folder, "--procedure",
                       "best-of-n:2", "--format", form)  # fmt: skip
    assert code == 0 and words in out


def test_a_plan_needs_no_model(cli):
    code, out, _ = cli("evaluate", "--plan", "--procedure", "best-of-n:2", "--difference", 5)
    assert code == 0 and "To detect 5 points" in out and "best-of-2" in out
    code, out, _ = cli("evaluate", "--plan", "--procedure", "best-of-n:2", "--format", "json")
    plans = json.loads(out)["best-of-n:2"]
    assert [p["samples"] for p in plans] == [2, 4, 8, 16, 32]
    assert sorted((p["prompts"] for p in plans), reverse=True) == [p["prompts"] for p in plans]


def test_a_pilot_tells_how_prompts_differ(cli, folder):
    code, out, err = cli("evaluate", "--plan", "--pilot", folder, "--procedure", "best-of-n:2")
    assert code == 0, err
    assert "In the pilot's 4 prompts × 4 samples" in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "words", "status"),
    [
        (("--policy", "a=x"), "needs --reference, --reward, --prompts", 2),
        ((*POLICIES[:2], *SMALL, "--policy", "nameless"), "--policy: must be NAME=VALUE", 2),
        ((*POLICIES[:2], *POLICIES[:2], *SMALL), "--policy: names 'a' twice", 2),
        ((*POLICIES, *SMALL, "--procedure", "best-of-n:8"), "fewer than the 8", 1),
        ((*POLICIES, *SMALL, "--top-p", "1.5"), "`top_p`", 1),
        (("--plan", "--kl", "0"), "--kl: must be above 0", 2),
        (("--plan", "--difference", "0"), "--difference: must lie between 0 and 100", 2),
    ],
)
def test_wrong_usage_is_one_message(cli, tmp_path, arguments, words, status):
    if "--plan" not in arguments:
        arguments = (*arguments, "--out", tmp_path / "out")
    code, _, err = cli("evaluate", *arguments)
    assert code == status and words in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err and not (tmp_path / "out").exists()


def test_prompts_that_are_held_out_and_those_of_them_that_are_used_are_counted(caplog):
    caplog.set_level(logging.INFO, "infalign")
    source = EvaluationPrompts(file="bundled:harmless")
    whole = load_prompts(source)
    held = held_out(whole, 0.3)
    count = f"{len(held)} of {len(whole)} prompts are held out by a hash of their text"
    assert _held_out(source, {}, 0.3) == held and f"{count}." in caplog.text
    caplog.clear()
    few = source.model_copy(update={"limit": 4})
    assert _held_out(few, {}, 0.3) == held[:4]
    assert f"{count}; the first 4 are used (--limit)." in caplog.text
