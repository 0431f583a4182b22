"""`infalign analyze` says which policy wins under which procedure, and acts as a gate."""

import json
import sys

import numpy as np
import pytest

from infalign import BestOfN, win_rate
from infalign.cli.app import main


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    """Run a command line in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(words):
        monkeypatch.setattr(sys, "argv", ["infalign", "analyze", *words.split()])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return call


def drawn(mean, seed, prompts=60, m=8):
    return np.random.default_rng(seed).normal(mean, size=(prompts, m))


def write(path, scores, key="reward"):
    rows = [
        {"prompt_id": f"p{i}", key: x}
        for i, own in enumerate(scores)
        for x in np.asarray(own).tolist()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_its_numbers_are_those_of_the_estimators(cli, tmp_path):
    base, ours = drawn(0, 0), drawn(0.5, 1)
    write(tmp_path / "base.jsonl", base)
    write(tmp_path / "rl.jsonl", ours)
    code, out, err = cli("--reference base.jsonl --policy rl=rl.jsonl --format json")
    assert code == 0
    assert "base: prompts in `prompt_id`, scores in `reward`" in err
    result = json.loads(out)
    curve = next(c for c in result["curves"] if c["measure"] == "best-of-n")
    for row in curve["sizes"]:
        expected = win_rate(ours, base, BestOfN(row["n"]))
        assert row["value"] == expected.value
        assert (row["low"], row["high"]) == (expected.low, expected.high)
        assert row["joint_low"] <= row["low"]
    assert result["prompts"] == 60


def test_several_policies_are_ranked(cli, tmp_path):
    for name, mean in (("base", 0), ("a", 1.0), ("b", 1.02), ("c", 2.5)):
        write(tmp_path / f"{name}.jsonl", drawn(mean, len(name) + int(100 * mean)))
    sides = "--reference base.jsonl --policy a.jsonl --policy b.jsonl --policy c.jsonl"
    _, out, _ = cli(f"{sides} --procedure best-of-n:2 --format json")
    ranking = json.loads(out)["rankings"]["best-of-n at n = 2"]
    assert ranking["policies"][0]["policy"] == "c"
    assert ranking["policies"][-1]["policy"] == "base"
    assert len(ranking["pairs"]) == 6
    _, out, _ = cli(f"{sides} --procedure best-of-n:2")
    assert "tied" in out


def test_files_of_one_name_are_called_by_their_folders(cli, tmp_path):
    for name, mean in (("base", 0), ("rl", 1)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "samples.jsonl", drawn(mean, mean))
    sides = "--reference base/samples.jsonl --policy rl/samples.jsonl"
    _, out, _ = cli(f"{sides} --procedure best-of-n:2 --format json")
    result = json.loads(out)
    assert [own["name"] for own in result["policies"]] == ["base", "rl"]


GATE = "--reference base.jsonl --policy rl.jsonl --procedure best-of-n:4"


@pytest.mark.parametrize(
    ("mean", "options", "code", "words"),
    [
        (1.0, "--fail-if-worse-than base", 0, "rl against base, best-of-n:4: not worse"),
        (-1.0, "--fail-if-worse-than base", 3, "shown worse"),
        (0.0, "--fail-if-worse-than base --margin 0.5", 4, "the data cannot tell"),
        (0.0, "--fail-if-worse-than base --margin 30", 0, "not worse, with a margin of 30 %"),
        (1.0, "--fail-under 50", 0, "rl under 50 %, best-of-n:4: not worse"),
        (1.0, "--fail-under 99", 3, "shown worse"),
    ],
)
def test_it_is_a_gate(cli, tmp_path, mean, options, code, words):
    write(tmp_path / "base.jsonl", drawn(0, 0))
    write(tmp_path / "rl.jsonl", drawn(mean, 5))
    returned, _, err = cli(f"{GATE} {options}")
    assert returned == code
    assert words in err
    if code == 4:
        assert "prompts would" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--procedure best-of-n --fail-under 50", "--procedure with its n"),
        ("--fail-if-worse-than base", "--procedure with its n"),
        ("--procedure best-of-n:2 --fail-if-worse-than other", "one of base, rl"),
        ("--procedure best-of-n:2 --fail-under 101", "between 0 and 100"),
        ("--procedure best-of-n:2 --fail-under 50 --margin -1", "at least 0"),
        ("--procedure best", "--procedure"),
        ("--drop all", "--drop"),
        ("--column reward", "NAME=VALUE"),
        ("--policy rl.jsonl", "twice"),
    ],
)
def test_wrong_usage_is_named(cli, tmp_path, words, message):
    for name in ("base", "rl"):
        write(tmp_path / f"{name}.jsonl", drawn(0, 0, prompts=4))
    code, out, err = cli(f"--reference base.jsonl --policy rl.jsonl {words}")
    assert (code, out) == (2, "")
    assert message in " ".join(err.replace("│", " ").split())


def test_prompts_that_a_policy_lacks_are_refused_or_dropped(cli, tmp_path):
    write(tmp_path / "base.jsonl", drawn(0, 0))
    write(tmp_path / "rl.jsonl", drawn(0, 1, prompts=50))
    code, _, err = cli("--reference base.jsonl --policy rl.jsonl")
    assert code == 1
    assert "10 of the 60 prompts of 'base' are missing" in err
    assert "--drop unmatched" in err
    code, _, err = cli("--reference base.jsonl --policy rl.jsonl --drop unmatched")
    assert code == 0
    assert "base: 10 prompts that others lack, left out" in err


def test_texts_of_others_are_shown_as_they_are(cli, tmp_path):
    write(tmp_path / "base.jsonl", drawn(0, 0, prompts=4))
    write(tmp_path / "rl.jsonl", drawn(0, 1, prompts=4))
    _, out, _ = cli("--reference [b]a\x1b[31m=base.jsonl --policy rl.jsonl --procedure best-of-n:2")
    assert "\x1b[31m" not in out
    assert "[b]a\\x1b[31m" in out


def test_a_folder_gets_everything(cli, tmp_path):
    write(tmp_path / "base.jsonl", drawn(0, 0, prompts=9))
    write(tmp_path / "rl.jsonl", drawn(0, 1, prompts=9))
    assert cli("--reference base.jsonl --policy rl.jsonl --out verdict")[0] == 0
    names = {f.name for f in (tmp_path / "verdict").iterdir()}
    assert {"analysis.json", "report.html", "tables.md", "tables.tex"} <= names
    assert json.loads((tmp_path / "verdict/analysis.json").read_text())["prompts"] == 9


def judged(path, votes, **more):
    """Verdicts of two judges on new against old, in both orders."""
    rows = [
        {
            "prompt_id": f"p{i}",
            "model_a": sides[0],
            "model_b": sides[1],
            "winner": "tie" if won is None else "new" if won else "old",
            "judge": name,
            **{
                f"response_{x}": "x" * (10 + i % 7 if side == "new" else 13)
                for x, side in zip("ab", sides, strict=True)
            },
            **more,
        }
        for i, own in enumerate(votes)
        for name, won in zip("jk", own, strict=True)
        for sides in (("new", "old"), ("old", "new"))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_verdicts_of_judges_are_a_verdict_and_a_gate(cli, tmp_path):
    votes = np.random.default_rng(0).random((60, 2)) < 0.7
    judged(tmp_path / "judged.jsonl", votes.tolist())
    words = "--verdicts judged.jsonl --reference old --fail-if-worse-than old --out verdict"
    code, out, err = cli(f"{words} --own j=new --format json")
    assert code == 0 and "new against old, by the judges: not worse" in err
    (policy,) = json.loads(out)["policies"]
    assert policy["win_rate"]["value"] == pytest.approx(votes.mean())
    assert policy["judges"][0]["self_preference"]["value"] == pytest.approx(
        votes[:, 0].mean() - votes[:, 1].mean()
    )
    assert policy["length_controlled"]["overlap"] > 0.4
    page = (tmp_path / "verdict/report.html").read_text()
    for part in ("Win rate over old", "overlap, %", "Krippendorff", "Self-preference"):
        assert part in page and part in (tmp_path / "verdict/tables.md").read_text()
    assert cli(f"{words} --policy old".replace("--out verdict", ""))[0] == 2
    assert cli("--verdicts judged.jsonl --reference new --fail-if-worse-than new")[0] == 3


def test_invalid_answers_are_refused_or_counted(cli, tmp_path):
    judged(tmp_path / "judged.jsonl", [[True, True]] * 9)
    with (tmp_path / "judged.jsonl").open("a") as file:
        row = {
            "prompt_id": "z",
            "model_a": "new",
            "model_b": "old",
            "judge": "j",
            "winner": "error",
        }
        file.write(json.dumps(row) + "\n")
    code, _, err = cli("--verdicts judged.jsonl --reference old")
    assert code == 1 and "1 of 37 answers of the judges are invalid" in " ".join(err.split())
    code, out, _ = cli("--verdicts judged.jsonl --reference old --drop missing --format markdown")
    # Of the pair on z, one answer is invalid and the one in the other order is absent.
    assert code == 0 and "| 2 (90.0–100.0) |" in out


def test_a_judge_who_prefers_the_first_place_wins_nothing_by_absent_rows(cli, tmp_path):
    sides = [("new", "base"), ("base", "new")]
    rows = [
        {"prompt_id": i, "model_a": a, "model_b": b, "winner": "model_a"}
        for i in range(20)
        for a, b in sides[: 1 + i % 2]
    ]
    (tmp_path / "judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = "--verdicts judged.jsonl --reference base --fail-if-worse-than base --margin 0"
    code, _, err = cli(words)
    assert code == 1 and "10 of 20 pairs of 'new' and 'base'" in " ".join(err.split())
    code, out, _ = cli(f"{words} --drop missing --format json")
    (policy,) = json.loads(out)["policies"]
    assert code == 4 and policy["win_rate"]["value"] == 0.5
    assert policy["judges"][0]["one_order"] == 10


def test_figures_at_equal_length_stand_beside_their_overlap(cli, tmp_path):
    rng = np.random.default_rng(3)
    for name, longer in (("base", 0), ("rl", 40)):
        rows = [
            {
                "prompt_id": f"p{i}",
                "reward": rng.normal(),
                "length": int(rng.integers(90, 110)) + longer,
            }
            for i in range(30)
            for _ in range(4)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, out, _ = cli("--reference base.jsonl --policy rl.jsonl --format json")
    controls = json.loads(out)["length_controlled"]
    assert [c["measure"] for c in controls] == [
        "one sample",
        "best-of-n at n = 4",
        "worst-of-n at n = 4",
    ]
    assert all(c["overlap"] == 0 and c["value"] is None and not c["identified"] for c in controls)
    _, out, _ = cli("--reference base.jsonl --policy rl.jsonl --format markdown")
    assert "Win rate over base at equal length" in out and "† rl, one sample: The selected" in out


def test_lengths_in_different_units_are_left_out_with_a_note(cli, tmp_path):
    for name, length in (("base", {"n_tokens": 3}), ("rl", {"response": "a text"})):
        rows = [{"prompt_id": p, "reward": float(i)} | length for p in "ab" for i in range(4)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = cli("--reference base.jsonl --policy rl.jsonl --format json")
    assert code == 0 and json.loads(out)["length_controlled"] == []
    note = "lengths are left out: those of base are in tokens, those of rl in characters."
    assert f"rl: {note}" in " ".join(err.split())
    base, rl = json.loads(out)["policies"]
    assert (base["length_unit"], base["length_note"]) == ("tokens", None)
    assert rl["length_unit"] == "characters" and rl["length_note"].startswith(note)


def attempts(seed, prompts=120, m=40):
    rng = np.random.default_rng(seed)
    return (rng.random((prompts, m)) < rng.beta(0.4, 6, (prompts, 1))).astype(int)


def test_success_is_forecast_beyond_the_samples(cli, tmp_path):
    write(tmp_path / "log.jsonl", attempts(0))
    code, out, _ = cli("--reference log.jsonl --forecast 4000 --target 90 --format json --out x")
    assert code == 0
    ahead = json.loads(out)["forecasts"]
    (row,), (budget,) = ahead["at"], ahead["budgets"]
    assert row["low"] < row["value"] < row["high"] <= 1
    assert row["these_low"] < row["value"] < row["these_high"]
    assert (row["n"], budget["target"]) == (4000, 0.9) and budget["low"] > 40
    page = (tmp_path / "x" / "report.html").read_text()
    assert "Forecast: success, %" in page and "Samples for a target" in page
    code, _, err = cli("--reference log.jsonl")
    assert code == 2 and "--forecast" in err


def test_rewards_are_forecast_above_a_threshold_only(cli, tmp_path):
    write(tmp_path / "log.jsonl", drawn(0, 0, m=30))
    code, _, err = cli("--reference log.jsonl --forecast 100")
    assert code != 0 and "--forecast-above" in err and "rewards that were never drawn" in err
    code, out, _ = cli("--reference log.jsonl --forecast 100 --forecast-above 2 --format json")
    assert code == 0 and json.loads(out)["forecasts"]["what"] == "the best of n scores at least 2"
    code, _, err = cli("--reference log.jsonl --policy a=log.jsonl --forecast-above 2")
    assert code == 2 and "belongs to a forecast" in err


@pytest.mark.parametrize("shuffled", [False, True])
def test_attempts_that_stopped_at_the_first_success_are_recognized(cli, tmp_path, shuffled):
    rows = []
    for i, own in enumerate(attempts(1)):
        stop = int(own.argmax()) + 1 if own.any() else len(own)
        rows += [{"prompt_id": f"p{i}", "attempt": j, "success": int(own[j])} for j in range(stop)]
    if shuffled:
        np.random.default_rng(0).shuffle(rows)
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sides = "--reference log.jsonl --policy again=log.jsonl"
    code, out, err = cli(f"{sides} --procedure pass@n --forecast 400 --format json")
    assert code == 0 and "attempts stop at the first success" in err and "probability" in err
    result = json.loads(out)
    levels = [row["policy"]["value"] for row in result["curves"][0]["sizes"]]
    within = [(attempts(1)[:, :n].any(1)).mean() for n in range(1, 41)]
    assert levels == pytest.approx(within)
    assert result["forecasts"]["policies"][0]["stopped_at_first_success"]
    measured = json.loads(cli(f"{sides} --format json")[1])["curves"]
    assert [c["measure"] for c in measured] == ["pass@n"]
    code, _, err = cli(f"{sides} --procedure best-of-n:2")
    assert code != 0 and "Only pass@n can be known" in err
