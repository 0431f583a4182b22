"""What is drawn again, and what is not, when something changes under its name."""

import json
import logging
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from kills import killed_at

from infalign import ConfigError, DataError, storage
from infalign.comparison import run, sampling
from infalign.comparison.comparison import Comparison
from infalign.comparison.run import compare_policies
from infalign.config import SamplingSettings
from infalign.models.interfaces import Response
from infalign.models.model_server import ServerModel
from infalign.prompts import Prompt

PROMPTS = [Prompt(f"p{i}", ({"role": "user", "content": f"prompt {i}"},)) for i in range(3)]
N = 4
MODEL = {
    "config.json": "{}",
    "model.safetensors": "weights of {}",
    "tokenizer.json": "tokens",
    "chat_template.jinja": "{{ messages }}",
    "generation_config.json": '{"eos_token_id": 0}',
    "README.md": "words",
}
CODE = {
    "proxy.py": """
from pathlib import Path
import near
def reward(prompts, completions, **columns):
    with open(Path(__file__).with_name("calls"), "a") as calls:
        calls.write("proxy\\n")
    return [near.length(c[0]["content"]) for c in completions]
""",
    "near.py": "def length(text): return float(len(text))",
    "gold.py": """
from pathlib import Path
def reward(prompts, completions, **columns):
    with open(Path(__file__).with_name("calls"), "a") as calls:
        calls.write("gold\\n")
    return [float(c[0]["content"].count("e")) for c in completions]
""",
    "judge.py": """
from pathlib import Path
def judge(prompts, first, second):
    with open(Path(__file__).with_name("calls"), "a") as calls:
        calls.write("judge\\n")
    return [float(a > b) if a != b else 0.5 for a, b in zip(first, second)]
def broken(prompts, first, second):
    raise RuntimeError("rate limited")
""",
}


class FakeModel:
    """Answers with its weights and a number of its own, of different lengths."""

    def __init__(self, path, calls):
        self.path, self.calls = Path(str(path)), calls

    def sample(self, conversations, n, *, seed, keys):
        self.calls.append(f"draw {self.path.name}")
        folder = self.path if self.path.is_dir() else self.path.parent
        weights = folder / "model.safetensors"
        text = weights.read_text() if weights.exists() else "served"
        rng = np.random.default_rng(seed % 1000)
        return [
            [Response(text + "e" * int(rng.integers(9)), (1, 2), -1.0) for _ in range(n)]
            for _ in keys
        ]


class World:
    """Models, rewards and a judge in files, and counts of what each comparison asks of them."""

    def __init__(self, folder, monkeypatch):
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        self.folder, self.out, self._calls = folder, folder / "out", []
        for name in ("base", "mine", "other"):
            (folder / name).mkdir()
            for file, text in MODEL.items():
                (folder / name / file).write_text(text.replace("{}", name))
        for file, text in CODE.items():
            (folder / file).write_text(text)
        monkeypatch.setattr(
            sampling, "load_sampler", lambda path, **options: FakeModel(path, self._calls)
        )
        monkeypatch.setattr(sampling, "_kl", self._kl)
        monkeypatch.setattr(run, "inspect_models", lambda comparison: None)
        for name in ("try_out", "try_judge"):  # which ask for what does not count
            monkeypatch.setattr(sampling, name, lambda *arguments: None)

    def _kl(self, comparison, models, sampler, conversations, drawn, first=0):
        assert all(r.tokens == (1, 2) for row in drawn for r in row)
        assert models.reference.path.name == "base"
        self._calls.append(f"kl {sampler.path.name}")
        filled = np.zeros((len(conversations), len(drawn[0])))  # no frontier to compute
        return {"kl": filled, "kl_sampled": filled}

    def comparison(self, **changed):
        settings = {
            "reference": str(self.folder / "base"),
            "policies": {n: str(self.folder / n) for n in ("mine", "other")},
            "reward": f"python:{self.folder}/proxy.py:reward",
            "gold": {"human": f"python:{self.folder}/gold.py:reward"},
            "judge": f"python:{self.folder}/judge.py:judge",
            "prompts": PROMPTS,
            "procedures": ("best-of-n:2", "sampling"),
            "sampling": SamplingSettings(max_new_tokens=6),
            "samples": N,
            "kl_samples": 2,
        }
        return Comparison(**settings | changed)

    def compare(self, **changed):
        """What a comparison asks of the models, the rewards and the judge."""
        calls = self.folder / "calls"
        calls.unlink(missing_ok=True)
        self._calls.clear()
        self.results = compare_policies(self.comparison(**changed), self.out)
        asked = calls.read_text().split() if calls.exists() else []
        return dict(Counter([*self._calls, *asked]))

    def texts(self, name):
        table = storage.read_table(self.out / "evaluation" / f"{name}.parquet")
        return {text.rstrip("e") for text in table["completion"].to_pylist()}


@pytest.fixture
def world(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level("WARNING", "infalign.models.functions")  # it says which file it loads
    yield World(tmp_path, monkeypatch)
    forget_modules()


ALL = {"base", "mine", "other"}
FIRST = {
    **{f"draw {name}": 1 for name in ALL},
    **{f"kl {name}": 1 for name in ("mine", "other")},
    **{"proxy": 3, "gold": 3, "judge": 2},
}
ALIKE = {"draw mine": 1, "kl mine": 1, "proxy": 1, "gold": 1}
MINE = {**ALIKE, "judge": 1}
"""What is asked again after a change of the policy; the judge only if its responses differ."""


def edit(world, file, text="other words"):
    (world.folder / file).write_text(text)


def append(world, file):
    with (world.folder / file).open("a") as opened:
        opened.write("\n# another version\n")


@pytest.mark.parametrize(
    ("file", "asked", "words"),
    [
        *(
            (f"mine/{file}", ALIKE, f"Policy mine: its {noun} changed")
            for file, noun in (
                ("tokenizer.json", "tokenizer"),
                ("chat_template.jinja", "chat template"),
                ("config.json", "configuration"),
                ("generation_config.json", "generation settings"),
                ("vocab.txt", "tokenizer"),
            )
        ),
        ("mine/model.safetensors", MINE, "Policy mine: its weights changed"),
        (
            "base/model.safetensors",
            # The judge saw the reference's responses, and the KL is from the reference.
            {"draw base": 1, "kl mine": 1, "kl other": 1, "proxy": 1, "gold": 1, "judge": 2},
            "The reference: its weights changed",
        ),
        ("mine/README.md", {}, ""),
        ("unrelated.py", {}, ""),
    ],
)
def test_another_file_of_a_model_is_another_model(world, caplog, file, asked, words):
    assert world.compare() == FIRST and caplog.text == ""
    before = world.results
    edit(world, file)
    assert world.compare() == asked
    assert words in caplog.text and (words or not caplog.text)
    assert world.compare() == {}
    if "model.safetensors" in file:
        name = "reference" if file.startswith("base") else "mine"
        assert world.texts(name) == {"other words"}
    if not asked:
        assert world.results == before


@pytest.mark.parametrize(
    ("file", "asked", "words"),
    [
        ("proxy.py", {"proxy": 3}, "Reward reward: its source code changed"),
        ("near.py", {"proxy": 3}, "Reward reward: its source code changed"),
        ("gold.py", {"gold": 3}, "Reward gold.human: its source code changed"),
        ("judge.py", {"judge": 2}, "Judge of policy mine: the judge's source code changed"),
    ],
)
def test_other_code_is_run_again_on_the_stored_samples(world, caplog, file, asked, words):
    world.compare()
    before = world.results
    append(world, file)
    assert fresh(world) == asked and words in caplog.text
    assert world.results == before  # the code does the same
    assert world.compare() == {}


def fresh(world, **changed):
    """`compare` in a process that has not imported the code before it was edited."""
    forget_modules()
    return world.compare(**changed)


def forget_modules():
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "").name in CODE:
            del sys.modules[name]


def test_a_reward_that_scores_otherwise_is_used_for_the_pairs_of_the_judge(world):
    world.compare()
    edit(world, "near.py", "def length(text): return -float(len(text))")
    assert fresh(world) == {"proxy": 3, "judge": 2}
    table = storage.read_table(world.out / "evaluation" / "mine.parquet")
    assert table["reward"].to_pylist() == [-len(t) for t in table["completion"].to_pylist()]


@pytest.mark.parametrize(
    ("changed", "asked", "words"),
    [
        ({"procedures": ("best-of-n:2", "worst-of-n:2")}, {}, ""),
        ({"kl_samples": 3}, {"kl mine": 1, "kl other": 1}, "Its KL is measured again"),
        ({"kl_samples": 0}, {}, ""),
        ({"judge": None}, {}, ""),
        ({"gold": {}}, {}, ""),
        ({"policies": {}}, {}, ""),
        ({"prompts": PROMPTS[::-1]}, {}, ""),
    ],
)
def test_other_questions_use_the_stored_samples(world, caplog, changed, asked, words):
    world.compare()
    if changed.get("policies") == {}:
        changed = {"policies": {"mine": str(world.folder / "mine")}}
    assert world.compare(**changed) == asked
    assert words in caplog.text and (words or not caplog.text)
    alone = World.__new__(World)
    alone.__dict__ |= world.__dict__ | {"out": world.folder / "alone"}
    if "prompts" not in changed:  # what these models answer follows the order of the prompts
        alone.compare(**changed)
        assert world.results == alone.results
    assert world.compare() == {}  # and back


def test_models_and_verdicts_that_come_back_are_not_made_again(world, caplog):
    world.compare()
    before = world.results
    edit(world, "mine/model.safetensors")
    assert world.compare() == MINE
    replaced = {p.name.rpartition("-")[0] for p in (world.out / "evaluation/replaced").iterdir()}
    assert replaced == {"mine", "judge-mine"}
    assert "the earlier ones are in" in caplog.text
    edit(world, "mine/model.safetensors", "weights of mine")
    assert world.compare() == {} and world.results == before


def test_a_copy_is_the_same_policy_and_another_of_its_name_is_refused(world):
    world.compare()
    policies = world.comparison().policies
    shutil.copytree(world.folder / "mine", world.folder / "copy")
    assert world.compare(policies={**policies, "mine": str(world.folder / "copy")}) == {}
    with pytest.raises(ConfigError, match=r"settings: policies.mine '.*', not '.*other'.*a name"):
        world.compare(policies={**policies, "mine": str(world.folder / "other")})
    with pytest.raises(ConfigError, match=r"settings: reference '.*base', not '.*other'"):
        world.compare(reference=str(world.folder / "other"))
    for name, key in (("reward", "reward"), ("gold", "gold.human")):
        other = f"python:{world.folder}/judge.py:judge"
        with pytest.raises(ConfigError, match=rf"settings: {key} 'python:.*', not 'python:.*judge"):
            world.compare(**{name: other if name == "reward" else {"human": other}})
    assert world.compare() == {}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seed": 1}, "seed 0, not 1"),
        ({"sampling": SamplingSettings(max_new_tokens=7)}, "sampling.max_new_tokens 6, not 7"),
    ],
)
def test_other_settings_are_refused_before_anything_is_drawn(world, changed, words):
    world.compare()
    before = {p.name: p.read_bytes() for p in (world.out / "evaluation").glob("*.*")}
    edit(world, "mine/model.safetensors")
    with pytest.raises(ConfigError, match=words):
        world.compare(**changed)
    assert {p.name: p.read_bytes() for p in (world.out / "evaluation").glob("*.*")} == before


@pytest.mark.parametrize("what", ["judge", "gold", "reward"])
def test_what_failed_leaves_nothing_that_locks_the_folder(world, what):
    world.compare(judge=None, gold={})
    broken = f"python:{world.folder}/judge.py:broken"
    changed = {"judge": None, "gold": {}} | {what: {"human": broken} if what == "gold" else broken}
    if what == "reward":
        world.out = world.folder / "second"
    with pytest.raises((DataError, RuntimeError)):
        world.compare(**changed)
    assert world.compare() == (FIRST if what == "reward" else {"gold": 3, "judge": 2})


def test_a_killed_comparison_whose_reward_was_edited_scores_all_alike(world):
    few = {"sampling": SamplingSettings(max_new_tokens=6, batch_size=1)}  # a prompt in each part
    with killed_at(2, (sampling, "_sampled")) as kill:
        world.compare(**few)
    assert kill.came
    edit(world, "near.py", "def length(text): return -float(len(text))")
    assert fresh(world, **few)["draw base"] == 1
    table = storage.read_table(world.out / "evaluation" / "reference.parquet")
    assert table["reward"].to_pylist() == [-len(t) for t in table["completion"].to_pylist()]


SERVED = {"mine": "http://127.0.0.1:9/v1#mine"}


def test_a_server_is_what_it_answers_to_a_probe(world, monkeypatch, caplog):
    answers = ["seven"]

    def probe(self):
        if not answers:
            raise DataError("http://127.0.0.1:9/v1 cannot be sampled from: refused.")
        return answers[0]

    monkeypatch.setattr(ServerModel, "probe", probe, raising=False)
    first = world.compare(policies=SERVED)
    drawn = {"draw base": 1, "draw v1#mine": 1, "kl v1#mine": 1}
    assert first == drawn | {"proxy": 2, "gold": 2, "judge": 1}
    assert world.compare(policies=SERVED) == {}
    answers[0] = "eight"
    # It answers alike, so that the verdicts hold.
    served = {"draw v1#mine": 1, "kl v1#mine": 1, "proxy": 1, "gold": 1}
    assert world.compare(policies=SERVED) == served
    assert "Policy mine: its answer to a probe changed" in caplog.text
    caplog.clear()
    answers.clear()
    assert world.compare(policies=SERVED) == {}  # a server that was stopped
    assert "it is not known whether it has changed" in caplog.text
    (world.out / "evaluation" / "mine.parquet").unlink()
    with pytest.raises(DataError, match="refused"):
        world.compare(policies=SERVED)


def test_swapped_samples_are_refused(world):
    world.compare()
    folder = world.out / "evaluation"
    (folder / "mine.parquet").rename(folder / "t")
    (folder / "other.parquet").rename(folder / "mine.parquet")
    (folder / "t").rename(folder / "other.parquet")
    with pytest.raises(DataError, match=r"mine\.parquet is not what was written"):
        world.compare()


@pytest.mark.parametrize("name", ["reference", "mine", "judge-mine"])
def test_every_file_that_is_read_is_verified(world, name):
    world.compare()
    path = world.out / "evaluation" / f"{name}.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"{name}\.parquet is not what was written.*`evaluate`"):
        world.compare()
    path.unlink()
    asked = world.compare()
    assert asked == {"judge": 1} if name == "judge-mine" else asked["proxy"] == 1


def test_rows_that_a_table_lacks_are_drawn_again_even_with_a_manifest_of_its_own(world):
    world.compare()
    manifest = world.out / "evaluation" / "manifest.json"
    for lost in (1, N):
        table = storage.read_table(world.out / "evaluation" / "mine.parquet")
        path = world.out / "evaluation" / "mine.parquet"
        storage.write_table(path, table.slice(lost))
        stored = json.loads(manifest.read_text())
        stored["files"]["mine.parquet"]["sha256"] = {"": storage.sha256(path)}
        from infalign.manifest import _own

        stored["sha256"] = _own(stored["files"])
        storage.write_json(manifest, stored)
        assert world.compare()["draw mine"] == 1
        after = storage.read_table(path)
        assert list(zip(*(after[n].to_pylist() for n in ("prompt_id", "sample")), strict=True)) == [
            (p.id, k) for p in PROMPTS for k in range(N)
        ]
        storage.write_table(path, table)


def test_a_second_process_is_refused_before_it_loads_a_model(world):
    held = storage.lock(world.out)
    with pytest.raises(DataError, match=r"out is being written by process"):
        world.compare()
    os.close(held)
    assert world._calls == []
    assert world.compare() == FIRST


def test_a_model_that_changes_while_it_is_loaded_is_refused(world, monkeypatch):
    load = sampling.load_sampler

    def replaced(path, **options):
        if str(path).endswith("mine"):
            edit(world, "mine/model.safetensors")
        return load(path, **options)

    monkeypatch.setattr(sampling, "load_sampler", replaced)
    with pytest.raises(DataError, match=r"mine has changed while this command was running"):
        world.compare()


@pytest.mark.parametrize(
    ("policies", "words"),
    [
        (["x", "judge-x"], "'judge-x': a name that begins with judge- is that of a file"),
        (["Judge-x"], "begins with judge-"),
        (["A", "a"], "'A' and 'a' would share a file"),
        (["é", "e\u0301"], r"must consist of letters|would share a file"),
        (["Reference"], "the reference has that name"),
        (["x" * 101], "at most 100"),
    ],
)
def test_names_that_would_share_a_file_are_refused(world, policies, words):
    with pytest.raises(ConfigError, match=words):
        world.comparison(policies=dict.fromkeys(policies, "m"))


def test_messages_reach_a_user_without_a_configured_log(world, capsys):
    world.compare()
    edit(world, "mine/model.safetensors")
    logging.getLogger("infalign").handlers.clear()
    world.compare()
    assert logging.getLogger("infalign.comparison.sampling").getEffectiveLevel() <= logging.WARNING
