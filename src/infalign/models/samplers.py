"""A policy by name: a folder or hub id, a bundled model, a server, or vLLM."""

from infalign.demo import bundled
from infalign.errors import DataError

from .interfaces import Sampler

FORMS = "folder, hub id, bundled:language-model, http(s)://HOST/v1#MODEL or vllm:PATH"
"""What `load_sampler` reads."""


REMOTE = ("http://", "https://")


def has_weights(spec: str) -> bool:
    """Whether the policy that `spec` names has weights here that can be trained."""
    return not spec.startswith((*REMOTE, "vllm:"))


def load_sampler(
    spec: str,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_new_tokens: int = 128,
    batch_size: int = 256,
    trust_remote_code: bool = False,
) -> Sampler:
    """The policy that `spec` names.

    - `http://host:8000/v1#name`, or https: the model of that name on an OpenAI-compatible server.
    - `vllm:PATH`: the folder or hub id, run by vLLM in this process.
    - `bundled:language-model`: the demonstration model.
    - anything else: folder or hub id of a causal language model, which generates `batch_size`
      responses at once; servers and vLLM form batches of their own.

    Raises DataError when there is no such model, MissingExtraError when what runs it is missing.
    """
    drawn = {"temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens}
    if spec.startswith(REMOTE):
        from .server import ServerModel

        url, _, name = spec.partition("#")
        if not name:
            raise DataError(
                f"The model {spec!r} does not say which one of the server's it is. Put its name "
                f"behind a #: {url.rstrip('/')}#NAME."
            )
        return ServerModel(url, name, **drawn)
    if spec.startswith("vllm:"):
        from .vllm import VLLMModel

        path = spec.removeprefix("vllm:")
        return VLLMModel(
            bundled(path, "model") or path, trust_remote_code=trust_remote_code, **drawn
        )
    from .hf import LanguageModel

    path = bundled(spec, "model") or spec
    return LanguageModel(path, batch_size=batch_size, trust_remote_code=trust_remote_code, **drawn)
