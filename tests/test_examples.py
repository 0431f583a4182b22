"""The launch scripts of examples/, up to the command that they start."""

import ast
import importlib.util
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import framework_run as given
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
STARTED = {"verl": "python3", "openrlhf": "ray", "trl": "accelerate"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return given.make_run(tmp_path_factory.mktemp("examples") / "run")


@pytest.fixture
def start(run, tmp_path, cli):
    """Run a script with what it starts replaced by one that notes its words; returns them.

    `infalign` runs in this process, which has imported what it needs; the script gets its output.
    """

    def call(framework, *more, **environment):
        programs, out = tmp_path / "programs", tmp_path / "out"
        rank = environment.get("RANK")
        arguments = ["export-prompts", run, "--for", framework, "--out"]
        arguments.append(out / ("prompts" if rank is None else f"prompts-{rank}"))
        code, printed, _ = cli(*arguments)
        assert code == 0
        (tmp_path / "printed").write_text(printed)
        programs.mkdir()
        for name, shows in ((STARTED[framework], "/dev/null"), ("infalign", tmp_path / "printed")):
            words = f"printf '%s\\n' \"$@\" > {tmp_path / name}.words"
            (programs / name).write_text(f"#!/bin/sh\n{words}\ncat {shows}\n")
            (programs / name).chmod(0o755)
        done = subprocess.run(
            ["bash", EXAMPLES / framework / "train.sh", run, out, *more],
            env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", **environment},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "infalign.words").read_text().splitlines() == list(map(str, arguments))
        return (tmp_path / f"{STARTED[framework]}.words").read_text().splitlines()

    return call


def test_verl_is_started_with_the_runs_beta_on_all_machines(start, tmp_path):
    words = start("verl", "trainer.total_epochs=3", NODES="4")
    assert words[:2] == ["-m", "verl.trainer.main_ppo"] and words[-1] == "trainer.total_epochs=3"
    named = dict(word.split("=", 1) for word in words[2:])
    assert named["algorithm.kl_ctrl.kl_coef"] == str(given.BETA)
    assert named["trainer.nnodes"] == "4" and named["trainer.n_gpus_per_node"] == "8"
    assert Path(named["data.train_files"]).is_file()
    if not importlib.util.find_spec("verl"):
        return
    from hydra import compose, initialize_config_module

    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=words[2:])
    assert config.algorithm.kl_ctrl.kl_coef == given.BETA and config.trainer.total_epochs == 3
    assert config.actor_rollout_ref.rollout.n == 8 and config.algorithm.adv_estimator == "rloo"


def test_openrlhf_is_started_with_the_runs_beta_on_all_machines(start):
    words = start("openrlhf", "--train.seed", "3", NODES="2", GPUS="4")
    assert words[:2] == ["job", "submit"] and words[-1] == "3"
    words = words[words.index("openrlhf.cli.train_ppo_ray") + 1 :]
    values = dict(itertools.pairwise(words))
    assert values["--algo.kl.init_coef"] == str(given.BETA)
    assert values["--vllm.num_engines"] == "8" and values["--actor.num_nodes"] == "2"
    # RLOO takes whole groups, and OpenRLHF all its rollouts in one step: on policy.
    group = int(values["--rollout.n_samples_per_prompt"])
    assert int(values["--train.batch_size"]) == group * int(values["--rollout.batch_size"])
    if not (installed := importlib.util.find_spec("openrlhf")):
        return
    source = (Path(installed.origin).parent / "cli" / "train_ppo_ray.py").read_text()
    known = set(re.findall(r'add_argument\(\s*f?"(--[\w.{}]+)"', source))
    known |= {name.replace("{prefix}", "actor") for name in known}
    assert {word for word in words if word.startswith("--")} <= known


def test_trl_is_started_with_the_runs_beta_on_all_machines(start, run):
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    words = start("trl", "--max_steps", "3", NODES="2", RANK="1", HEAD="10.0.0.1")
    assert words[0] == "launch"
    read = launch_command_parser().parse_args(words[1:])
    assert (read.num_machines, read.num_processes, read.machine_rank) == (2, 16, 1)
    assert read.main_process_ip == "10.0.0.1"
    assert load_config_from_file(read.config_file).distributed_type == "DEEPSPEED"
    zero = json.loads(Path(read.deepspeed_config_file).read_text())
    assert zero["zero_optimization"]["stage"] == 3
    trl = pytest.importorskip("trl")
    script = read.training_script_args
    tree = ast.parse(Path(read.training_script).read_text())
    own = next(n for n in tree.body if isinstance(n, ast.ClassDef))
    names = {f"--{n.target.id}" for n in own.body if isinstance(n, ast.AnnAssign)}
    theirs = {f"--{name}" for name in trl.RLOOConfig.__dataclass_fields__}
    assert {word for word in script if word.startswith("--")} <= names | theirs
    values = dict(itertools.pairwise(script))
    assert values["--beta"] == str(given.BETA) and values["--run_folder"] == str(run)
    assert Path(values["--prompts"]).is_file()


def test_a_folder_that_is_no_run_starts_nothing(tmp_path):
    script = EXAMPLES / "verl" / "train.sh"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", script, tmp_path, tmp_path / "out"],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "is not a designed run" in done.stderr
    assert not (tmp_path / "out").exists()
