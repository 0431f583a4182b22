"""A policy from its specification: a folder or hub id, a bundled model, a server, or vLLM."""

from infalign.errors import DataError

from .interfaces import Sampler
from .specs import ModelSpec

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
    trust_remote_code: bool = False,
) -> Sampler:
    """The policy that `spec` names.

    - `http://host:8000/v1#name`, or https: the model of that name on an OpenAI-compatible server.
    - `vllm:PATH`: the folder or hub id, run by vLLM in this process.
    - `bundled:language-model`: the demonstration model.
    - anything else: folder or hub id of a causal language model, which generates `batch_size`
      responses at once. Servers and vLLM form their own batches.

    - `strip`: remove white space at both ends of the responses' texts.

    Raises DataError if the model does not exist, and MissingExtraError if a library that runs it is
    missing.
    """
    named = ModelSpec.parse(spec)
    if named.kind == "server":
        from .model_server import ServerModel

        if not named.model:
            raise DataError(
                f"The model {spec!r} does not name one of the server's models. Add the model's "
                f"name after a #: {named.url.rstrip('/')}#NAME."
            )
        return ServerModel(
            named.url,
            named.model,
            temperature=temperature,
            top_p=top_p,
            max_new_tokens=max_new_tokens,
            strip=strip,
        )
    if named.kind == "vllm":
        from .vllm import VLLMModel

        return VLLMModel(
            named.inner.path("model"),
            temperature=temperature,
            top_p=top_p,
            max_new_tokens=max_new_tokens,
            strip=strip,
            trust_remote_code=trust_remote_code,
        )
    from .hf import LanguageModel

    return LanguageModel(
        named.path("model"),
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        strip=strip,
        trust_remote_code=trust_remote_code,
    )
