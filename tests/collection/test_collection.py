"""Collections of reference samples: what they hold, interruptions, and where they run."""

import math
import pickle
import threading
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest
import soak
from enumerable import EnumerableModel
from hypothesis import given, settings
from hypothesis import strategies as st

from infalign.cli.progress import progress
from infalign.collection import Local, answer, collect
from infalign.errors import ConfigError, DataError
from infalign.models.interfaces import Response
from infalign.models.reward_server import ServerReward
from infalign.prompts import Prompt
from infalign.stores import CalibrationStore, read_samples

QUICK = soak.StandIn(0.0)


def prompts(count):
    return [Prompt(f"p{i}", ({"role": "user", "content": f"q{i}"},)) for i in range(count)]


def quick():
    return QUICK, soak.first_digits


@dataclass
class Counting:
    """An engine that notes what it was asked for, and may fail after some shards."""

    asked: list = field(default_factory=list)
    fails_after: int = 10**9

    def answers(self, shards, samples, seed):
        for number, part in enumerate(shards):
            if number == self.fails_after:
                raise KeyboardInterrupt
            self.asked.append([p.id for p in part])
            yield answer(part, *quick(), samples, seed)


def test_a_table_has_a_row_for_each_sample_and_null_for_what_is_not_known():
    class Server:
        def sample(self, conversations, n, *, seed, keys=None):
            return [[Response(f"{k} {i}") for i in range(n)] for k in keys]

    def length(*, prompts, completions, prompt_id, **columns):
        assert [p[0]["content"] for p in prompts] == ["q0", "q0", "q1", "q1"]
        pairs = zip(completions, prompt_id, strict=True)
        return [float(len(c[0]["content"]) + (i == "p1")) for c, i in pairs]

    assert answer(prompts(2), Server(), length, 2, 0).to_pydict() == {
        "prompt_id": ["p0", "p0", "p1", "p1"],
        "sample": [0, 1, 0, 1],
        "completion": ["p0 0", "p0 1", "p1 0", "p1 1"],
        "tokens": [None] * 4,
        "logprob": [None] * 4,
        "reward": [4.0, 4.0, 5.0, 5.0],
    }


def test_a_store_holds_what_the_model_says_and_the_reward_scores(tmp_path):
    tiny = EnumerableModel.make(tmp_path / "model", seed=1)
    given = [Prompt(w, tuple(tiny.conversation(w))) for w in ("ab", "c", "cabba")]
    load = partial(soak.language_model, tiny.path)
    collect(given, Local(load), 200, tmp_path / "store", seed=2, responses=400)
    rows = read_samples(tmp_path / "store").to_pylist()
    laws = {p.id: tiny.law(p.id) for p in given}
    assert [(r["prompt_id"], r["sample"]) for r in rows] == [
        (p.id, k) for p in given for k in range(200)
    ]
    for r in rows:
        assert tuple(r["tokens"]) == tiny.tokens(r["completion"])
        assert r["logprob"] == pytest.approx(
            math.log(laws[r["prompt_id"]][r["completion"]]), abs=1e-4
        )
        assert r["reward"] == r["completion"].count("a")
    store = CalibrationStore.open(tmp_path / "store")
    for p in given:
        mean = sum(t.count("a") * chance for t, chance in laws[p.id].items())
        own = np.array(store.rewards[p.id])
        assert abs(own.mean() - mean) < 4 * own.std() / np.sqrt(own.size)


@settings(max_examples=15)
@given(st.integers(1, 11), st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(0, 3))
def test_however_it_is_cut_resumed_and_cut_again_the_store_is_the_same(
    tmp_path_factory, count, sizes, stop
):
    folder = tmp_path_factory.mktemp("cut")
    collect(prompts(count), Local(quick), 3, folder / "whole", seed=1)
    for size in sizes:
        engine = Counting(fails_after=stop)
        try:
            collect(prompts(count), engine, 3, folder / "cut", seed=1, responses=3 * size)
        except KeyboardInterrupt:
            assert len(engine.asked) == stop
    collect(prompts(count), Local(quick), 3, folder / "cut", seed=1)
    assert soak.content(folder / "cut") == soak.content(folder / "whole")


def test_only_missing_prompts_are_asked_for_and_progress_is_told(tmp_path):
    told = []
    with pytest.raises(KeyboardInterrupt):
        collect(prompts(7), Counting(fails_after=2), 2, tmp_path, seed=1, responses=4)
    engine = Counting()
    collect(
        prompts(7), engine, 2, tmp_path, seed=1, responses=4, report=lambda *done: told.append(done)
    )
    assert engine.asked == [["p4", "p5"], ["p6"]] and told == [(4, 7), (6, 7), (7, 7)]

    def unloadable():
        raise AssertionError("nothing is missing")

    collect(prompts(7), Local(unloadable), 2, tmp_path, seed=1)


def test_a_folder_of_other_settings_is_refused_with_what_differs(tmp_path):
    collect(prompts(3), Local(quick), 2, tmp_path, seed=1, provenance={"model": "a"})
    for change in ({"seed": 2}, {"provenance": {"model": "b"}}, {"samples": 3}):
        settings_ = {"samples": 2, "seed": 1, "provenance": {"model": "a"}, **change}
        samples = settings_.pop("samples")
        name = "model" if "provenance" in change else next(iter(change))
        with pytest.raises(DataError, match=f"collected with other settings: {name}"):
            collect(prompts(3), Local(quick), samples, tmp_path, **settings_)
    with pytest.raises(DataError, match="other settings: prompts"):
        collect(prompts(4)[1:], Local(quick), 2, tmp_path, seed=1, provenance={"model": "a"})


def test_what_cannot_be_used_is_refused_and_nothing_of_its_shard_is_kept(tmp_path):
    def broken(*, completions, **columns):
        return [float("nan")] * len(completions)

    with pytest.raises(DataError, match="`broken` must return finite numbers"):
        collect(prompts(2), Local(lambda: (QUICK, broken)), 2, tmp_path, seed=1)

    class Short:
        def sample(self, conversations, n, *, seed, keys=None):
            return [[Response("x")] for _ in conversations]

    with pytest.raises(DataError, match=r"Short must return 2 responses to each of 2 .* got \[1\]"):
        collect(prompts(2), Local(lambda: (Short(), broken)), 2, tmp_path, seed=1)
    collect(prompts(2), Local(quick), 2, tmp_path, seed=1)
    for wrong in ({"samples": 0}, {"responses": 0}):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be a whole number"):
            collect(prompts(2), Local(quick), **{"samples": 2, **wrong}, folder=tmp_path, seed=1)


def test_a_reward_server_scores_one_shard_while_the_next_is_drawn(tmp_path, monkeypatch):
    order = []

    def slow(self, prompts, completions, *, prompt_id, **columns):
        drawn.wait()  # until the next shard is there
        order.append(("scored", prompt_id[0]))
        return soak.first_digits(completions=completions)

    drawn = threading.Event()

    class Noting(soak.StandIn):
        def sample(self, conversations, n, *, seed, keys=None):
            order.append(("drawn", keys[0]))
            if keys[0] == "p2":
                drawn.set()
            return super().sample(conversations, n, seed=seed, keys=keys)

    monkeypatch.setattr(ServerReward, "__call__", slow)
    reward = ServerReward("http://127.0.0.1:9/x")
    engine = Local(lambda: (Noting(0.0), reward))
    collect(prompts(6), engine, 2, tmp_path / "beside", seed=1, responses=4)
    assert order.index(("drawn", "p2")) < order.index(("scored", "p0"))
    collect(prompts(6), Local(quick), 2, tmp_path / "after", seed=1, responses=4)
    assert soak.content(tmp_path / "beside") == soak.content(tmp_path / "after")


def test_killed_at_random_moments_it_ends_with_the_store_of_a_whole_one(tmp_path):
    case = soak.Case("stand-in", soak.stand_in, 40)
    found = soak.soak(soak.forking(), case, 4, 1, tmp_path)
    assert found["killed"] == 4 and found["equal"] == found["runs"] >= 4
    assert sum(found["moments"].values()) == found["kills"] >= 4
    page = soak.page([found])
    assert f"**4 of {found['runs']} collections were killed" in page
    assert set(found["moments"]) <= set(soak.MOMENTS)


def test_a_run_with_a_server_or_vllm_is_calibrated_and_not_trained(tmp_path):
    from infalign.config import parse_config
    from infalign.pipeline.run import run

    for model in ("http://127.0.0.1:9/v1#m", "vllm:bundled:language-model"):
        config = parse_config(
            {
                "model": model,
                "reward": "bundled:helpful",
                "prompts": {"file": "bundled:helpful"},
                "procedure": "best-of-n:2",
                "kl": 0.5,
            }
        )
        with pytest.raises(ConfigError, match="can be calibrated but not trained"):
            run(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_models_are_loaded_from_a_picklable_description():
    from infalign.config import SamplingSettings
    from infalign.pipeline.stages import load_both

    settings_ = SamplingSettings(max_new_tokens=3, batch_size=7, temperature=0.5)
    load = partial(load_both, "bundled:language-model", "bundled:helpful", settings_, False)
    sampler, scorer = pickle.loads(pickle.dumps(load))()
    assert (sampler.max_new_tokens, sampler.batch_size, sampler.temperature) == (3, 7, 0.5)
    assert len(answer(prompts(2), sampler, scorer, 2, 0)) == 4


def test_the_bar_tells_rate_and_time_left(capsys):
    with progress() as report:
        for done in range(5):
            report("calibrate", done, 4)
    said = capsys.readouterr().err
    assert "4/4" in said and "/s" in said


def test_a_log_tells_every_half_minute(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("infalign.cli.board.time.monotonic", lambda: now[0])
    with progress() as report:
        for done in range(8):
            report("calibrate", done, 8)
            now[0] += 10
        said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("calibrate ")]
    assert lines == [
        "calibrate 3/8, 6.0/min, 0:00:50 left",
        "calibrate 6/8, 6.0/min, 0:00:20 left",
    ]
