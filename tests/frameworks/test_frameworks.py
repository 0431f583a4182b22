"""The shaped reward in other frameworks' conventions, called as they do, without any of them."""

import asyncio
import importlib.util
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import framework_run as given
import numpy as np
import pyarrow.parquet as pq
import pytest

import infalign as ia
from infalign.errors import ConfigError, DataError
from infalign.frameworks import Asked, openrlhf, settings, verl
from infalign.frameworks.callback import TrainingStopped
from infalign.frameworks.export import export_prompts
from infalign.frameworks.opened import open_reward, open_run, open_scorer
from infalign.frameworks.prompt_text import PolicyText, PromptNames
from infalign.frameworks.verl_manager import ShapedRewardManager
from infalign.prompts import Prompt

REPLIES = [("a", "red"), ("b", "twenty-seven"), ("c", "Green, I think."), ("a", "x" * 40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return given.make_run(tmp_path_factory.mktemp("frameworks") / "run")


@pytest.fixture(scope="module")
def text():
    return PolicyText(open_run_model())


def open_run_model():
    from infalign.demo import bundled

    return str(bundled("bundled:language-model", "model"))


@pytest.fixture
def calls():
    given.CALLS.clear()
    return given.CALLS


def scored(scorer, replies=REPLIES):
    return scorer([scorer.resolve(Asked(i, reply)) for i, reply in replies])


def close(found, wanted):
    assert [list(f) for f in found] == [list(w) for w in wanted]
    for f, w in zip(found, wanted, strict=True):
        assert f == pytest.approx(w, abs=1e-12)


def test_a_run_scores_as_its_pieces_do_and_as_the_reward_for_trl(folder, calls):
    wanted = [given.expected(*reply) for reply in REPLIES]
    close(scored(open_scorer(folder)), wanted)
    pieces = {
        "store": folder / "calibration",
        "reward": given.REWARD,
        "prompts": folder / "prompts.jsonl",
    }
    for transform in ("exponential:3", folder / "design.json", given.TRANSFORM):
        close(scored(open_scorer(transform=transform, **pieces)), wanted)
    assert calls == [4] * 4
    columns = {"prompts": [given.messages(i) for i, _ in REPLIES], "prompt_id": [*"abca"]}
    replies = [[{"role": "assistant", "content": reply}] for _, reply in REPLIES]
    shaped = open_reward(folder)(completions=replies, **columns)
    assert shaped == pytest.approx([w["score"] for w in wanted], abs=1e-12)
    raw = scored(open_scorer(folder, raw=True))
    close(raw, [{"score": w["raw_reward"], "raw_reward": w["raw_reward"]} for w in wanted])


def test_outer_white_space_is_not_scored_as_it_was_not_in_calibration(folder):
    scorer = open_scorer(folder)
    assert scored(scorer, [("a", " red\n")]) == scored(scorer, [("a", "red")])


def test_an_infinite_transform_stays_finite(folder):
    scorer = open_scorer(
        store=folder / "calibration",
        transform="log",
        reward=given.REWARD,
        prompts=folder / "prompts.jsonl",
    )
    low, high = scored(scorer, [("a", ""), ("a", "x" * 99)])
    assert low["quantile"] == pytest.approx(0.5 / 17, abs=0.1) and np.isfinite(low["score"])
    assert high["quantile"] == pytest.approx(1 - 0.5 / 17) and high["score"] < 0
    span = openrlhf.clip_range(scorer.shaper.transform, 16)
    assert span == 10 and high["score"] - low["score"] < span


def test_prompts_are_named_by_id_by_text_and_by_template(folder, text):
    scorer = open_scorer(folder)
    asked = text.prompt(given.TURNS)
    joined = "user: Name a color.\n\nassistant: Red.\n\nuser: Another."
    for key, name in [("a", "a"), ("Name a number.", "b"), (joined, "c"), (asked, "c")]:
        assert scorer.resolve(Asked(key, "x")).key == name
    with pytest.raises(DataError, match=r"2 prompts have the text 'Twice\?', first 'd' and 'e'"):
        scorer.resolve(Asked("Twice?", "x"))
    assert scorer.resolve(Asked("e", "x")).key == "e"


def test_an_id_wins_over_a_text():
    names = PromptNames(
        [Prompt("b", ({"role": "user", "content": "a"},)), Prompt("a", ({"content": "b"},))]
    )
    assert names.find("a").id == "a" and names.find("b").id == "b"


@pytest.mark.parametrize("key", ["nobody", "", None, 3])
def test_an_unknown_prompt_is_named(folder, key):
    with pytest.raises(DataError, match=r"prompt_id"):
        open_scorer(folder).resolve(Asked(key, "x"))
    with pytest.raises(DataError, match=r"prompt_id"):
        pieces = {"store": given.reference(), "transform": "identity", "reward": given.length}
        open_scorer(**pieces).resolve(Asked(key, "x"))


def test_pieces_without_prompts_need_conversations():
    scorer = open_scorer(store=given.reference(), transform="exponential:3", reward=given.length)
    with pytest.raises(DataError, match=r"prompt_id 'a' came without its conversation.*prompts="):
        scorer.resolve(Asked("a", "red"))
    asked = scorer.resolve(Asked("a", "red", tuple(given.messages("a"))))
    close(scorer([asked]), [given.expected("a", "red")])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "got none of them"),
        ({"run": "x", "server": "http://y"}, "got `run`, `server`"),
        ({"run": "x", "store": "y"}, "got `run`, `store`"),
        ({"store": "x", "transform": "log"}, "got `store`, `transform`"),
        ({"server": "http://x", "raw": True}, "got `server`"),
    ],
)
def test_sources_that_do_not_fit_are_told(arguments, told):
    with pytest.raises(ConfigError, match=f"exactly one of .*{told}"):
        open_scorer(**arguments)


def test_what_is_no_run_or_another_one_is_refused(folder, tmp_path):
    with pytest.raises(DataError, match=r"has no config.yaml. Make it one with: infalign run"):
        open_scorer(tmp_path)
    other = given.make_run(tmp_path / "other")
    (other / "prompts.jsonl").write_text(json.dumps({"prompt_id": "a", "prompt": "Else?"}))
    with pytest.raises(DataError, match="store was made with prompts"):
        open_scorer(other)
    with pytest.raises(ConfigError, match="`calibrator` must be ecdf, tail"):
        pieces = {"store": given.reference(), "transform": "identity", "reward": given.length}
        open_scorer(**pieces, calibrator="auto")


# verl


def verl_samples(replies, **options):
    async def batch():
        return await asyncio.gather(
            *(
                verl.compute_score(
                    data_source="infalign",
                    solution_str=reply,
                    ground_truth="",
                    extra_info={"prompt_id": i, "index": 0, "num_turns": None},
                    **options,
                )
                for i, reply in replies
            )
        )

    return asyncio.run(batch())


def test_verl_awaits_a_plain_coroutine_function_whose_samples_share_calls(folder, calls):
    assert asyncio.iscoroutinefunction(verl.compute_score)  # what verl looks for
    replies = REPLIES * 16
    found = verl_samples(replies, run=str(folder), window=60, batch=64)
    close(found, [given.expected(*reply) for reply in replies])
    assert calls == [64]
    assert {tuple(f) for f in found} == {("score", "raw_reward", "quantile")}


@pytest.mark.parametrize(
    ("extra_info", "told"),
    [
        ({"prompt_id": "nobody"}, "DataError: prompt_id 'nobody' is not one of the 5 prompts"),
        ({"index": 3}, r"no `extra_info\['prompt_id'\]`.* it has \['index'\]"),
        (None, r"it has \[\]"),
    ],
)
def test_verl_stops_at_an_unknown_prompt(folder, extra_info, told):
    with pytest.raises(TrainingStopped, match=told):
        asyncio.run(verl.compute_score("", "x", "", extra_info, run=str(folder)))
    assert not issubclass(TrainingStopped, Exception)  # a manager of verl turns those into 0


class Batch:
    """What verl's DataProto is to a reward manager."""

    def __init__(self, batch, non_tensor_batch):
        self.batch, self.non_tensor_batch = batch, non_tensor_batch

    def __getitem__(self, index):
        return self


class Letters:
    """A tokenizer of letters."""

    def decode(self, ids, skip_special_tokens):
        assert skip_special_tokens
        return "".join(chr(i) for i in ids)


def test_the_manager_for_verl_scores_what_the_mask_leaves(folder):
    import torch

    async def score(**columns):
        return await verl.compute_score(**columns, run=str(folder))

    tensors = {
        "prompts": torch.zeros(1, 2, dtype=torch.long),
        "responses": torch.tensor([[ord("r"), ord("e"), ord("d"), 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 0, 0]]),
    }
    item = dict(tensors, responses=tensors["responses"][0])
    item["attention_mask"] = tensors["attention_mask"][0]
    manager = ShapedRewardManager(None, Letters(), score, None, None)
    conversation = np.array(given.messages("a"), dtype=object)
    for columns in ({"extra_info": {"prompt_id": "a"}}, {"raw_prompt": conversation}):
        found = asyncio.run(manager.run_single(Batch(item, columns)))
        close([found["reward_extra_info"]], [given.expected("a", "red")])
        assert found["reward_score"] == found["reward_extra_info"]["score"]
    placed = manager.assemble_rm_scores(Batch(tensors, {}), [0.5])
    assert placed.tolist() == [[0, 0, 0.5, 0, 0]]


# OpenRLHF


def openrlhf_file(path):
    """A file's `reward_func`, loaded as OpenRLHF does."""
    spec = importlib.util.spec_from_file_location("reward_func", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.reward_func


def test_openrlhf_calls_from_threads_and_they_share_calls(folder, text, calls):
    reward_func = openrlhf.reward_function(run=str(folder), window=60, batch=16)
    labels = {"a": "a", "b": '{"prompt_id": "b"}', "c": ""}  # the last one by its text

    def one(reply):
        prompt = text.prompt(given.messages(reply[0]))
        found = reward_func([f"{prompt}{reply[1]}<|end|>"], [prompt], [labels[reply[0]]])
        assert list(found) == ["rewards", "scores", "extra_logs"]
        assert found["rewards"].shape == found["scores"].shape == (1,)
        logs = {name: value.item() for name, value in found["extra_logs"].items()}
        assert logs["quantile"] == found["scores"].item()
        return {"score": found["rewards"].item(), **logs}

    replies = REPLIES * 4
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(one, replies))
    for f, reply in zip(found, replies, strict=True):
        assert f == pytest.approx(given.expected(*reply), rel=1e-6)  # single precision
    assert calls == [16]


def test_openrlhf_is_stopped_by_what_its_except_does_not_catch(folder, text):
    reward_func = openrlhf.reward_function(run=str(folder))
    prompt = text.prompt(given.messages("a"))
    with pytest.raises(TrainingStopped, match="prompt_id 'nobody' is not one of the 5"):
        reward_func([prompt + "red"], [prompt], ["nobody"])
    with pytest.raises(TrainingStopped, match=r"does not contain its prompt.*truncated to"):
        reward_func([prompt[9:] + "red"], [prompt], ["a"])
    with pytest.raises(TrainingStopped, match=r"DataError: .* is not a designed run"):
        openrlhf.reward_function(run=str(folder / "calibration"))
    with pytest.raises(TrainingStopped, match=r"Name the policy: reward_function\(model="):
        openrlhf.reward_function(server="http://127.0.0.1:9")


def test_responses_come_out_of_queries_without_special_tokens(text):
    prompt = text.prompt(given.messages("a"))
    for query in (f"{prompt}red<|end|>", f"<|pad|>{prompt} red<|end|>\n", f"{prompt}red"):
        assert text.response(query, prompt) == "red"
    ids = text.tokenizer(prompt + "red<|end|>", add_special_tokens=False)["input_ids"]
    assert text.response(text.tokenizer.decode(ids), prompt) == "red"


@pytest.mark.parametrize("kl", [0.01, 0.5])
@pytest.mark.parametrize("spec", ["best-of-n:2", "best-of-n:64", "worst-of-n:32"])
def test_the_clip_range_cuts_no_reward_less_its_baseline(spec, kl):
    transform = ia.design(ia.parse_procedure(spec), kl=kl).transform
    span = openrlhf.clip_range(transform, 64)
    assert span >= 10 and span == int(span)
    shaped = transform(np.linspace(0, 1, 1001))
    # Of a pair the baseline is the other one's reward: no difference is larger.
    assert shaped.max() - shaped.min() <= span
    if span > 10:
        assert shaped.max() - shaped.min() > span - 1


def test_a_range_above_openrlhfs_own_is_told(caplog, folder):
    steep = ia.design(ia.WorstOfN(32), kl=0.5).transform
    pieces = {"reward": given.length, "prompts": str(folder / "prompts.jsonl")}
    openrlhf.reward_function(
        store=given.reference(), transform=steep, model=open_run_model(), **pieces
    )
    assert "--reward.clip_range -32 32" in caplog.text


# Data and settings


def test_exported_prompts_are_read_back_with_their_ids(folder, tmp_path):
    run = open_run(folder)
    for framework in ("verl", "trl", "openrlhf"):
        export_prompts(run, framework, tmp_path / framework)
    for part, ids in (("train", ["a", "b", "c", "d"]), ("kept-aside", ["e"])):
        rows = pq.read_table(tmp_path / "verl" / f"{part}.parquet").to_pylist()
        assert [r["extra_info"]["prompt_id"] for r in rows] == ids
        assert [r["prompt"] for r in rows] == [given.messages(i) for i in ids]
        assert {r["reward_model"]["ground_truth"] for r in rows} == {""}
        lines = (tmp_path / "openrlhf" / f"{part}.jsonl").read_text().splitlines()
        wanted = [{"prompt": given.messages(i), "prompt_id": i} for i in ids]
        assert [json.loads(line) for line in lines] == wanted
        assert pq.read_table(tmp_path / "trl" / f"{part}.parquet").to_pylist() == wanted
    reward_func = openrlhf_file(tmp_path / "openrlhf" / "reward.py")
    prompt = PolicyText(open_run_model()).prompt(given.messages("a"))
    found = reward_func([prompt + "red"], [prompt], ["a"])
    assert found["rewards"].item() == pytest.approx(given.expected("a", "red")["score"])


def test_relative_paths_of_a_run_are_found_from_elsewhere(tmp_path, monkeypatch):
    folder = given.make_run(tmp_path / "run")
    stated = (folder / "config.yaml").read_text()
    assert f"file: {folder}/prompts.jsonl" in stated
    (folder / "config.yaml").write_text(stated.replace(f"{folder}/prompts", "run/prompts"))
    monkeypatch.chdir(tmp_path)
    export_prompts(open_run("run"), "openrlhf", tmp_path / "out")
    words = settings.verl(open_run("run"), Path("train"), None)
    monkeypatch.chdir("/")
    with pytest.raises(DataError, match=r"Prompts file run/prompts\.jsonl does not"):
        open_scorer(folder)
    wanted = [given.expected("a", "red")]
    close(scored(open_scorer(folder, directory=tmp_path), [("a", "red")]), wanted)
    keywords = [w.split("reward_kwargs.")[1].split("=") for w in words if "reward_kwargs." in w]
    close(verl_samples([("a", "red")], **dict(keywords)), wanted)
    openrlhf_file(tmp_path / "out" / "reward.py")


def test_the_command_prints_the_settings_that_keep_the_objective(folder, tmp_path, cli):
    code, out, _ = cli("export-prompts", folder, "--for", "verl", "--out", tmp_path)
    words = dict(word.split("=", 1) for word in out.splitlines())
    assert code == 0 and words["algorithm.adv_estimator"] == "rloo"
    assert float(words["algorithm.kl_ctrl.kl_coef"]) == given.BETA
    assert words["algorithm.use_kl_in_reward"] == "True" and words["algorithm.kl_penalty"] == "kl"
    assert words["algorithm.norm_adv_by_std_in_grpo"] == "False"
    assert words["actor_rollout_ref.rollout.n"] == "8"
    assert Path(words["data.train_files"]).is_file() and Path(words["data.val_files"]).is_file()
    code, out, _ = cli("export-prompts", folder, "--for", "openrlhf", "--out", tmp_path)
    words = out.splitlines()
    assert code == 0 and words[words.index("--algo.kl.init_coef") + 1] == str(given.BETA)
    assert words[words.index("--reward.clip_range") + 1 :][:2] == ["-10", "10"]
    assert Path(words[words.index("--reward.remote_url") + 1]).is_file()
    code, out, _ = cli("export-prompts", folder, "--for", "trl", "--out", tmp_path)
    assert out.splitlines()[:2] == ["--beta", str(given.BETA)]
    code, _, err = cli("export-prompts", folder, "--for", "ppo", "--out", tmp_path)
    assert code == 2 and "--for" in err and "openrlhf" in err


def test_no_framework_is_imported():
    code = (
        "import infalign.frameworks.verl, infalign.frameworks.verl_manager, "
        "infalign.frameworks.openrlhf, infalign.frameworks.serving, sys; "
        "print(sorted({'verl', 'openrlhf', 'ray', 'torch', 'starlette'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
