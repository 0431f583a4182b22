"""The precision in which models compute: what `dtype` asks for, and what it comes to on a machine.

bfloat16 halves the memory, and processors that multiply it are two to six times as fast with it.
Narrow models gain little, and are exact in float32.
"""

from typing import Literal

__all__ = ["Dtype", "Precision", "multiplies_bfloat16", "precision_of", "trains_in"]

Dtype = Literal["auto", "float32", "bfloat16"]
"""What a configuration asks for."""

Precision = Literal["float32", "bfloat16"]
"""What a model computes in."""

WIDE = 512
"""Least width of the layers of a model that `auto` runs in bfloat16."""


def multiplies_bfloat16() -> bool:
    """Whether the device of models multiplies bfloat16 itself. Others emulate it, mostly more
    slowly than float32."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)


def precision_of(
    dtype: Dtype, path, *, trust_remote_code: bool = False, what: str = "The model"
) -> Precision:
    """What the policy or the reward in a folder, or with a hub id, computes in.

    - `what`: the model's name in errors.

    Raises DataError if the model does not exist.
    """
    if dtype != "auto":
        return dtype
    from .loading import load_config

    text = load_config(path, trust_remote_code, what).get_text_config()
    width = getattr(text, "hidden_size", None)
    wide = isinstance(width, int) and width >= WIDE
    return "bfloat16" if wide and multiplies_bfloat16() else "float32"


def trains_in(dtype: Dtype) -> Precision:
    """What training multiplies in, on weights in float32: with `auto`, bfloat16 for models of any
    width, since gradients are noisier than its rounding."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if multiplies_bfloat16() else "float32"
