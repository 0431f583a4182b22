"""A machine with several GPUs trains on one of them, with the batch that is stated."""

import gc
import os
import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from enumerable import EnumerableModel
from method_settings import setting_of
from offline_runs import drawn_from, log_ratios_in_training
from transformers import LlamaForCausalLM
from trl.trainer import utils

from infalign.config import SamplingSettings, Training
from infalign.manifest import Manifest, Stage
from infalign.models.loading import load_tokenizer
from infalign.training import loop, offline, policy
from infalign.training.kl_control import GRPOSteps, LogRatioReward, RLOOSteps
from infalign.training.recipe import Recipe
from infalign.training.trl_options import arguments
from infalign.training.weights import fresh_policy

pytestmark = [
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*pin_memory:UserWarning"),  # there is no GPU
]


@pytest.fixture
def made(tmp_path):
    return EnumerableModel.make(tmp_path / "reference", seed=0)


@pytest.fixture
def recipe(made, monkeypatch):
    """A recipe on a machine with two GPUs, as transformers counts them; both are the processor."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(loop, "device", lambda: "cuda")
    train = Training(warm_start_batch_size=16, batch_size=16, group=4)
    return Recipe(str(made.path), train, SamplingSettings(), 0, False, "float32")


@pytest.fixture
def samples(made):
    return drawn_from(made, 32)


@pytest.mark.parametrize("steps", [RLOOSteps(), GRPOSteps(LogRatioReward(None, None, 1.0))])
def test_steps_on_policy_use_one_of_two_gpus(recipe, tmp_path, steps):
    args = arguments(recipe, steps, 1.0, tmp_path, selects=False)
    assert (args.n_gpu, args.train_batch_size, args.generation_batch_size) == (1, 16, 16)


def test_the_reference_that_trl_loads_is_whole_and_as_trusted_as_the_policy(
    recipe, tmp_path, monkeypatch, caplog
):
    loaded, load = [], LlamaForCausalLM.from_pretrained.__func__

    def noted(cls, path, *args, **options):
        loaded.append((options.get("device_map"), options.get("trust_remote_code")))
        return load(cls, path, *args, **options)

    monkeypatch.setattr(LlamaForCausalLM, "from_pretrained", classmethod(noted))
    gpu = SimpleNamespace(device=torch.device("cuda"))
    monkeypatch.setattr(utils, "PartialState", lambda: gpu)  # where TRL spreads models
    recipe, steps = replace(recipe, trust_remote_code=True), RLOOSteps()
    policy = fresh_policy(recipe)
    loaded.clear()
    steps.trainer_type(
        model=policy,
        reward_funcs=len,
        args=arguments(recipe, steps, 1.0, tmp_path, selects=False),
        train_dataset=Dataset.from_list([{"prompt": "ab"}] * 4),
        processing_class=load_tokenizer(recipe.model_path),
    )
    assert loaded == [(None, True)]
    assert "ignored" not in caplog.text


def test_offline_training_takes_as_many_steps_as_with_one_gpu(recipe, samples, tmp_path):
    batches = log_ratios_in_training(recipe, samples, tmp_path)
    assert list(map(len, batches)) == [16] * 4


def train_policy(recipe, samples, folder):
    train = recipe.train.model_copy(update={"validation": 0.0})
    policy.train_policy(
        replace(recipe, train=train),
        samples,
        "rlhf",
        setting_of(len, samples.rewards, ids=["ab", "c"]),
        landing_seed=0,
        out=folder / "out",
        stage=Stage(Manifest(folder), "train", {}),
        report=lambda what, done, total: None,
    )


def test_nothing_of_the_warm_start_is_in_memory_when_the_steps_on_policy_begin(
    recipe, samples, tmp_path, monkeypatch
):
    loaded, alive = [], []

    def noted(*args):
        loaded.append(weakref.ref(model := fresh_policy(*args)))
        return model

    def on_policy(*args, **options):
        alive.extend(model() is not None for model in loaded)

    monkeypatch.setattr(offline, "fresh_policy", noted)
    monkeypatch.setattr(policy, "train_on_policy", on_policy)
    monkeypatch.setattr(policy, "land", lambda *args, **options: None)
    gc.disable()  # as it is between two of its rare full collections
    try:
        train_policy(recipe, samples, tmp_path)
    finally:
        gc.enable()
    assert alive == [False]


def test_no_training_is_one_of_several_processes_after_one_with_vllm(
    recipe, samples, tmp_path, monkeypatch
):
    def on_policy(*args, **options):  # what TRL sets for a vLLM in its process
        own = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_PORT": "1"}
        for name, value in own.items():
            monkeypatch.setenv(name, value)

    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")  # the machines of a job
    before = dict(os.environ)
    monkeypatch.setattr(policy, "train_on_policy", on_policy)
    monkeypatch.setattr(policy, "land", lambda *args, **options: None)
    train_policy(recipe, samples, tmp_path)
    assert os.environ.items() >= before.items()
    assert not os.environ.keys() & {"RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}
