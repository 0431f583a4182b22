"""The weights of a policy: where they start, how they are kept, and what is trained of them."""

import shutil
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.utils import load_peft_weights
from transformers import AutoModelForCausalLM

from infalign import storage
from infalign.config import Config


def fresh_policy(config: Config, path: str):
    """The reference's weights, to be trained."""
    return AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, trust_remote_code=config.trust_remote_code
    )


def lora(config: Config) -> LoraConfig | None:
    """Low-rank adapters on all linear layers, or None when all weights are trained."""
    if not config.train.lora:
        return None
    rank = config.train.lora
    return LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def with_adapters(config: Config, model):
    """`model` with new adapters if the configuration asks for them."""
    adapters = lora(config)
    return get_peft_model(model, adapters) if adapters else model


def save_policy(model, folder: Path) -> None:
    """Write whole weights, adapters merged, as one folder that is there or not."""
    part = folder.with_name(folder.name + storage.UNFINISHED)
    shutil.rmtree(part, ignore_errors=True)
    if isinstance(model, PeftModel):
        model.save_pretrained(part / "adapter")
        model = model.merge_and_unload()
    model.save_pretrained(part)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    storage.sync_folder(folder.parent)


def load_policy(model, folder: Path) -> None:
    """Put the weights of `save_policy` into a model that is about to be trained."""
    if isinstance(model, PeftModel):
        set_peft_model_state_dict(model, load_peft_weights(str(folder / "adapter")))
    else:
        model.load_state_dict(saved_state(folder))


def saved_state(folder) -> dict[str, torch.Tensor]:
    """All weights of a saved model, in single precision."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
