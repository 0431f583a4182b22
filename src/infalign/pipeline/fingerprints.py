"""What models and rewards are, in a few characters: content where it is here, else the name."""

import inspect
from pathlib import Path

from infalign import storage
from infalign.models.rewards import load_reward
from infalign.models.specs import ModelSpec


def policy_fingerprints(spec: str, *, trust_remote_code: bool = False) -> dict[str, str]:
    """`model`, `tokenizer` and `chat_template` of a policy, as `load_sampler` reads `spec`.

    A server tells neither its tokenizer nor its template: of one there is only `model`, its name.
    A tokenizer without a template has the `chat_template` "none".

    Raises DataError where there is no such model.
    """
    named = ModelSpec.parse(spec)
    if named.kind == "server":
        return {"model": spec}
    engine = "vllm:" if named.kind == "vllm" else ""
    path = str((named.inner if engine else named).path("model"))
    from infalign.models.loading import load_tokenizer

    tokenizer = load_tokenizer(path, trust_remote_code)
    template = tokenizer.chat_template
    return {
        "model": engine + artifact(path),
        "tokenizer": storage.fingerprint(_rules(tokenizer)),
        "chat_template": "none" if template is None else storage.fingerprint(template),
    }


def _rules(tokenizer) -> list:
    """All that decides how text becomes tokens."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    own = sorted(tokenizer.get_vocab().items()) if fast is None else fast.to_str()
    return [own, {name: str(value) for name, value in tokenizer.special_tokens_map.items()}]


def artifact(path: str, what: str = "The model") -> str:
    """A folder's content, the name and commit of what lives on the hub, or the URL of a server.

    - `what`: what an error calls it.

    Raises DataError where there is no such model.
    """
    if ModelSpec.parse(path).kind == "server":
        return path
    folder = Path(path)
    if folder.is_dir():
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        return storage.fingerprint([(p.name, storage.sha256(p)) for p in files])
    from infalign.models.loading import commit

    return f"{path}@{commit(path, what)}"


def reward_fingerprint(spec: str) -> str:
    """That of a classifier or server, or the name and source of a Python function."""
    named = ModelSpec.parse(spec)
    if named.kind != "python":
        return artifact(str(named.path("reward")), "The reward")
    function = load_reward(spec)
    try:
        return f"{spec} {storage.fingerprint(inspect.getsource(function))}"
    except (OSError, TypeError):  # no source to read: built in, or a callable object
        return spec
