"""Collections on Ray: the store of a local one, whatever happens to the workers."""

import json
import logging
import os
import signal
import sys
import time
from collections import Counter
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import date
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import soak

from infalign import _progress
from infalign.collection import Local, OnRay, answer, collect
from infalign.collection.cluster import Worker
from infalign.collection.connection import connection, has_gpus, require_same_precision
from infalign.config import parse_config
from infalign.errors import ConfigError, DataError, MissingExtraError
from infalign.models import precision
from infalign.prompts import Prompt

# Ray's own settings warn of each other.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

PROMPTS = [Prompt(f"p{i}", ({"role": "user", "content": f"q{i}"},)) for i in range(24)]
SHARDS = [PROMPTS[i : i + 2] for i in range(0, len(PROMPTS), 2)]


class Noting:
    """The reward, which appends to a file what it scores and in which process, before and after.

    With a file `killed`, the first process that has scored a shard and begins another ends by
    SIGKILL, once in all, and leaves its process id and that shard there.
    """

    def __init__(self, log: Path, killed: Path | None = None):
        self.log, self.killed = log, killed

    def __call__(self, *, completions, prompt_id, **columns):
        self.note("begins", prompt_id)
        if self.killed is not None and any(
            what == "ends" and pid == os.getpid() for what, pid, _ in notes(self.log)
        ):
            with suppress(FileExistsError), self.killed.open("x") as file:
                json.dump([os.getpid(), sorted(set(prompt_id))], file)
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
        self.note("ends", prompt_id)
        return soak.first_digits(completions=completions)

    def note(self, what, prompt_id):
        line = json.dumps([what, os.getpid(), sorted(set(prompt_id))]) + "\n"
        with self.log.open("a") as file:
            file.write(line)


def noting(log, killed=None):
    return soak.StandIn(0.0), Noting(log, killed)


class Failing:
    """A reward that fails so many times in all, by what it finds in a file; then scores."""

    def __init__(self, log: Path, times: int, error):
        self.log, self.times, self.error = log, times, error

    def __call__(self, *, completions, **columns):
        with self.log.open("a+") as file:
            file.seek(0)
            failed = len(file.read())
            file.write("x")
        if failed < self.times:
            raise self.error
        return soak.first_digits(completions=completions)


def failing(log, times, error):
    return soak.StandIn(0.0), Failing(log, times, error)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Ray as a collection starts it, with workers that find the modules of these tests."""
    if find_spec("ray") is None:
        pytest.skip("needs infalign[ray]")
    if os.cpu_count() < 2:
        pytest.skip("two workers need two processors")
    patched = pytest.MonkeyPatch()
    patched.setenv("RAY_AUTH_MODE", "disabled")  # writes no token into the home folder
    places = [
        *map(str, Path(__file__).parents[:2]),
        *os.environ.get("PYTHONPATH", "").split(os.pathsep),
    ]
    patched.setenv("PYTHONPATH", os.pathsep.join(filter(None, places)))
    for name in ("RAY_ADDRESS", "RAY_TMPDIR"):
        patched.delenv(name, raising=False)
    with connection() as ray:
        yield ray
    assert not ray.is_initialized()
    patched.undo()


def test_a_cluster_of_this_machine_is_heard_by_nobody_else(cluster):
    assert {node["NodeManagerAddress"] for node in cluster.nodes()} == {"127.0.0.1"}


def test_workers_that_compute_in_another_precision_are_named(cluster, monkeypatch):
    require_same_precision()
    other = {"bfloat16": "float32", "float32": "bfloat16"}[precision.trains_in("auto")]
    monkeypatch.setattr(precision, "trains_in", lambda dtype: other)  # in this process only
    with pytest.raises(ConfigError, match=f"and {other} on this machine"):
        require_same_precision()


@pytest.mark.parametrize("resources", [{"CPU": 8.0}, {"CPU": 8.0, "GPU": 2.0}])
def test_a_cluster_says_whether_it_has_gpus(monkeypatch, resources):
    named = SimpleNamespace(cluster_resources=lambda: resources)
    monkeypatch.setattr("infalign.collection.connection.connection", lambda: nullcontext(named))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert has_gpus() is None  # the workers are on this machine
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    assert has_gpus() == ("GPU" in resources)


def test_the_store_is_the_one_that_is_made_here(cluster, tmp_path):
    given = PROMPTS[:7]  # the last shard is smaller
    for name, engine in {"local": Local, "ray": partial(OnRay, workers=2)}.items():
        collect(given, engine(soak.stand_in), 3, tmp_path / name, seed=1, responses=6)
    assert soak.content(tmp_path / "ray") == soak.content(tmp_path / "local")


def test_a_worker_killed_in_mid_job_costs_its_block_and_nothing_else(cluster, tmp_path):
    log, killed = tmp_path / "log", tmp_path / "killed"
    load = partial(noting, log, killed)
    collect(PROMPTS, OnRay(load, workers=2), 2, tmp_path / "ray", seed=1, responses=4)
    collect(PROMPTS, Local(soak.stand_in), 2, tmp_path / "local", seed=1, responses=4)
    assert soak.content(tmp_path / "ray") == soak.content(tmp_path / "local")
    pid, ids = json.loads(killed.read_text())
    begun = Counter(tuple(i) for what, _, i in notes(log) if what == "begins")
    ended = Counter(tuple(i) for what, _, i in notes(log) if what == "ends")
    assert set(ended) == {tuple(p.id for p in part) for part in SHARDS}
    assert ended.total() <= len(SHARDS) + 1 and begun[tuple(ids)] == 2
    assert begun.total() <= len(SHARDS) + 2  # the block that was killed, and one it had just done
    assert len({p for _, p, _ in notes(log)} - {pid}) >= 1


def notes(log):
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def test_a_collection_that_was_stopped_asks_for_what_is_missing(cluster, tmp_path):
    log = tmp_path / "log"

    class Stopped(Exception):
        pass

    def stop(done, total):
        if done >= 8:
            raise Stopped

    with pytest.raises(Stopped):
        load = partial(noting, tmp_path / "log of the first")
        collect(PROMPTS, OnRay(load, 2), 2, tmp_path / "ray", seed=1, responses=4, report=stop)
    load = partial(noting, log)
    collect(PROMPTS, OnRay(load, 2), 2, tmp_path / "ray", seed=1, responses=4)
    asked = [i for what, _, ids in notes(log) if what == "begins" for i in ids]
    assert sorted(asked) == sorted(p.id for p in PROMPTS[8:])
    collect(PROMPTS, Local(soak.stand_in), 2, tmp_path / "local", seed=1, responses=4)
    assert soak.content(tmp_path / "ray") == soak.content(tmp_path / "local")


def test_what_cannot_be_scored_ends_the_job_with_the_rewards_own_words(cluster, tmp_path):
    wrong = DataError("The reward is out of its mind. Restart it.")
    with pytest.raises(DataError, match=r"^The reward is out of its mind\. Restart it\.$"):
        load = partial(failing, tmp_path / "log", 99, wrong)
        collect(PROMPTS, OnRay(load, 1), 2, tmp_path / "ray", seed=1)


def test_a_worker_scores_with_the_columns_and_the_form_of_the_prompts():
    seen = []

    def reward(prompts, completions, when):
        seen.extend(zip(map(type, prompts), map(type, completions), when, strict=True))
        return [0.0] * len(prompts)

    when = date(2026, 1, 2)  # as Parquet has dates
    part = [replace(PROMPTS[0], columns={"when": when}, plain=plain) for plain in (True, False)]
    part[1] = replace(part[1], id="other")
    Worker(lambda: (soak.StandIn(0.0), reward), 1, 0).answer(part, 0)
    assert seen == [(str, str, when), (list, list, when)]


def test_a_shard_is_tried_again_where_policy_or_reward_raise_an_error(cluster, tmp_path):
    load = partial(failing, tmp_path / "log", 3, ConnectionError("gone"))
    (table,) = OnRay(load, 1).answers(SHARDS[1:2], 2, 0)
    assert table.equals(answer(SHARDS[1], *soak.stand_in(), 2, 0))
    load = partial(failing, tmp_path / "log4", 99, ConnectionError("gone"))
    with pytest.raises(DataError, match="A worker on Ray failed 4 times: ConnectionError: gone"):
        list(OnRay(load, 1).answers(SHARDS[:2], 2, 0))
    assert len((tmp_path / "log4").read_text()) == 4


class Deadly:
    """A reward that ends its process each time, and counts how often."""

    def __init__(self, log: Path):
        self.log = log

    def __call__(self, **columns):
        with self.log.open("a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)


def deadly(log):
    return soak.StandIn(0.0), Deadly(log)


def test_a_shard_that_kills_every_worker_ends_the_collection(cluster, tmp_path):
    log = tmp_path / "log"
    with pytest.raises(DataError, match="Ray gave up after 4 attempts at a shard"):
        list(OnRay(partial(deadly, log), 1).answers(SHARDS[:1], 2, 0))
    assert len(log.read_text()) == 4


class Slow:
    """A policy that tells its progress and waits until it is seen; its reward warns."""

    def __init__(self, seen: Path):
        self.seen = seen

    def sample(self, conversations, n, **settings):
        _progress.advance(0.25)
        while not self.seen.exists():
            time.sleep(0.05)
        return soak.StandIn(0.0).sample(conversations, n, **settings)

    def __call__(self, *, completions, **columns):
        logging.getLogger("infalign.anywhere").warning("The reward is odd.")
        return soak.first_digits(completions=completions)


def slow(seen):
    return Slow(seen), Slow(seen)


def test_the_bar_moves_inside_a_shard_and_warnings_of_workers_arrive(cluster, tmp_path, caplog):
    seen, heard = tmp_path / "seen", []

    def listen(done, total):
        heard.append((done, total))
        if done == 4 + 0.25 * 2:
            seen.touch()

    with _progress.listening(listen), _progress.part(4, 6, 24):
        tables = OnRay(partial(slow, seen), 1).answers(SHARDS[:1], 2, 0)
        assert len(list(tables)) == 1
    assert (4.5, 24) in heard and "The reward is odd." in caplog.text


def test_without_ray_the_message_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r'`engine: ray` needs .*"infalign\[ray\]"'):
        collect(PROMPTS, OnRay(soak.stand_in), 2, tmp_path, seed=1)


def test_the_configuration_names_the_engine():
    given = {
        "model": "m",
        "reward": "r",
        "prompts": {"file": "f"},
        "kl": 1,
        "procedure": "sampling",
    }
    assert parse_config({**given, "engine": "ray"}).engine == "ray"
    assert parse_config(given).engine == "local"
