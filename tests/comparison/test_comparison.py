"""Policies trained anywhere, compared: drawn once, continued, extended, refused."""

import json
import shutil
from collections import Counter
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from kills import killed_at
from transformers import AutoModelForCausalLM, AutoTokenizer

from infalign import BestOfN, ConfigError, SoftBestOfN, storage, win_rate
from infalign.comparison import measured, sampling
from infalign.comparison.comparison import Comparison
from infalign.comparison.notices import notices
from infalign.comparison.run import compare_policies
from infalign.config import EvaluationPrompts, SamplingSettings
from infalign.demo import FOLDER
from infalign.evaluation import laws, soft_laws
from infalign.evaluation.gold import gold_win_rate
from infalign.prompts import Prompt, load_prompts

REFERENCE = "bundled:language-model"


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """The bundled model with every weight moved a little: a policy at some KL."""
    folder = tmp_path_factory.mktemp("moved") / "model"
    path = FOLDER / "models" / "language-model"
    model = AutoModelForCausalLM.from_pretrained(path)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1 + 0.05 * torch.randn_like(weight))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(path).save_pretrained(folder)
    return str(folder)


def length(prompts, completions, **columns):
    return [len(c[-1]["content"]) for c in completions]


def vowels(prompts, completions, **columns):
    return [sum(map(c[-1]["content"].count, "aeiou")) for c in completions]


def plan(moved, **changed):
    source = EvaluationPrompts(file="bundled:harmless", limit=6)
    settings = {
        "reference": REFERENCE,
        "policies": {"moved": moved},
        "reward": f"python:{__name__}:length",
        "gold": {"vowels": f"python:{__name__}:vowels"},
        "prompts": load_prompts(source),
        "procedures": ("best-of-n:2", "sampling"),
        "sampling": SamplingSettings(max_new_tokens=6, batch_size=2),
        "samples": 4,
        "kl_samples": 2,
    }
    return Comparison(**settings | changed)


@pytest.fixture(scope="module")
def compared(moved, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared") / "out"
    return folder, compare_policies(plan(moved), folder)


def column(folder, name, what, shape=(6, 4)):
    table = pq.read_table(folder / "evaluation" / f"{name}.parquet")
    return table[what].to_numpy(zero_copy_only=False).reshape(shape)


def test_results_agree_with_the_samples_they_come_from(compared):
    folder, results = compared
    ours, theirs = (column(folder, n, "reward").astype(float) for n in ("moved", "reference"))
    gold, gold_ref = (column(folder, n, "reward_vowels") for n in ("moved", "reference"))
    (policy,) = results["policies"]
    stated = policy["win_rates"]["best-of-n:2"]["value"]
    assert stated == win_rate(ours, theirs, BestOfN(2)).value
    judged = gold_win_rate(gold, ours, gold_ref, theirs, BestOfN(2)).value
    assert policy["gold"]["vowels"]["best-of-n:2"]["value"] == judged
    assert results["by_n"]["best-of-n"]["win_rates"]["reward"]["moved"][1]["value"] == stated
    assert policy["kl"]["value"] == pytest.approx(
        np.nanmean(column(folder, "moved", "kl").astype(float))
    )
    assert json.loads((folder / "evaluation" / "results.json").read_text()) == results


def test_prompts_in_another_order_meet_their_own_samples(compared, moved, tmp_path):
    folder, results = compared
    shutil.copytree(folder, tmp_path / "out")
    (tmp_path / "out" / "evaluation" / "results.json").unlink()
    before = {p.name for p in (tmp_path / "out" / "evaluation").iterdir()}
    turned = compare_policies(plan(moved, prompts=plan(moved).prompts[::-1]), tmp_path / "out")
    assert {p.name for p in (tmp_path / "out" / "evaluation").iterdir()} - before == {
        "results.json"
    }
    for old, new in zip(results["policies"], turned["policies"], strict=True):
        for procedure, estimate in old["win_rates"].items():
            assert new["win_rates"][procedure]["value"] == pytest.approx(estimate["value"])
            assert new["win_rates"][procedure]["stderr"] == pytest.approx(estimate["stderr"])


def test_rewards_and_lengths_are_those_of_the_stored_replies(compared):
    folder, _ = compared
    replies = column(folder, "moved", "completion").ravel()
    assert column(folder, "moved", "reward").ravel().tolist() == [len(r) for r in replies]
    assert column(folder, "moved", "reward_vowels").ravel().tolist() == [
        sum(map(r.count, "aeiou")) for r in replies
    ]


@pytest.mark.parametrize(
    ("reward", "noise", "settled"),
    [("bundled:harmless", 1e-2, True), ("rewards:f", 1e-6, True), ("rewards:f", 1e-2, False)],
)
def test_equal_responses_have_one_score_unless_a_function_tells_them_apart(reward, noise, settled):
    """A batch rounds the score of a text; of a function only rounding is settled."""
    texts = {"reference": [["a", "a", "b"], ["c", "d", "d"]], "own": [["a", "e", "e"], ["a"] * 3]}
    exact = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0, "e": 5.0}
    stored = {
        name: np.vectorize(exact.get)(rows) + noise * (place + np.arange(6).reshape(2, 3))
        for place, (name, rows) in enumerate(texts.items(), 1)
    }
    spec = reward if reward.startswith("bundled") else f"python:{reward}"
    comparison = SimpleNamespace(prompts=[0, 1], samples=3, rewards={"reward": spec})
    own = measured.Measured(comparison, None)
    own.__dict__["samples"] = {
        name: SimpleNamespace(matrix=lambda _, n=name: stored[n], rows=lambda _, n=name: texts[n])
        for name in texts
    }
    ours, theirs = own.rewards("own"), own.rewards("reference")
    if not settled:
        assert np.array_equal(ours, stored["own"])
        assert np.array_equal(theirs, stored["reference"])
        return
    assert ours[0, 0] == theirs[0, 0] == theirs[0, 1] == stored["reference"][0, 0]
    assert ours[0, 1] == ours[0, 2] == stored["own"][0, 1]
    assert (ours[1] == stored["own"][1, 0]).all()  # the other prompt's "a" is another text
    assert own.win_rate("own", BestOfN(1), BestOfN(1)).per_prompt[0] == pytest.approx(7 / 9)


def test_kl_is_measured_on_the_first_replies_only_and_null_elsewhere(compared):
    folder, _ = compared
    known = ~np.isnan(column(folder, "moved", "kl").astype(float))
    assert known.tolist() == [[True, True, False, False]] * 6
    assert np.isnan(column(folder, "reference", "kl").astype(float)).all()


def test_a_killed_comparison_continues_with_the_same_samples(compared, moved, tmp_path):
    folder, results = compared
    with killed_at(6, (storage, "save_table")) as kill:
        compare_policies(plan(moved), tmp_path / "out")
    assert kill.came
    parts = sorted(p.name for p in (tmp_path / "out" / "evaluation" / "parts").iterdir())
    assert parts == ["moved-00000.parquet", "moved-00001.parquet"]
    assert compare_policies(plan(moved), tmp_path / "out") == results
    again = pq.read_table(tmp_path / "out" / "evaluation" / "moved.parquet")
    assert again == pq.read_table(folder / "evaluation" / "moved.parquet")
    assert not (tmp_path / "out" / "evaluation" / "parts").exists()


def test_shards_that_a_kill_left_beside_their_table_are_removed(compared, moved, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(compared[0], out)
    parts = out / "evaluation" / "parts"
    parts.mkdir()
    for name in ("moved-00000.parquet", "moved-00001.parquet"):
        shutil.copy(out / "evaluation" / "moved.parquet", parts / name)
    assert compare_policies(plan(moved), out) == compared[1]
    assert not parts.exists()


def test_more_rewards_policies_and_procedures_use_the_samples_there_are(
    moved, tmp_path, monkeypatch
):
    first = plan(moved, gold={}, policies={"same": moved})
    compare_policies(first, tmp_path)
    kept = column(tmp_path, "same", "completion").tolist()
    drawn = []
    draw_one = sampling._sampled
    monkeypatch.setattr(
        sampling, "_sampled", lambda *arguments: drawn.append(arguments[2]) or draw_one(*arguments)
    )
    more = plan(moved, policies={"same": moved, "other": REFERENCE}, procedures=("worst-of-n:2",))
    results = compare_policies(more, tmp_path)
    assert set(drawn) == {"other"}
    assert column(tmp_path, "same", "completion").tolist() == kept
    assert column(tmp_path, "same", "reward_vowels").shape == (6, 4)
    assert [p["method"] for p in results["policies"]] == ["same", "other"]
    assert results["differences"][0]["b"] == "other"


def test_samples_drawn_otherwise_are_refused(compared, moved):
    folder, _ = compared
    for changed, named in (
        ({"seed": 1}, "seed"),
        ({"policies": {"moved": REFERENCE}}, "policies.moved"),
        ({"gold": {"vowels": f"python:{__name__}:length"}}, "gold.vowels"),
    ):
        with pytest.raises(ConfigError, match=f"other settings: {named} .*, not "):
            compare_policies(plan(moved, **changed), folder)


def test_a_folder_of_other_things_is_left_alone(moved, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="not empty and holds no comparison"):
        compare_policies(plan(moved), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_judge_compares_selected_responses_in_both_orders(moved, tmp_path):
    # The judge is the order of the reward itself, so that its verdicts are known.
    judged = plan(moved, judge=f"reward:python:{__name__}:length", judge_pairs=3)
    results = compare_policies(judged, tmp_path)
    verdict = results["policies"][0]["judge"]
    rows = pq.read_table(tmp_path / "evaluation" / "judge-moved.parquet").to_pylist()
    ours, theirs = column(tmp_path, "moved", "reward"), column(tmp_path, "reference", "reward")
    wins = []
    for index, row in enumerate(rows):
        a = ours[index // 3][row["policy_sample"]]
        b = theirs[index // 3][row["reference_sample"]]
        assert row["policy_first"] == (np.sign(a - b) + 1) / 2 == 1 - row["reference_first"]
        wins.append(row["policy_first"])
    assert verdict["win_rate"]["value"] == pytest.approx(np.mean(wins))
    assert verdict["pairs"] == 18 and verdict["excluded"] == 0
    assert verdict["position_bias"]["value"] == 0 and verdict["consistency"]["value"] == 1
    without = compare_policies(plan(moved), tmp_path)  # not asked for this time
    assert without["policies"][0]["judge"] is None


def test_soft_and_voting_procedures_agree_with_the_stored_samples(moved, tmp_path):
    # The answer is the first letter; two roads to a vote's win rate: all subsets, by hand.
    spec, reading = "majority-vote:3", f"python:{__name__}:first_letter"
    procedures = (spec, "soft-best-of-n:2:0.2", "rewind:0.7:3")
    results = compare_policies(plan(moved, procedures=procedures, answers=reading), tmp_path)
    rates = results["policies"][0]["win_rates"]
    assert set(rates) == set(procedures) and results["procedure"] == spec
    assert spec not in results["frontier"] and "rewind:0.7:3" in results["frontier"]
    assert results["policies"][0]["length_controlled"][spec] is None
    control = results["policies"][0]["length_controlled"]["soft-best-of-n:2:0.2"]
    assert control["overlap"] == 1 - max(control["longer"], control["shorter"])
    assert (control["value"] is None) == (control["warning"] is not None)
    assert (control["value"] is not None) == control["identified"]
    assert 0 <= control["bounds"][0] < control["bounds"][1] <= 1
    kept = {}
    for name in ("moved", "reference"):
        texts, rewards = column(tmp_path, name, "completion"), column(tmp_path, name, "reward")
        kept[name] = [voted(t, r) for t, r in zip(texts, rewards, strict=True)]
    wins = []
    for ours, theirs in zip(kept["moved"], kept["reference"], strict=True):
        (a, p), (b, q) = np.transpose(ours), np.transpose(theirs)
        wins.append(p @ (1 + np.sign(a[:, None] - b)) @ q / 2)
    assert rates[spec]["value"] == pytest.approx(np.mean(wins))
    known = column(tmp_path, "calibration", "reward")
    ours, theirs = column(tmp_path, "moved", "reward"), column(tmp_path, "reference", "reward")
    soft = win_rate(ours, theirs, SoftBestOfN(2, 0.2), calibration=known).value
    assert rates["soft-best-of-n:2:0.2"]["value"] == pytest.approx(soft, rel=1e-14)
    assert (results["examples"][0]["responses"][0]["policy"]) == "reference"


def first_letter(text):
    return text[:1].lower() or None


def voted(texts, rewards):
    """(reward, chance) of what a majority of three keeps, over all threes."""
    answers, found = [first_letter(t) for t in texts], []
    subsets = list(combinations(range(len(texts)), 3))
    for some in subsets:
        votes = Counter(answers[i] for i in some if answers[i] is not None)
        first = [a for a in votes if votes[a] == max(votes.values())] or [None]
        for winner in first:
            places = [i for i in some if answers[i] == winner]
            share = 1 / len(first) / len(places) / len(subsets)
            found += [(rewards[i], share) for i in places]
    return found


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"policies": {"reference": "x"}}, "No policy can be called 'reference'"),
        ({"policies": {"../x": "x"}}, "letters, digits, - and _"),
        ({"gold": {"reward": "x"}}, "No gold reward can be called 'reward'"),
        ({"procedures": ("best-of-n:8",)}, "`samples` is 4, fewer than the 8 that best-of-n:8"),
        ({"against": "worst-of-n:5"}, "fewer than the 5"),
        ({"procedures": ("majority-vote:3",), "judge": "x"}, "Name another procedure first"),
    ],
)
def test_what_cannot_be_compared_is_said_before_anything_is_drawn(moved, changed, words):
    with pytest.raises(ConfigError, match=words):
        plan(moved, **changed)


def test_each_policy_and_procedure_has_its_chances_computed_once(moved, tmp_path, monkeypatch):
    # Win rates by three rewards, selected rewards, length control, the judge's pairs, differences
    # and the curves over n all read the same chances, whichever way those are computed.
    computed = Counter()

    def counted(compute):
        def count(values, procedure, *arguments, **options):
            computed[np.asarray(values).tobytes(), procedure] += 1
            return compute(values, procedure, *arguments, **options)

        return count

    for name in ("selection_chances", "vote_chances"):
        monkeypatch.setattr(measured, name, counted(getattr(measured, name)))
    spy = counted(lambda chances, *rest: soft_laws.selected_by_quantile(chances, *rest))
    monkeypatch.setattr(laws, "selected_by_quantile", spy)
    procedures = ("best-of-n:2", "sampling", "soft-best-of-n:2:0.2", "rewind:0.7:3")
    results = compare_policies(
        plan(
            moved,
            policies={"moved": moved, "other": REFERENCE},
            gold={"vowels": f"python:{__name__}:vowels", "length": f"python:{__name__}:length"},
            procedures=(*procedures, "majority-vote:3"),
            answers=f"python:{__name__}:first_letter",
            judge=f"reward:python:{__name__}:length",
        ),
        tmp_path,
    )
    assert len(results["policies"]) == 2 and results["differences"] and results["by_n"]
    # Three sets of samples (the reference is decoded too) under every procedure, among them the
    # members n = 1 and 2 of both families, of which best-of-n:2 is asked for already; what the soft
    # procedures read is located once more for their law.
    kinds = Counter(type(procedure).__name__ for _, procedure in computed)
    assert kinds["BestOfN"] == kinds["WorstOfN"] == 3 * 2 and kinds["int"] == 3
    assert kinds["Sampling"] == 3 and kinds["SoftBestOfN"] == kinds["Rewind"] == 3 * 2
    assert set(computed.values()) == {1}


def no_difference(prompts, completions, **columns):
    return [2.0] * len(completions)


def sometimes(text):
    return text[:1] if len(text) % 2 else None


def test_a_constant_reward_and_responses_without_an_answer_are_said(moved, tmp_path, caplog):
    gold = {"flat": f"python:{__name__}:no_difference"}
    answers = f"python:{__name__}:sometimes"
    votes = plan(moved, gold=gold, procedures=("majority-vote:2",), answers=answers)
    with caplog.at_level("WARNING", "infalign"):
        compare_policies(votes, tmp_path / "out")
    said = "\n".join(caplog.messages)
    assert f"The reward python:{__name__}:no_difference gives 2 to all 48 responses" in said
    assert f"{__name__}:length gives" not in said
    texts = pq.read_table(tmp_path / "out/evaluation/moved.parquet")["completion"].to_pylist()
    silent = sum(sometimes(text) is None for text in texts)
    assert 0 < silent and f"moved: {silent} of 24 responses have no answer and do not vote" in said
    assert "begin with a thought" not in said


@pytest.mark.parametrize("texts", ["abc", "aba"])
def test_prompts_that_repeat_another_one_are_said(texts):
    asked = [Prompt(f"p{i}", ({"role": "user", "content": t},)) for i, t in enumerate(texts)]
    comparison = SimpleNamespace(
        policies=[], rewards={}, pairs={}, prompts=asked, sampling=SimpleNamespace(answer="other")
    )
    said = list(notices(SimpleNamespace(comparison=comparison, texts=lambda name: np.array([""]))))
    assert [s.partition(".")[0] for s in said] == [
        "1 of 3 prompts repeat another one under another id"
    ] * (texts == "aba")


@pytest.mark.parametrize(("answer", "named"), [("whole", True), ("after-thinking", False)])
def test_thoughts_that_are_scored_as_responses_are_said(answer, named):
    drawn = {"reference": ["A.", "<think>B"], "a": ["<think>C.</think>C", "[THINK]D"]}
    measured = SimpleNamespace(
        comparison=SimpleNamespace(
            policies=["a"],
            rewards={},
            pairs={},
            prompts=[],
            sampling=SimpleNamespace(answer=answer),
        ),
        texts=lambda name: np.array([drawn[name]]),
    )
    said = list(notices(measured))
    counts = ["reference: 1 of 2 responses", "a: 2 of 2 responses"]
    assert [s.split(" begin with a thought. ")[0] for s in said] == counts * named
