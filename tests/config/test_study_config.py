"""The configuration of a study: tasks from files or inline, cells, and errors that name the key."""

import pytest
import yaml

from infalign.config import load_study, read_study
from infalign.errors import ConfigError

TASK = {"model": "m", "reward": "r", "prompts": {"file": "p.jsonl"}, "kl": 0.5}
STUDY = {"tasks": {"a": TASK}, "methods": ["rloo", "rlhf"], "kl": [0.1, 0.5], "seeds": [0, 1]}


def cells(grid):
    return [cell.path for cell in grid.cells]


def test_the_cells_are_all_combinations_and_those_of_a_seed_come_together():
    grid = read_study({**STUDY, "tasks": {"a": TASK, "b": TASK}, "kl": 0.5})
    first = ["a/rloo-kl0.5-seed0", "a/rlhf-kl0.5-seed0", "b/rloo-kl0.5-seed0", "b/rlhf-kl0.5-seed0"]
    assert cells(grid) == [*first, *(name.replace("seed0", "seed1") for name in first)]


def test_a_cell_is_a_run_of_one_method_at_one_kl_with_a_seed_of_its_training_alone():
    *_, last = read_study(STUDY).cells
    config = last.config
    assert (config.methods, config.kl, config.seed, config.training_seed) == (("rlhf",), 0.5, 0, 1)
    first = next(iter(read_study({**STUDY, "tasks": {"a": {**TASK, "seed": 7}}}).cells)).config
    assert (first.seed, first.training_seed) == (7, 0)


def test_what_is_left_out_comes_from_the_tasks():
    train = {"method": "ipo", "baselines": ["dpo"]}
    grid = read_study({"tasks": {"a": {**TASK, "train": train}}, "seeds": 3})
    assert cells(grid) == ["a/ipo-kl0.5-seed3", "a/dpo-kl0.5-seed3"]
    assert len(cells(read_study({"tasks": {"a": TASK}}))) == 2 * 3  # methods and seeds by default


def test_common_keys_are_those_of_every_task_unless_it_has_its_own():
    common = {"model": "shared", "train": {"steps": 7, "group": 4}}
    own = {k: v for k, v in TASK.items() if k != "model"} | {"train": {"steps": 3}}
    grid = read_study({**STUDY, "common": common, "tasks": {"a": own, "b": {**own, "train": {}}}})
    a, b = (task.config for task in grid.tasks)
    assert (a.model, a.train.steps, a.train.group) == ("shared", 3, 4)
    assert (b.train.steps, b.train.group) == (7, 4)


@pytest.mark.parametrize(
    ("overrides", "rivals"),
    [
        (("methods=[rloo,rlhf]",), ("rlhf",)),
        (("methods=[rloo,rlhf,ipo]",), ("ipo", "rlhf")),
        ((), ("ipo", "rlhf")),
        (("methods=[rloo]", "rivals=[rlhf]"), "has rlhf, which is not among the methods"),
        (("methods=[rloo]",), "none of the study's rivals: ipo, rlhf. Add .* to rloo"),
    ],
)
def test_named_methods_keep_the_rivals_among_them(overrides, rivals, tmp_path):
    study = {**STUDY, "methods": ["rloo", "rlhf", "ipo"], "rivals": ["ipo", "rlhf"]}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    if isinstance(rivals, str):
        with pytest.raises(ConfigError, match=rivals):
            load_study(tmp_path / "study.yaml", overrides)
    else:
        assert load_study(tmp_path / "study.yaml", overrides).study.rivals == rivals


def test_chosen_tasks_keep_the_order_of_the_study(tmp_path):
    file = tmp_path / "study.yaml"
    study = {**STUDY, "tasks": {"helpful": TASK, "b": TASK, "c": TASK}}
    file.write_text(yaml.safe_dump(study, sort_keys=False))
    assert [task.name for task in load_study(file, (), ["c", "helpful"]).tasks] == ["helpful", "c"]
    assert len(load_study(file).tasks) == 3
    match = r"no task called 'helpfull'\. Did you mean helpful\? Its tasks: helpful, b, c"
    with pytest.raises(ConfigError, match=match):
        load_study(file, (), ["b", "helpfull"])


def test_files_are_looked_for_beside_the_study_and_name_their_tasks(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/one.yaml").write_text(yaml.safe_dump(TASK))
    (tmp_path / "study.yaml").write_text("tasks: [parts/one.yaml]\nkl: [0.1, 0.2]\n")
    grid = load_study(tmp_path / "study.yaml", ("seeds=[5]", "train.steps=9", "methods=rloo"))
    assert cells(grid) == ["one/rloo-kl0.1-seed5", "one/rloo-kl0.2-seed5"]
    config = next(iter(grid.cells)).config
    assert (config.train.steps, config.folder) == (9, tmp_path / "parts")


def test_the_configuration_of_a_run_is_the_only_task(tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(TASK))
    grid = load_study(tmp_path / "mine.yaml", ("methods=[rloo]", "kl=[0.1,0.2]", "seeds=[0]"))
    assert cells(grid) == ["mine/rloo-kl0.1-seed0", "mine/rloo-kl0.2-seed0"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"methds": []}, "Unknown key `methds` .* Did you mean `methods`"),
        ({"methods": ["rlo"]}, "`methods.0` .* got 'rlo'. Did you mean rloo"),
        ({"methods": ["rloo", "rloo"]}, "`methods` .* rloo is given twice"),
        ({"kl": [0.1, 0.1]}, "`kl` .* 0.1 is given twice"),
        ({"kl": [0.1, 0.10000001]}, "Task a: two cells are called rloo-kl0.1-seed0"),
        ({"kl": [-1]}, "`kl.0`"),
        ({"seeds": []}, "`seeds`"),
        ({"seeds": [-1]}, "`seeds.0`"),
        ({"rivals": ["ipo"]}, "`rivals` .* has ipo, which is not among .* rloo, rlhf"),
        ({"candidates": ["ipo"]}, "`candidates` .* has ipo, which is not among .* rloo, rlhf"),
        ({"tasks": []}, "`tasks` .* at least one"),
        ({"tasks": 3}, "`tasks` .* a list of files, or a map"),
        ({"tasks": ["x.yaml", "y/x.yaml"]}, "two tasks are called x"),
        ({"tasks": {"A": TASK, "a": TASK}}, "two tasks are called a"),
        ({"tasks": {"a/b": TASK}}, "a task names a folder, and 'a/b'"),
        ({"tasks": {"a": 3}}, "a must be a file or a section"),
        ({"tasks": ["gone.yaml"]}, "Task gone: the configuration file gone.yaml does not exist"),
        ({"tasks": {"a": {**TASK, "modle": 1}}}, "Task a: Unknown key `modle` .* `model`"),
        ({"tasks": {"a": {**TASK, "train": 3}}}, "Task a: `train` .* must be a section"),
        (
            {"kl": [], "tasks": {"a": {k: v for k, v in TASK.items() if k != "kl"} | {"beta": 1}}},
            "Task a: it gives `beta`. Name the KLs",
        ),
        (
            {"methods": ["group"], "common": {"train": {"group": 4}}},
            "Task a: .* group needs more responses",
        ),
        (
            {"tasks": {"a": {**TASK, "evaluate": {"policies": {"x": "m"}}}}},
            "Task a: a study compares the policies that it trains",
        ),
    ],
)
def test_an_error_names_the_key_and_the_task(changed, message):
    with pytest.raises(ConfigError, match=message):
        read_study({**STUDY, **changed})
