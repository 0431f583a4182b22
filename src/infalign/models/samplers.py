"""A policy from its specification: a folder or hub id, a bundled model, a server, or vLLM."""

from typing import Any, Literal

from infalign.errors import DataError

from .interfaces import Sampler
from .precision import Dtype
from .specs import MEMORY, ModelSpec

__all__ = [
    "load_sampler",
]

FORMS = "folder, hub id, bundled:language-model, http(s)://HOST/v1#MODEL or vllm:PATH"
"""The specifications that `load_sampler` reads."""


def load_sampler(
    spec: str,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_new_tokens: int = 128,
    batch_size: int = 256,
    strip: bool = False,
    answer: Literal["whole", "after-thinking"] = "whole",
    ask_again: int = 0,
    dtype: Dtype = "auto",
    trust_remote_code: bool = False,
) -> Sampler:
    """The policy that `spec` names.

    - `http://host:8000/v1#name`, or https: the model of that name on an OpenAI-compatible server.
    - `vllm:PATH`: the folder or hub id, run by vLLM in this process. With
      `vllm:PATH#gpu_memory_utilization=0.5`, vLLM takes half of the GPU's memory.
    - `bundled:language-model`: the demonstration model.
    - anything else: folder or hub id of a causal language model, which generates `batch_size`
      responses at once. Servers and vLLM form their own batches.

    - `strip`: remove white space at both ends of the responses' texts.
    - `answer`: `whole`, or `after-thinking` for the part of a response after its thought.
    - `ask_again`: further draws, with other seeds, for a response that has no answer, as in
      `ServerModel`. Default: it is an error.
    - `dtype`: precision of models that run here, as `precision_of` reads it; `auto` leaves that of
      vLLM to vLLM.

    Raises DataError if the model does not exist, and MissingExtraError if a library that runs it is
    missing.
    """
    named = ModelSpec.parse(spec)
    common: dict[str, Any] = {
        "temperature": temperature,
        "top_p": top_p,
        "max_new_tokens": max_new_tokens,
        "strip": strip,
    }
    if named.kind == "server":
        from .model_server import ServerModel

        if not named.model:
            raise DataError(
                f"The model {spec!r} does not name one of the server's models. Add the model's "
                f"name after a #: {named.url.rstrip('/')}#NAME."
            )
        return ServerModel(named.url, named.model, answer=answer, ask_again=ask_again, **common)
    if named.kind == "vllm":
        from .vllm import VLLMModel

        path = named.inner.path("model")
        if named.memory is not None:
            common[MEMORY] = named.memory
        sampler: Sampler = VLLMModel(
            path, trust_remote_code=trust_remote_code, dtype=dtype, **common
        )
    else:
        from .hf import LanguageModel

        sampler = LanguageModel(
            named.path("model"),
            batch_size=batch_size,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            **common,
        )
    if answer == "whole":  # always present where the model runs here
        return sampler
    from .after_thinking import AfterThinking

    return AfterThinking(
        sampler,
        source=f"The model {spec!r}",
        max_new_tokens=max_new_tokens,
        strip=strip,
        ask_again=ask_again,
    )
