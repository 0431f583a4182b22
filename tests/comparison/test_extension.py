"""An evaluation that asks for more draws only what is missing, and one that asks for less keeps
the rest."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from kills import killed_at
from test_identity import PROMPTS, World, forget_modules

from infalign import storage
from infalign.comparison import sampling
from infalign.config import SamplingSettings
from infalign.models.interfaces import Response
from infalign.prompts import Prompt
from infalign.seeds import uniforms

MORE = [*PROMPTS, Prompt("p3", ({"role": "user", "content": "prompt 3"},))]


class Numbered:
    """A policy whose responses depend on seed, prompt and number alone; it counts them."""

    def __init__(self, world, path):
        self.world, self.path = world, path

    def sample(self, conversations, n, *, seed, keys, first=0):
        self.world.drawn += [(self.path.name, key, first + k) for key in keys for k in range(n)]
        rows = [uniforms(seed, key, first, n, 1)[:, 0] for key in keys]
        return [[Response("e" * int(99 * u), (1, 2), -1.0) for u in row] for row in rows]


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = World(tmp_path, monkeypatch)
    own.drawn = []
    monkeypatch.setattr(sampling, "load_sampler", lambda path, **_: Numbered(own, Path(path)))
    monkeypatch.setattr(sampling, "_kl", first_ones)
    yield own
    forget_modules()


def first_ones(comparison, models, sampler, conversations, drawn, first=0):
    """A KL of 0 for the first responses, as a comparison measures it."""
    filled = np.full((len(drawn), len(drawn[0])), np.nan)
    filled[:, : max(0, comparison.kl_samples - first)] = 0
    return {"kl": filled, "kl_sampled": filled}


def compare(world, **changed):
    """The rows that are drawn, as (policy, prompt, number), and what else is asked."""
    world.drawn.clear()
    asked = world.compare(judge=None, **changed)
    return set(world.drawn), asked


def rows(world, name):
    table = storage.read_table(world.out / "evaluation" / f"{name}.parquet")
    names = ("prompt_id", "sample", "completion", "reward", "reward_human", "kl")
    return list(zip(*(table[n].to_pylist() for n in names if n in table.column_names), strict=True))


def alone(world, folder, **changed):
    """The comparison in a folder of its own."""
    other = World.__new__(World)
    other.__dict__ |= world.__dict__ | {"out": world.folder / folder}
    compare(other, **changed)
    return other


def all_of(prompts, numbers):
    return {(m, p.id, k) for m in ("base", "mine", "other") for p in prompts for k in numbers}


@pytest.mark.parametrize(
    ("changed", "missing"),
    [
        ({"samples": 6}, all_of(PROMPTS, (4, 5))),
        ({"prompts": MORE}, all_of(MORE[3:], range(4))),
        ({"prompts": MORE[::-1]}, all_of(MORE[3:], range(4))),
        ({"prompts": MORE, "samples": 5}, all_of(PROMPTS, [4]) | all_of(MORE[3:], range(5))),
        ({"prompts": PROMPTS[1:]}, set()),
        ({"samples": 2}, set()),
        ({"prompts": MORE[2:], "samples": 2}, all_of(MORE[3:], range(2))),
        ({"sampling": SamplingSettings(max_new_tokens=6, batch_size=1)}, set()),
    ],
    ids=(
        "more samples",
        "more prompts",
        "more prompts in another order",
        "more samples and prompts",
        "fewer prompts",
        "fewer samples",
        "other prompts and fewer samples",
        "another batch size",
    ),
)
def test_only_missing_rows_are_drawn_and_the_table_is_that_of_a_comparison_made_at_once(
    world, changed, missing
):
    compare(world)
    before = world.results, {name: rows(world, name) for name in ("reference", "mine", "other")}
    drawn, asked = compare(world, **changed)
    assert drawn == missing
    if not missing:
        assert asked == {}
    once = alone(world, "once", **changed)
    for name in ("reference", "mine", "other"):
        assert rows(world, name) == rows(once, name)
    assert world.results == once.results
    assert compare(world, **changed) == (set(), {})
    assert compare(world) == (set(), {})  # and back
    assert (world.results, {n: rows(world, n) for n in before[1]}) == before
    assert compare(world, **changed) == (set(), {}) and world.results == once.results


def test_a_prompt_whose_messages_changed_is_drawn_again_alone(world):
    compare(world)
    edited = [PROMPTS[0], Prompt("p1", ({"role": "user", "content": "other words"},)), PROMPTS[2]]
    drawn, _ = compare(world, prompts=edited)
    assert drawn == all_of(edited[1:2], range(4))
    assert compare(world) == (set(), {})  # the former words are there too
    assert compare(world, prompts=edited) == (set(), {})


def test_only_missing_scores_and_kls_are_computed(world, tmp_path):
    compare(world)
    scored = []
    true = sampling.score_responses

    def counted(reward, prompts, texts):
        scored.append(sum(map(len, texts)))
        return true(reward, prompts, texts)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sampling, "score_responses", counted)
        compare(world, gold={}, samples=6)
        assert scored == [6, 6, 6]  # two new samples of three prompts, by one reward
        scored.clear()
        compare(world, samples=6)
        assert scored == [6, 6, 6]  # the same ones, by the gold reward


def test_a_reward_that_comes_back_needs_no_new_scores(world):
    compare(world)
    before = rows(world, "mine")
    other = {"human": f"python:{world.folder}/proxy.py:reward"}
    assert compare(world, gold=other, renews=True) == (set(), {"proxy": 3})
    assert compare(world, renews=True) == (set(), {})
    assert rows(world, "mine") == before


@pytest.mark.parametrize("changed", [{"seed": 1}, {"sampling": SamplingSettings(temperature=0.5)}])
def test_in_a_run_other_settings_set_rows_aside(world, changed):
    compare(world, renews=True)
    before = rows(world, "mine")
    assert compare(world, renews=True, **changed)[0] == all_of(PROMPTS, range(4))
    assert compare(world, renews=True) == (set(), {}) and rows(world, "mine") == before
    assert compare(world, renews=True, **changed) == (set(), {})


def test_a_policy_of_another_path_takes_the_place_of_one_in_a_run(world):
    compare(world, renews=True)
    policies = {n: str(world.folder / n) for n in ("mine", "other")}
    turned = {"mine": policies["other"], "other": policies["mine"]}
    assert len(compare(world, renews=True, policies=turned)[0]) == 2 * 3 * 4
    assert compare(world, renews=True) == (set(), {})
    assert compare(world, renews=True, policies=turned) == (set(), {})


@pytest.mark.parametrize("writes", (0, 1, 3, 5, 8))
@pytest.mark.parametrize("changed", [{"prompts": MORE[1:], "samples": 5}], ids=["both"])
def test_an_extension_that_is_killed_at_any_write_continues(world, writes, changed):
    small = {"sampling": SamplingSettings(max_new_tokens=6, batch_size=1)}
    compare(world, **small)
    with killed_at(writes, (storage, "write_json")) as kill:
        compare(world, **small, **changed)
    assert kill.came
    first = set(world.drawn)
    drawn, _ = compare(world, **small, **changed)
    once = alone(world, "once", **small, **changed)
    for name in ("reference", "mine", "other"):
        assert rows(world, name) == rows(once, name)
    assert world.results == once.results
    again = first & drawn
    assert len(again) <= 2 * np.prod([4, 1])  # at most one part
    assert not list((world.out / "evaluation").glob("parts/*"))


@pytest.mark.parametrize(
    ("changed", "each"), [({"prompts": MORE[1:], "samples": 3}, 7), ({"gold": {}}, 1)]
)
def test_a_kill_at_any_file_operation_loses_no_row_that_is_set_aside(world, changed, each):
    """Neither the finished table nor the rows aside are lost while their files are replaced."""
    compare(world)
    compare(world, **changed)
    for operation in itertools.count(step=each):
        replacing = ((storage, "save_table"), (Path, "replace"), (Path, "unlink"))
        with killed_at(operation, *replacing) as kill:
            drawn, _ = compare(world)
        if not kill.came:
            break
        assert world.drawn == [], operation
        assert compare(world)[0] == set(), operation
        assert compare(world, **changed)[0] == set(), operation
    assert drawn == set() and operation > 10 * each


def test_a_table_without_checksums_of_prompts_is_used_again(world):
    # As version 0.2.0 wrote them: one fingerprint of all prompts among the settings.
    from infalign.manifest import Manifest
    from infalign.prompts import CHECKSUM, fingerprint

    compare(world)
    manifest = Manifest(world.out / "evaluation")
    for name in ("reference", "mine", "other"):
        path = world.out / "evaluation" / f"{name}.parquet"
        made_from = dict(manifest.made_from(path))
        settings = {
            "prompts": fingerprint(PROMPTS),
            "sampling": SamplingSettings(max_new_tokens=6).model_dump(),
            "samples": 4,
            "seed": 0,
        }
        with manifest.recording(
            path, stage="evaluate", made_from=made_from | {"settings": settings}
        ):
            storage.write_table(path, storage.read_table(path).drop_columns([CHECKSUM]))
    assert compare(world) == (set(), {})
    assert compare(world, prompts=MORE)[0] == all_of(MORE[3:], range(4))
