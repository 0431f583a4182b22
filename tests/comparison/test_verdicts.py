"""A judge is asked for missing verdicts only, whatever an evaluation asks for in addition."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kills import killed_at
from test_extension import Numbered
from test_identity import PROMPTS, World, forget_modules

from infalign import storage
from infalign.comparison import sampling
from infalign.comparison.origins import digest
from infalign.evaluation.chances import draw_selected
from infalign.manifest import Manifest
from infalign.prompts import Prompt, columns_fingerprint, fingerprint
from infalign.stores import by_prompt

JUDGE = """
import json
from pathlib import Path
def judge(prompts, first, second, level):
    with open(Path(__file__).with_name("pairs"), "a") as file:
        for p, *pair in zip(prompts, first, second, level):
            file.write(json.dumps([p[-1]["content"], *pair]) + "\\n")
    return [float(a > b) if a != b else 0.5 for a, b in zip(first, second)]
"""


def leveled(prompts, level="low"):
    return [replace(p, columns={"level": level}) for p in prompts]


LEVELED = leveled(PROMPTS)
MORE = leveled([*PROMPTS, Prompt("p3", ({"role": "user", "content": "prompt 3"},))])
HALF = [*LEVELED[:1], *leveled(PROMPTS[1:], "high")]


class Judged(World):
    """A world that notes the pairs that its judge is asked to compare."""

    def __init__(self, folder, monkeypatch):
        super().__init__(folder, monkeypatch)
        (folder / "judge.py").write_text(JUDGE)
        self.drawn = []
        monkeypatch.setattr(sampling, "load_sampler", self.load)

    def load(self, path, **settings):
        return Numbered(self, Path(path))

    def _kl(self, comparison, models, sampler, conversations, drawn, first=0):
        filled = np.full((len(drawn), len(drawn[0])), np.nan)
        filled[:, : max(0, comparison.kl_samples - first)] = 0
        return {"kl": filled, "kl_sampled": filled}

    def judged(self, **changed):
        """The comparisons that the judge makes, in one order or the other."""
        file = self.folder / "pairs"
        file.unlink(missing_ok=True)
        forget_modules()
        self.compare(**{"prompts": LEVELED, "samples": 8, "judge_pairs": 2, **changed})
        return self.asked()

    def asked(self):
        file = self.folder / "pairs"
        lines = file.read_text().splitlines() if file.exists() else []
        return sorted(tuple(json.loads(line)) for line in lines)

    def alone(self, name, **changed):
        other = World.__new__(type(self))
        other.__dict__ |= self.__dict__ | {"out": self.folder / name}
        return other, other.judged(**changed)


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield Judged(tmp_path, monkeypatch)
    forget_modules()


@pytest.mark.parametrize(
    ("changed", "none"),
    [
        ({"samples": 10}, False),
        ({"prompts": MORE[::-1], "samples": 9}, False),
        ({"judge_pairs": 5}, False),
        ({"judge_pairs": 1}, True),
        ({"prompts": LEVELED[:0:-1]}, True),
        ({"procedures": ("best-of-n:2", "sampling", "worst-of-n:3")}, True),
        ({"procedures": ("sampling",)}, False),
        ({"against": "sampling", "samples": 6}, False),
        ({"prompts": HALF}, False),  # the judge reads the column
    ],
    ids=str,
)
def test_only_missing_pairs_are_judged_and_results_are_those_of_a_comparison_made_at_once(
    world, changed, none
):
    first = world.judged()
    assert len(first) > 8
    more = world.judged(**changed)
    once, whole = world.alone("once", **changed)
    assert world.results == once.results
    assert more == sorted(set(whole) - set(first))  # and each of them once
    assert (more == []) == none
    assert world.judged() == [] and world.judged(**changed) == []  # back and forth


@pytest.mark.parametrize(
    "changed",
    [{"judge_unreadable": "missing"}, {"judge_max_new_tokens": 9}, {"judge": "edited"}],
    ids=str,
)
def test_another_judge_is_asked_for_all_pairs_and_the_former_one_is_not_forgotten(
    world, changed, caplog
):
    first = world.judged()
    if "judge" in changed:
        changed = {}
        (world.folder / "judge.py").write_text(JUDGE + "# another one")
    assert world.judged(**changed) == first and "changed. It is asked again" in caplog.text
    assert world.judged(**changed) == []
    (world.folder / "judge.py").write_text(JUDGE)
    extended = world.judged(judge_pairs=3)
    assert set(extended).isdisjoint(first) and len(extended) < len(first)


@pytest.mark.parametrize("writes", (0, 2, 5, 7))
def test_an_extension_that_is_killed_at_any_write_asks_for_no_verdict_twice(
    world, writes, monkeypatch
):
    monkeypatch.setattr("infalign.comparison.verdicts.PART", 2)
    first = world.judged()
    world.judged(judge=None, samples=10)
    with killed_at(writes, (storage, "write_json")) as kill:
        world.judged(samples=10)
    assert kill.came
    lost = world.asked()
    rest = world.judged(samples=10)
    once, _ = world.alone("once", samples=10)
    assert world.results == once.results
    twice = set(lost) & set(rest)
    assert len(twice) <= 2 * 2  # at most one part
    assert world.judged(samples=10) == [] and world.judged() == [] and first


def test_verdicts_of_a_former_version_are_used_again(world):
    first = world.judged()
    out, manifest = world.out / "evaluation", Manifest(world.out / "evaluation")
    rows = {n: storage.read_table(out / f"{n}.parquet") for n in ("reference", "mine", "other")}

    def responses(name):
        return digest(by_prompt(rows[name], [p.id for p in LEVELED], source=name))

    columns = columns_fingerprint(LEVELED, world.comparison().judge)
    for name in ("mine", "other"):
        path = out / f"judge-{name}.parquet"
        made_from = json.loads(json.dumps(dict(manifest.made_from(path))))
        made_from["sources"]["verdicts"]["parts"] |= {
            "samples": responses(name),
            "reference's samples": responses("reference"),
            "prompts": fingerprint(LEVELED),
            "number of pairs": 2,
            "judge's columns of the prompts": columns["columns of the prompts"],
        }
        table = storage.read_table(path).drop_columns(["pair", "pair_checksum"])
        with manifest.recording(path, stage="evaluate", made_from=made_from):
            storage.write_table(path, table)
    assert first and world.judged() == []


def test_more_samples_change_as_few_selections_as_possible():
    # Half of the chance moves to the new samples, so half of the selections stay, and no other.
    rng = np.random.default_rng(0)
    few = rng.dirichlet(np.ones(6), 4000)
    many = np.hstack([few / 2, rng.dirichlet(np.ones(6), 4000) / 2])
    before, after = (draw_selected(c, 1, seed=3)[:, 0] for c in (few, many))
    assert set(after[after < 6] == before[after < 6]) == {True}
    assert abs((after < 6).mean() - 0.5) < 4 * np.sqrt(0.25 / 4000)
