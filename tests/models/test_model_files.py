"""Which files of a model folder are part of its identity, and which are not."""

import json
import shutil
from collections import Counter

import pytest

from infalign import DataError
from infalign.models import model_files
from infalign.models.fingerprints import artifact, policy_parts

FILES = {
    "model.safetensors": "weights",
    "model-00001-of-00002.safetensors": "weights",
    "model.safetensors.index.json": "weights",
    "pytorch_model.bin": "weights",
    "consolidated.00.pth": "weights",
    "tf_model.h5": "weights",
    "flax_model.msgpack": "weights",
    "model-q4.gguf": "weights",
    "config.json": "configuration",
    "generation_config.json": "generation settings",
    "tokenizer.json": "tokenizer",
    "tokenizer_config.json": "tokenizer",
    "tokenizer.model": "tokenizer",
    "special_tokens_map.json": "tokenizer",
    "added_tokens.json": "tokenizer",
    "vocab.json": "tokenizer",
    "merges.txt": "tokenizer",
    "spiece.model": "tokenizer",
    "qwen.tiktoken": "tokenizer",
    "chat_template.jinja": "chat template",
    "chat_template.json": "chat template",
    "additional_chat_templates/tool_use.jinja": "chat template",
    "adapter_config.json": "adapter",
    "adapter_model.safetensors": "adapter",
    "adapter_model.bin": "adapter",
    "modeling_own.py": "code",
    "own/layers.py": "code",
    "quantize.json": "other files",
    "1_Pooling/config.json": "configuration",
}
"""File of a model folder → what messages call it."""

IGNORED = (
    "README.md",
    "readme.txt",
    "LICENSE",
    "USE_POLICY.md",
    "NOTICE",
    ".gitattributes",
    ".git/HEAD",
    ".cache/huggingface/download/model.metadata",
    "figures/loss.png",
    "banner.svg",
    "training_args.bin",
    "trainer_state.json",
    "all_results.json",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state_0.pth",
    "events.out.tfevents.17.host",
    "runs/now/events.out.tfevents.17.host",
    "checkpoint-50/model.safetensors",
    "global_step50/zero_pp_rank_0.pt",
    "__pycache__/modeling_own.cpython-311.pyc",
)


@pytest.fixture(scope="module")
def every_file(tmp_path_factory):
    """A folder with a file of every kind."""
    folder = tmp_path_factory.mktemp("every") / "model"
    for name in (*FILES, *IGNORED):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(json.dumps({"of": name}).encode())
    return folder


@pytest.fixture
def folder(every_file, tmp_path):
    return shutil.copytree(every_file, tmp_path / "model")


def parts(folder):
    return policy_parts(str(folder), trust_remote_code=True)


def changed(before, after):
    return {k for k in before | after if before.get(k) != after.get(k)}


@pytest.mark.parametrize(("name", "noun"), FILES.items())
@pytest.mark.parametrize("change", ["other", "removed", "renamed"])
def test_every_file_that_a_model_is_loaded_from_counts(folder, name, noun, change):
    before, whole, file = parts(folder), artifact(str(folder)), folder / name
    if change == "other":  # of the same length
        file.write_bytes(file.read_bytes().replace(b'"of"', b'"no"'))
    elif change == "removed":
        file.unlink()
    else:
        file.rename(file.with_name(f"other-{file.name}"))
    if name == "config.json" and change != "other":  # what is left is an adapter without its base
        with pytest.raises(DataError, match="base_model_name_or_path"):
            parts(folder)
        return
    now = changed(before, parts(folder))
    assert noun in now and (change == "renamed" or now == {noun})
    assert noun == "code" or artifact(str(folder)) != whole


@pytest.mark.parametrize("name", IGNORED)
def test_documentation_and_a_trainers_state_do_not_count(folder, name):
    before = parts(folder)
    (folder / name).write_bytes(b"other words")
    assert parts(folder) == before
    (folder / name).unlink()
    assert parts(folder) == before


def test_the_same_files_under_another_path_are_the_same_model(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "elsewhere" / "copy")
    assert parts(copy) == parts(folder) and artifact(str(copy)) == artifact(str(folder))


def test_files_that_change_places_are_another_model(folder):
    before = parts(folder)
    one, two = folder / "config.json", folder / "1_Pooling" / "config.json"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second), two.write_bytes(first)
    assert changed(before, parts(folder)) == {"configuration"}


def test_code_counts_only_if_it_may_run(folder):
    before = policy_parts(str(folder))
    assert "code" not in before
    (folder / "modeling_own.py").write_text("raise SystemExit")
    assert policy_parts(str(folder)) == before


@pytest.fixture
def adapter(tmp_path):
    """An adapter, its base and a copy of that; the adapter names its base by path."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"low rank")
    names(tmp_path / "adapter", base)
    return tmp_path / "adapter"


def names(adapter, base, rank=4):
    config = {"base_model_name_or_path": str(base), "r": rank}
    (adapter / "adapter_config.json").write_text(json.dumps(config))


def test_an_adapter_is_its_base_too(adapter):
    before = parts(adapter)
    (adapter.parent / "base" / "model.safetensors").write_bytes(b"Weights")
    assert changed(before, parts(adapter)) == {"base model"}


def test_where_an_adapters_base_lies_does_not_count(adapter, tmp_path):
    before = parts(adapter)
    names(adapter, shutil.copytree(tmp_path / "base", tmp_path / "moved"))
    assert parts(adapter) == before
    names(adapter, tmp_path / "moved", rank=8)
    assert changed(before, parts(adapter)) == {"adapter"}


def test_a_base_that_does_not_exist_is_named(adapter, tmp_path):
    names(adapter, tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"adapter, whose base .*nowhere"):
        parts(adapter)


def test_large_files_are_read_once_and_again_when_they_change(folder, monkeypatch):
    large = folder / "model.safetensors"
    large.write_bytes(b"a" * model_files.LARGE)
    read, sha256 = [], model_files.storage.sha256
    monkeypatch.setattr(
        model_files.storage, "sha256", lambda path: read.append(path.name) or sha256(path)
    )
    before = parts(folder)
    assert parts(folder) == before
    assert Counter(read)["model.safetensors"] == 1 and Counter(read)["config.json"] == 4
    large.unlink()
    large.write_bytes(b"b" * model_files.LARGE)
    assert changed(before, parts(folder)) == {"weights"}
