"""The weights of a policy: their start, the trained subset, and how they are saved."""

import shutil
from pathlib import Path

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft.utils import load_peft_weights
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from trl.trainer import disable_dropout_in_model

from infalign import disk, storage
from infalign.errors import DataError
from infalign.models.checkpoints import require_merged
from infalign.models.loading import load_config, load_model
from infalign.models.padding import require_hidden_padding

from .recipe import Recipe

__all__ = ["fresh_policy", "load_policy", "lora", "save_policy", "saved_state", "with_adapters"]

RANDOM = ("drop", "jitter")
"""Parts of the names of settings that make a model random in training: `attn_pdrop`,
`attention_dropout`, `layerdrop`, `router_jitter_noise`."""


def fresh_policy(recipe: Recipe, pad: int | None = None) -> PreTrainedModel:
    """The reference's weights in single precision, to be trained without dropout.

    With dropout, the policy whose log-probabilities are trained is not the one that samples: its KL
    to the reference would be that of the noise, even where their weights are the same.

    - `pad`: the padding token. If given, a model that reads padding raises DataError.
    """
    path, trusted, what = recipe.model_path, recipe.trust_remote_code, "The model"
    who = f"{what} {str(path)!r}"
    require_merged(path, who, "be trained")
    config = load_config(path, trusted, what)
    _still(config)
    model = load_model(
        AutoModelForCausalLM, path, trusted, what, dtype=torch.float32, config=config
    )
    disable_dropout_in_model(model)  # of layers whose dropout is no part of the configuration
    if pad is not None:
        require_hidden_padding(model, pad, who)
    return model


def _still(config: PreTrainedConfig) -> None:
    """Set the probabilities of dropout in a configuration to 0, also in the parts of it.

    Many models read them from there, or keep them as numbers, so that no layer could be changed.
    """
    for name, value in list(vars(config).items()):
        if isinstance(value, PreTrainedConfig):
            _still(value)
        elif type(value) in (int, float) and 0 < value <= 1 and any(x in name for x in RANDOM):
            setattr(config, name, type(value)(0))  # configurations may check types


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
    part = storage.unfinished_name(folder)
    with disk.writing(folder):
        try:
            if isinstance(model, PeftModel):
                model.save_pretrained(str(part / "adapter"))
                model = model.merge_and_unload()
            model.save_pretrained(str(part))
            if folder.exists():
                shutil.rmtree(folder)
            part.rename(folder)
            storage.sync_folder(folder.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def load_policy(model: PreTrainedModel | PeftModel, folder: Path) -> None:
    """Load weights that `save_policy` wrote into a model that is about to be trained.

    Raises DataError if they are not all of the weights that are trained.
    """
    if isinstance(model, PeftModel):
        stored = load_peft_weights(str(folder / "adapter"))
        needed = get_peft_model_state_dict(model)
        _require_same_weights(stored, needed, folder / "adapter")
        set_peft_model_state_dict(model, stored)
    else:
        stored = saved_state(folder)
        _require_same_weights(stored, model.state_dict(), folder)
        model.load_state_dict(stored)


def saved_state(
    path: Path | str, trust_remote_code: bool = False, what: str = "The trained policy"
) -> dict[str, torch.Tensor]:
    """All weights of a saved model, in single precision."""
    loaded = load_model(AutoModelForCausalLM, path, trust_remote_code, what, dtype=torch.float32)
    return loaded.state_dict()


def _require_same_weights(
    stored: dict[str, torch.Tensor], needed: dict[str, torch.Tensor], folder: Path
) -> None:
    """Raises DataError unless `stored` has the names and shapes of `needed`."""
    other = sorted(
        name
        for name in stored.keys() | needed.keys()
        if name not in stored or name not in needed or stored[name].shape != needed[name].shape
    )
    if other:
        raise DataError(
            f"The weights in {folder} are not those of the model that is trained: {len(other)} of "
            f"{len(needed)} differ in name or shape, first {other[0]!r}. Delete the folder, and "
            "train this stage again."
        )
