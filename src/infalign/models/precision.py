"""The precision in which models compute: what `dtype` asks for, and what it comes to on a machine.

bfloat16 halves the memory, and processors that multiply it are two to six times as fast with it.
Narrow models gain little, and are exact in float32.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from infalign.errors import DataError

__all__ = ["Dtype", "Precision", "in_float32", "multiplies_bfloat16", "precision_of", "trains_in"]

LOG = logging.getLogger(__name__)

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

    A model whose configuration cannot be read has no precision to choose: it is refused where it is
    loaded.
    """
    if dtype != "auto":
        return dtype
    from .loading import load_config

    try:
        text = load_config(path, trust_remote_code, what).get_text_config()
    except DataError:
        return "float32"
    width = getattr(text, "hidden_size", None)
    wide = isinstance(width, int) and width >= WIDE
    return "bfloat16" if wide and multiplies_bfloat16() else "float32"


def trains_in(dtype: Dtype) -> Precision:
    """What training multiplies in, on weights in float32: with `auto`, bfloat16 for models of any
    width, since gradients are noisier than its rounding."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if multiplies_bfloat16() else "float32"


@contextmanager
def in_float32(*models) -> Iterator[None]:
    """Inside the block, all models compute in float32 with the weights that they have.

    A GPU without room for that computes as before, with a warning. All models together are in
    float32 or none: in two precisions, the same weights would differ by the rounding of one.
    """
    import torch

    half = {id(model): _half(model) for model in models}
    tensors = list({id(x): x for own in half.values() for x in own}.values())
    if tensors and tensors[0].is_cuda:
        sizes = [sum(x.numel() * x.element_size() for x in own) for own in half.values()]
        torch.cuda.empty_cache()  # what torch keeps for later, as after a batch, is room too
        # Float32 takes twice as much, and what a model reads is kept beside its weights.
        if sum(sizes) + max(sizes) > torch.cuda.mem_get_info()[0]:
            LOG.warning(
                "The KL is measured in %s, since the GPU has no room for the weights in float32. "
                "Rounding adds about 0.003 nats for each token.",
                str(tensors[0].dtype).removeprefix("torch."),
            )
            tensors = []
    kinds = [x.dtype for x in tensors]
    for x in tensors:
        x.data = x.data.float()
    try:
        yield
    finally:
        for x, kind in zip(tensors, kinds, strict=True):
            x.data = x.data.to(kind)  # exactly what it was


def _half(model) -> list:
    """The weights and buffers of a model that are in half precision."""
    import torch

    kinds = (torch.bfloat16, torch.float16)
    return [x for x in (*model.parameters(), *model.buffers()) if x.dtype in kinds]
