"""Fingerprints of models and rewards: of the content if it is local, else of the name."""

import inspect
from pathlib import Path

from infalign import storage

from .rewards import load_reward
from .specs import ModelSpec


def policy_fingerprints(spec: str, *, trust_remote_code: bool = False) -> dict[str, str]:
    """`model`, `tokenizer` and `chat_template` of a policy, a specification for `load_sampler`.

    A server reports neither tokenizer nor template, so the only entry is `model`, the URL. A
    tokenizer without a template has the `chat_template` "none".

    Raises DataError if the model does not exist.
    """
    named = ModelSpec.parse(spec)
    if named.kind == "server":
        return {"model": spec}
    engine = "vllm:" if named.kind == "vllm" else ""
    path = str((named.inner if engine else named).path("model"))
    from .loading import load_tokenizer

    tokenizer = load_tokenizer(path, trust_remote_code)
    template = tokenizer.chat_template
    return {
        "model": engine + artifact(path),
        "tokenizer": storage.fingerprint(_rules(tokenizer)),
        "chat_template": "none" if template is None else storage.fingerprint(template),
    }


def _rules(tokenizer) -> list:
    """Everything that determines how text becomes tokens."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    own = sorted(tokenizer.get_vocab().items()) if fast is None else fast.to_str()
    return [own, {name: str(value) for name, value in tokenizer.special_tokens_map.items()}]


def artifact(path: str, what: str = "The model") -> str:
    """Checksum of a folder's content, id and commit of a hub model, or the URL of a server.

    - `what`: the model's name in errors.

    Raises DataError if the model does not exist.
    """
    if ModelSpec.parse(path).kind == "server":
        return path
    folder = Path(path)
    if folder.is_dir():
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        return storage.fingerprint([(p.name, storage.sha256(p)) for p in files])
    from .loading import commit

    return f"{path}@{commit(path, what)}"


def reward_fingerprint(spec: str) -> str:
    """`artifact` of a classifier or server; for a function, its name and the checksum of its
    source."""
    named = ModelSpec.parse(spec)
    if named.kind != "python":
        return artifact(str(named.path("reward")), "The reward")
    function = load_reward(spec)
    try:
        return f"{spec} {storage.fingerprint(inspect.getsource(function))}"
    except (OSError, TypeError):  # no source, as for a built-in or a callable object
        return spec
