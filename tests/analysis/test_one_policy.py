"""Logs of several models are not one policy; several logs of one model are."""

import json
import re
import shlex
import zipfile

import pytest

from infalign.analysis import read_samples
from infalign.errors import DataError


def inspect_log(path, model=None, task="t", right="C", **about):
    """A log of inspect_ai with two prompts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = [
        {"id": f"{task}{i}", "epoch": 1, "scores": {"match": {"value": right}}} for i in range(2)
    ]
    own = {"task": task} | about | ({} if model is None else {"model": model})
    if path.suffix == ".json":
        path.write_text(json.dumps({"version": 2, "eval": own, "samples": samples}))
        return
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", json.dumps({"eval": own}))
        for sample in samples:
            archive.writestr(f"samples/{sample['id']}_epoch_1.json", json.dumps(sample))


def helm_run(folder, right, specification=None, name="id0"):
    """A run of HELM with one instance."""
    folder.mkdir(parents=True)
    stat = {"name": {"name": "exact_match"}, "count": 1, "sum": right}
    instance = {"instance_id": name, "train_trial_index": 0, "stats": [stat]}
    (folder / "per_instance_stats.json").write_text(json.dumps([instance]))
    if specification is not None:
        text = specification if isinstance(specification, str) else json.dumps(specification)
        (folder / "run_spec.json").write_text(text)


def by(model):
    return {"name": "mmlu", "adapter_spec": {"model": model, "model_deployment": "huggingface/x"}}


def remedies(message):
    """The source and the choice of rows that an error proposes."""
    words = shlex.split(re.search("--policy .*", message)[0].replace(";", " "))
    source, choice = words[words.index("--policy") + 1], words[words.index("--where") + 1]
    return source.removeprefix("NAME="), dict([choice.split("=", 1)])


@pytest.mark.parametrize("ending", ["json", "eval"])
def test_logs_of_several_models_are_not_one_policy(tmp_path, ending):
    inspect_log(tmp_path / f"base.{ending}", "hf/base", right="I")
    inspect_log(tmp_path / f"rl.{ending}", "hf/rl")
    with pytest.raises(
        DataError,
        match=rf"base.{ending} and 1 more file have 2 values in `model` \(hf/base, hf/rl\), which "
        r"must not be mixed. Give the files of each as a source of their own, such as --policy "
        rf"NAME=.*/rl.{ending}; or, if all sources have it, choose one: --where model=hf/rl$",
    ) as error:
        read_samples(str(tmp_path), "a")
    source, choice = remedies(str(error.value))
    assert read_samples(source, "a").scores.tolist() == [[1.0]] * 2
    assert read_samples(str(tmp_path), "a", where=choice).scores.tolist() == [[1.0]] * 2


def test_each_remedy_works_for_names_with_spaces(tmp_path):
    inspect_log(tmp_path / "a b" / "base.eval", "base", right="I")
    inspect_log(tmp_path / "a b" / "rl it.eval", "rl, it")
    with pytest.raises(DataError) as error:
        read_samples(str(tmp_path), "a")
    source, choice = remedies(str(error.value))
    assert source.endswith("a b/rl it.eval") and choice == {"model": "rl, it"}
    assert read_samples(source, "a").scores.tolist() == [[1.0]] * 2


def test_checkpoints_of_local_weights_are_told_apart_by_their_folder(tmp_path):
    for step in (1, 2):
        own = {"model_path": f"steps/{step}"}
        inspect_log(tmp_path / f"{step}.eval", "hf/local", model_args=own)
    with pytest.raises(DataError, match=r"\(hf/local:steps/1, hf/local:steps/2\)"):
        read_samples(str(tmp_path), "a")
    assert read_samples(str(tmp_path), "a", where={"model": "hf/local:steps/2"}).samples.sum() == 2


def test_one_model_on_several_tasks_or_in_several_logs_is_one_policy(tmp_path):
    for number, task in enumerate(("easy", "hard", "hard")):
        inspect_log(tmp_path / f"{number}.eval", "hf/rl", task)
    own = read_samples(str(tmp_path), "a")
    assert own.prompts == ("easy0", "easy1", "hard0", "hard1")
    assert own.samples.tolist() == [1, 1, 2, 2]
    assert not any("not recorded" in note for note in own.notes)


def test_logs_without_a_model_are_read_and_stated_beside_others(tmp_path):
    inspect_log(tmp_path / "1.json")
    assert read_samples(str(tmp_path), "a").samples.sum() == 2
    inspect_log(tmp_path / "2.json", task="u")
    own = read_samples(str(tmp_path), "a")
    assert own.samples.sum() == 4 and not any("not recorded" in note for note in own.notes)
    inspect_log(tmp_path / "3.json", "hf/rl", "v")
    own = read_samples(str(tmp_path), "a")
    assert own.samples.sum() == 6
    assert (
        "`model` is not recorded for 4 of 6 samples, which are taken as those of hf/rl" in own.notes
    )
    inspect_log(tmp_path / "4.json", "hf/base", "w")
    with pytest.raises(DataError, match=r"2 values in `model` \(hf/rl, hf/base\)"):
        read_samples(str(tmp_path), "a")


@pytest.mark.parametrize(
    ("base", "rl"),
    [
        (("mmlu:subject=law,model=x_base", None), ("mmlu:subject=law,model=x_rl", None)),
        (("a", by("x/base")), ("b", by("x/rl"))),
        (("mmlu:subject=law,model=x_base", None), ("b", by("x/rl"))),
    ],
)
def test_runs_of_several_models_of_helm_are_not_one_policy(tmp_path, base, rl):
    for (folder, specification), right in ((base, 0.0), (rl, 1.0)):
        helm_run(tmp_path / folder, right, specification)
    pattern = f"{tmp_path}/*/per_instance_stats.json"
    with pytest.raises(DataError, match=r"2 values in `model` \(x_base, x_rl\)|x_rl, x_base") as e:
        read_samples(pattern, "a")
    source, choice = remedies(str(e.value))
    right = [[float(choice["model"] == "x_rl")]]
    assert read_samples(source, "a").scores.tolist() == right
    assert read_samples(pattern, "a", where=choice).scores.tolist() == right


def test_the_folder_and_the_specification_of_helm_name_a_model_alike(tmp_path):
    runs = {
        "mmlu:subject=law,model=x_rl": None,
        "mmlu:subject=virology,model=x_rl": by("x/rl"),
        "gsm:model=x_rl,stop=none": {"adapter_spec": None},
        "elsewhere": by("x/rl"),
        "unknown": {"name": "boolq"},
    }
    for folder, specification in runs.items():
        helm_run(tmp_path / folder, 1.0, specification, name=folder)
    own = read_samples(f"{tmp_path}/*/per_instance_stats.json", "a")
    assert own.samples.sum() == 5
    assert any("not recorded for 1 of 5 samples" in note for note in own.notes)


def test_a_damaged_specification_of_helm_is_named(tmp_path):
    helm_run(tmp_path / "run", 1.0, '{"adapter_spec": {')
    with pytest.raises(DataError, match=r"run_spec.json: .*Copy the file again"):
        read_samples(str(tmp_path / "run" / "per_instance_stats.json"), "a")


def test_one_file_of_several_models_says_that_a_choice_is_for_all_sources(tmp_path):
    path = tmp_path / "two.jsonl"
    rows = [{"prompt_id": i, "model": m, "reward": i} for m in ("base", "rl") for i in range(2)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        DataError, match=r"--where model=rl. It is for all sources; if they differ, write a file"
    ):
        read_samples(str(path), "a")
