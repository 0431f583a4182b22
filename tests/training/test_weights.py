"""Weights of trained policies are loaded whole, or not at all."""

import pytest
import torch
from enumerable import EnumerableModel
from safetensors.torch import load_file, save_file

from infalign.config import SamplingSettings, Training
from infalign.errors import DataError
from infalign.training.recipe import Recipe
from infalign.training.weights import fresh_policy, load_policy, save_policy, with_adapters

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture
def recipe(tmp_path):
    EnumerableModel.make(tmp_path / "reference", seed=0)
    return Recipe(
        str(tmp_path / "reference"), Training(), SamplingSettings(), 0, trust_remote_code=False
    )


def change(file, edit):
    save_file(edit(load_file(file)), file, metadata={"format": "pt"})


@pytest.mark.parametrize("rank", [0, 2])
def test_saved_weights_come_back(recipe, tmp_path, rank):
    model = with_adapters(fresh_policy(recipe), rank)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(1)
    trained = {k: v.clone() for k, v in model.state_dict().items()}
    save_policy(model, tmp_path / "saved")
    again = with_adapters(fresh_policy(recipe), rank)
    load_policy(again, tmp_path / "saved")
    for name, weight in again.state_dict().items():
        torch.testing.assert_close(weight, trained[name])


def test_weights_of_another_model_are_refused(recipe, tmp_path):
    other = EnumerableModel.make(tmp_path / "other", seed=0, letters="abcd")
    save_policy(other.model(torch.float32), tmp_path / "saved")
    with pytest.raises(DataError, match=r"are not those of the model .* first 'lm_head.weight'"):
        load_policy(fresh_policy(recipe), tmp_path / "saved")


def test_a_trained_policy_without_some_weights_is_refused(recipe, tmp_path):
    save_policy(fresh_policy(recipe), tmp_path / "saved")
    file = tmp_path / "saved" / "model.safetensors"
    change(file, lambda state: {k: v for k, v in state.items() if "lm_head" not in k})
    with pytest.raises(DataError, match=r"The trained policy .* no weights for the language-model"):
        load_policy(fresh_policy(recipe), tmp_path / "saved")


def test_adapters_that_lack_weights_or_have_another_rank_are_refused(recipe, tmp_path):
    save_policy(with_adapters(fresh_policy(recipe), 2), tmp_path / "saved")
    with pytest.raises(DataError, match=r"adapter are not those of the model that is trained"):
        load_policy(with_adapters(fresh_policy(recipe), 3), tmp_path / "saved")
    file = tmp_path / "saved" / "adapter" / "adapter_model.safetensors"
    change(file, lambda state: dict(list(state.items())[1:]))
    with pytest.raises(DataError, match=r"1 of \d+ differ in name or shape, first 'base_model"):
        load_policy(with_adapters(fresh_policy(recipe), 2), tmp_path / "saved")
