"""An evaluation without KL: everything else is measured, and tables say that the KL is not."""

import json
import sys

import pytest
from enumerable import EnumerableModel

from infalign.cli.app import main
from infalign.errors import DataError
from infalign.models.inspection import inspect_kl


def length(prompts, completions, **columns):
    return [len(c[-1]["content"]) for c in completions]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models whose tokens have different ids."""
    folder = tmp_path_factory.mktemp("models")
    for name, letters in {"mine": "acb", "reference": "abc"}.items():
        EnumerableModel.make(folder / name, seed=0, letters=letters)
    (folder / "prompts.jsonl").write_text(
        "".join(f'{{"id": "{w}", "prompt": "{w}", "split": "test"}}\n' for w in ("ab", "c", "ba"))
    )
    return folder


@pytest.fixture
def evaluate(models, tmp_path, monkeypatch, capsys):
    """Runs the command with further options; returns its exit status, output and errors."""

    def run(*options):
        words = [
            *("infalign", "evaluate", "--policy", f"mine={models / 'mine'}", "--reference"),
            *(str(models / "reference"), "--reward", f"python:{__name__}:length", "--prompts"),
            *(str(models / "prompts.jsonl"), "--samples", "4", "--max-new-tokens", "3"),
            *("--out", str(tmp_path / "out"), *options),
        ]
        monkeypatch.setattr(sys, "argv", words)
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code or 0
        told = capsys.readouterr()
        return status, told.out, " ".join(told.err.split())

    return run


def test_models_with_different_tokens_are_compared_without_a_kl(evaluate, models, tmp_path):
    inspect_kl(str(models / "mine"), str(models / "mine"))
    with pytest.raises(DataError, match="write with different tokens"):
        inspect_kl(str(models / "mine"), str(models / "reference"))
    status, _, errors = evaluate()
    assert status == 1 and "different tokens" in errors and "--no-kl" in errors
    assert not (tmp_path / "out").exists()  # nothing stands in the way of another attempt
    status, shown, _ = evaluate("--no-kl", "--format", "markdown")
    assert status == 0 and "| mine | not measured |" in shown
    results = json.loads((tmp_path / "out" / "evaluation" / "results.json").read_text())
    (policy,) = results["policies"]
    assert policy["kl"] is policy["kl_efficiency"] is policy["frontier"] is None
    assert policy["win_rates"]["best-of-n:4"]["value"] is not None


def test_the_number_of_samples_and_no_kl_exclude_each_other(evaluate):
    status, _, errors = evaluate("--no-kl", "--kl-samples", "3")
    assert status == 2 and "is not used with --no-kl" in errors


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--policy", "other=nothing"), "The policy other 'nothing' is not a folder"),
        (("--gold", "g=bundled:language-model"), "There is no bundled reward"),
        (("--gold", "g=python:nothing:at_all"), "cannot be loaded"),
        (("--judge", "http:///v1#m"), "The judge 'http:///v1#m' is not a URL"),
        (("--max-new-tokens", "60"), "has 32 positions; prompt 'p"),
    ],
)
def test_models_are_checked_before_the_first_sample(evaluate, tmp_path, option, words):
    status, _, errors = evaluate("--no-kl", *option)
    assert status == 1 and words in errors
    assert not (tmp_path / "out").exists()
