"""Exported prompts are read back with their ids, and the printed settings keep the objective."""

import json
import shutil
from pathlib import Path

import framework_run as given
import pyarrow.parquet as pq
import pytest
import yaml
from framework_run import assert_scores, openrlhf_file, scores_of, verl_samples

from infalign.config import load_config
from infalign.errors import DataError
from infalign.frameworks import settings
from infalign.frameworks.export import export_prompts
from infalign.frameworks.opened import open_run, open_scorer
from infalign.frameworks.prompt_text import PolicyText
from infalign.manifest import Manifest
from infalign.pipeline.folder import Run
from infalign.pipeline.located import FOLDERS
from infalign.stores.writer import StoreWriter


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
    prompt = PolicyText(given.model_folder()).prompt(given.messages("a"))
    answer = reward_func([prompt + "red"], [prompt], ["a"])
    assert answer["rewards"].item() == pytest.approx(given.expected("a", "red")["score"])


def test_relative_paths_of_a_run_are_found_from_elsewhere(tmp_path, monkeypatch):
    folder = given.make_run(tmp_path / "run")
    stated = (folder / "config.yaml").read_text()
    assert f"file: {folder}/prompts.jsonl" in stated
    with Manifest(folder).recording(folder / "config.yaml", stage="run"):
        (folder / "config.yaml").write_text(stated.replace(f"{folder}/prompts", "run/prompts"))
    monkeypatch.chdir(tmp_path)
    export_prompts(open_run("run"), "openrlhf", tmp_path / "out")
    words = settings.verl(open_run("run"), Path("train"), None)
    monkeypatch.chdir("/")
    with pytest.raises(DataError, match=r"Prompts file run/prompts\.jsonl does not"):
        open_scorer(folder)
    wanted = [given.expected("a", "red")]
    assert_scores(scores_of(open_scorer(folder, directory=tmp_path), [("a", "red")]), wanted)
    keywords = [w.split("reward_kwargs.")[1].split("=") for w in words if "reward_kwargs." in w]
    assert_scores(verl_samples([("a", "red")], **dict(keywords)), wanted)
    openrlhf_file(tmp_path / "out" / "reward.py")


@pytest.mark.parametrize("command", ["export-prompts", "serve-reward"])
def test_a_run_folder_cannot_allow_its_own_code(tmp_path, cli, monkeypatch, command):
    folder = given.make_run(tmp_path / "run")
    with Manifest(folder).recording(folder / "config.yaml", stage="run"):
        with (folder / "config.yaml").open("a") as file:
            file.write("trust_remote_code: true\n")
    served = []
    monkeypatch.setattr("infalign.frameworks.serving.serve", lambda *_: served.append(True))
    more = ["--for", "openrlhf", "--out", tmp_path / "out"] if command == "export-prompts" else []
    code, _, err = cli(command, folder, *more)
    assert code == 1 and not served and not (tmp_path / "out").exists()
    assert "sets `trust_remote_code`" in err and "--trust-remote-code" in err
    code, _, err = cli(command, folder, *more, "--trust-remote-code")
    assert code == 0 and (served or (tmp_path / "out").exists()), err
    if more:
        assert "trust_remote_code=True" in (tmp_path / "out" / "reward.py").read_text()


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


def designed(folder: Path) -> Path:
    """A run of `sub/d.yaml` in `folder`, whose relative files are in `sub`; it is called from
    `folder`. As `infalign run --until design` leaves it."""
    run = given.make_run(folder / "run")
    (folder / "sub").mkdir()
    (folder / "sub" / "mine.py").write_text(
        "def length(prompts, completions, *, prompt_id, **columns):\n"
        "    return [float(len(c[0]['content'])) for c in completions]\n"
    )
    (run / "prompts.jsonl").rename(folder / "sub" / "p.jsonl")
    values = yaml.safe_load((run / "config.yaml").read_text())
    values |= {"reward": "mine.py:length", "prompts": {"file": "p.jsonl"}}
    (folder / "sub" / "d.yaml").write_text(yaml.safe_dump(values))
    shutil.rmtree(run)
    Run.start(load_config(Path("sub/d.yaml")), run, lambda run: None)
    opened = Run(load_config(Path("sub/d.yaml")), run)
    ids = [p.id for p in opened.prompts]
    with StoreWriter(run / "calibration", opened.fingerprints, len(ids)) as out:
        texts = [["x" * n for n in range(16)] for _ in ids]
        out.add(ids, texts, [[float(len(t)) for t in own] for own in texts])
    opened.use("calibrate", "calibration", "calibration")
    with opened.manifest.recording(run / "design.json", stage="design"):
        made = {"transform": given.TRANSFORM.to_json(), "beta": given.BETA, "kl": given.KL}
        made |= {"calibrator": {"name": "ecdf", "reason": "as configured"}, "win_rate": 0.7}
        (run / "design.json").write_text(json.dumps(made))
    return run


def test_relative_files_are_those_of_the_run_and_no_others(tmp_path, monkeypatch, cli):
    monkeypatch.chdir(tmp_path)
    run, own = designed(tmp_path), tmp_path / "sub" / "p.jsonl"
    foreign = "".join(json.dumps({"prompt_id": i, "prompt": f"Other {i}"}) + "\n" for i in "abxyz")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for folder in (tmp_path, elsewhere):
        (folder / "p.jsonl").write_text(foreign)
        (folder / "mine.py").write_text("def length(completions): raise ValueError")
        monkeypatch.chdir(folder)
        code, _, err = cli("export-prompts", run, "--for", "openrlhf", "--out", folder / "out")
        assert code == 0, err
        lines = (folder / "out" / "train.jsonl").read_text().splitlines()
        wanted = [{"prompt": given.messages(i), "prompt_id": i} for i in "abcd"]
        assert [json.loads(line) for line in lines] == wanted
        code, out, err = cli("store", "check", run / "calibration", "--rescore", "2")
        assert code == 0 and "the reward is the same" in out, err
        assert scores_of(open_scorer(run), [("a", "red")])[0]["raw_reward"] == 3
    kept = own.read_text()
    for changed in (None, kept.replace("Twice?", "Once?"), "".join(kept.splitlines(True)[:4])):
        own.unlink(missing_ok=True)
        if changed is not None:
            own.write_text(changed)
        code, _, err = cli("export-prompts", run, "--for", "trl", "--out", tmp_path / "none")
        assert code == 1 and "does not have the prompts of the run in" in " ".join(err.split())
        assert not (tmp_path / "none").exists()


def test_code_in_a_run_folder_is_not_run(tmp_path, monkeypatch, cli):
    monkeypatch.chdir(tmp_path)
    run = designed(tmp_path)
    (tmp_path / "sub" / "mine.py").rename(run / "mine.py")
    opened = Run(open_run(run).config, run)
    opened.use("calibrate", FOLDERS, {"configuration": str(run), "working": str(tmp_path / "sub")})
    code, _, err = cli("store", "check", run / "calibration", "--rescore", "2")
    assert code == 1 and "there is no file" in err and f"{run}/mine.py" not in err
