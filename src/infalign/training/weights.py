"""The weights of a policy: their start, the trained subset, and how they are saved."""

import shutil
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.utils import load_peft_weights
from transformers import AutoModelForCausalLM, PreTrainedModel

from infalign import storage

from .recipe import Recipe


def fresh_policy(recipe: Recipe) -> PreTrainedModel:
    """The reference's weights in single precision, to be trained."""
    return AutoModelForCausalLM.from_pretrained(
        recipe.model_path, dtype=torch.float32, trust_remote_code=recipe.trust_remote_code
    )


def lora(rank: int) -> LoraConfig | None:
    """Low-rank adapters on all linear layers; None for rank 0, which trains all weights."""
    if not rank:
        return None
    return LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def with_adapters(model: PreTrainedModel, rank: int) -> PreTrainedModel | PeftModel:
    """`model` with new adapters of that rank, or unchanged for rank 0."""
    adapters = lora(rank)
    return get_peft_model(model, adapters) if adapters else model


def save_policy(model: PreTrainedModel | PeftModel, folder: Path) -> None:
    """Write all weights, with adapters merged, in one atomic step: the folder is either complete or
    absent."""
    part = folder.with_name(folder.name + storage.UNFINISHED)
    shutil.rmtree(part, ignore_errors=True)
    if isinstance(model, PeftModel):
        model.save_pretrained(str(part / "adapter"))
        model = model.merge_and_unload()
    model.save_pretrained(str(part))
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    storage.sync_folder(folder.parent)


def load_policy(model: PreTrainedModel | PeftModel, folder: Path) -> None:
    """Load weights that `save_policy` wrote into a model that is about to be trained."""
    if isinstance(model, PeftModel):
        set_peft_model_state_dict(model, load_peft_weights(str(folder / "adapter")))
    else:
        model.load_state_dict(saved_state(folder))


def saved_state(folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a saved model, in single precision."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
