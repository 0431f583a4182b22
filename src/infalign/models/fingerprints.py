"""Fingerprints of policies, rewards and judges: of their content, wherever it is.

| named by | fingerprint |
|---|---|
| folder, bundled model | the files that determine its behavior, and those of an adapter's base |
| hub id | the id and its commit, and those of an adapter's base |
| server | URL, model, and the server's answer to a probe |
| python: | the source of the module and of the local modules that it imports |
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from infalign import storage
from infalign.errors import DataError

from .judges import FORMS, INSTRUCTION
from .model_files import ADAPTER, adapted, parts
from .precision import Dtype, Precision, precision_of
from .python_source import arguments_named, source_fingerprint
from .specs import ModelSpec

__all__ = [
    "artifact",
    "columns_read",
    "function_parts",
    "judge_parts",
    "policy_fingerprints",
    "policy_parts",
    "policy_precision",
    "reward_fingerprint",
    "reward_parts",
]

REVISION, SOURCE = "revision on the hub", "source code"


def policy_parts(
    spec: str,
    *,
    dtype: Dtype = "auto",
    trust_remote_code: bool = False,
    what: str = "The model",
) -> dict[str, str]:
    """What determines the samples of a policy, a specification for `load_sampler`: the noun of
    each part, such as "weights" or "chat template", and its fingerprint.

    - `what`: the model's name in errors.

    The path of a folder does not count. Raises DataError if the model does not exist.
    """
    named = ModelSpec.parse(spec)
    if named.kind == "server":
        from .model_server import ServerModel

        probe = ServerModel(named.url, named.model).probe()
        return {"server": spec, "answer to a probe": probe}
    engine = {"engine": "vllm"} if named.kind == "vllm" else {}
    own = engine | _parts(str(named.inner.path("model")), what, trust_remote_code)
    loading: dict[str, Any] = {"trust_remote_code": trust_remote_code, "what": what}
    return own | _rounded(policy_precision(spec, dtype=dtype, **loading))


def policy_precision(
    spec: str,
    *,
    dtype: Dtype = "auto",
    trust_remote_code: bool = False,
    what: str = "The model",
) -> Precision | None:
    """What a policy computes in; None where that is not decided here: on servers, and in vLLM with
    `auto`."""
    named = ModelSpec.parse(spec)
    if named.kind == "vllm":
        return None if dtype == "auto" else dtype
    if not named.has_weights:
        return None
    path = named.path("model")
    return precision_of(dtype, path, trust_remote_code=trust_remote_code, what=what)


def _rounded(precision: Precision | None) -> dict[str, str]:
    """The part that stands for a precision: none for float32, which earlier files do not state."""
    return {} if precision in (None, "float32") else {"precision": str(precision)}


def policy_fingerprints(
    spec: str, *, dtype: Dtype = "auto", trust_remote_code: bool = False
) -> dict[str, str]:
    """`model`, `tokenizer`, `chat_template` and `dtype` of a policy, a specification for
    `load_sampler`.

    `model` and `dtype` cover all of `policy_parts`. A server reports only the entries `model`, its
    URL, and `probe`, its answer to a probe. A tokenizer without a template has the `chat_template`
    "none". vLLM does not report the `dtype` that it chooses with `auto`.

    Raises DataError if the model does not exist.
    """
    named = ModelSpec.parse(spec)
    if named.kind == "server":
        own = policy_parts(spec)
        return {"model": own["server"], "probe": own["answer to a probe"]}
    engine = "vllm:" if named.kind == "vllm" else ""
    path, remote = str(named.inner.path("model")), trust_remote_code
    from .loading import load_tokenizer

    tokenizer = load_tokenizer(path, remote)
    template = tokenizer.chat_template
    precision = policy_precision(spec, dtype=dtype, trust_remote_code=remote)
    return {
        "model": engine + artifact(path, trust_remote_code=remote),
        "tokenizer": storage.fingerprint(_rules(tokenizer)),
        "chat_template": "none" if template is None else storage.fingerprint(template),
        **({} if precision is None else {"dtype": precision}),
    }


def _rules(tokenizer) -> list:
    """Everything that determines how text becomes tokens."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    own = sorted(tokenizer.get_vocab().items()) if fast is None else fast.to_str()
    return [own, {name: str(value) for name, value in tokenizer.special_tokens_map.items()}]


def artifact(path: str, what: str = "The model", *, trust_remote_code: bool = False) -> str:
    """Fingerprint of the model in a folder, or id and commit of a hub model.

    - `what`: the model's name in errors.

    Raises DataError if the model does not exist.
    """
    return _single(_parts(path, what, trust_remote_code))


def _parts(path: str, what: str, trust_remote_code: bool) -> dict[str, str]:
    def base(name: str) -> Mapping[str, str]:
        return _parts(name, f"{what} is an adapter, whose base", trust_remote_code)

    if Path(path).is_dir():
        return parts(Path(path), base, code=trust_remote_code)
    from .checkpoints import hub_file
    from .loading import commit

    own = {REVISION: f"{path}@{commit(path, what)}"}
    adapter = hub_file(path, ADAPTER)
    if adapter is not None and hub_file(path, "config.json") is None:
        own["base model"] = storage.fingerprint(base(adapted(adapter)))
    return own


def reward_parts(
    spec: str,
    *,
    dtype: Dtype = "auto",
    trust_remote_code: bool = False,
    what: str = "The reward",
) -> dict[str, str]:
    """What determines the scores of a reward, a specification for `load_reward`, as
    `policy_parts`."""
    named = ModelSpec.parse(spec)
    if named.kind == "python":
        return {SOURCE: source_fingerprint(spec, "reward")}
    if named.kind == "server":
        from .reward_server import ServerReward

        return {"server": spec, "answer to a probe": ServerReward(spec).probe()}
    path = str(named.path("reward"))
    precision = precision_of(dtype, path, trust_remote_code=trust_remote_code, what=what)
    return _parts(path, what, trust_remote_code) | _rounded(precision)


def columns_read(spec: str, columns: Iterable[str]) -> list[str] | None:
    """Those columns of the prompts that a reward or a judge may read; None if it reads neither
    columns nor the form of a prompt, a text or messages.

    A Python function reads those that it names, or all with `**kwargs`; a server gets all.
    """
    named = ModelSpec.parse(spec)
    if named.kind == "reward":
        return columns_read(named.inner.text, columns)
    if named.kind == "python":
        names = arguments_named(spec, "function")
        return [c for c in columns if names is None or c in names]
    return list(columns) if named.kind == "server" and not named.model else None


def function_parts(spec: str, what: str) -> dict[str, str]:
    """What determines the values of a function that is neither a reward nor a judge.

    - `what`: its noun in errors.
    """
    return {SOURCE: source_fingerprint(spec, what)}


def reward_fingerprint(spec: str, *, dtype: Dtype = "auto", trust_remote_code: bool = False) -> str:
    """Fingerprint of a reward, a specification for `load_reward`.

    Raises DataError if the reward does not exist.
    """
    own = reward_parts(spec, dtype=dtype, trust_remote_code=trust_remote_code)
    if ModelSpec.parse(spec).kind == "server":
        return f"{spec} {storage.fingerprint(own)}"
    return _single(own)


def judge_parts(
    spec: str, *, dtype: Dtype = "auto", trust_remote_code: bool = False
) -> dict[str, str]:
    """What determines the verdicts of a judge, a specification for `load_judge`, as
    `policy_parts`. That of a language model includes the question that it is asked."""
    named = ModelSpec.parse(spec)
    if named.kind == "python":
        return {SOURCE: source_fingerprint(spec, "judge")}
    if named.kind == "reward":
        own = reward_parts(named.inner.text, dtype=dtype, trust_remote_code=trust_remote_code)
        return {f"reward's {noun}": part for noun, part in own.items()}
    if named.kind == "server" and named.model:
        return {"question": storage.fingerprint(INSTRUCTION), **policy_parts(spec)}
    raise DataError(f"The judge {spec!r} cannot be loaded: it must be {FORMS}.")


def _single(own: Mapping[str, str]) -> str:
    """One fingerprint of all parts: the only part if it says everything by itself."""
    if own.keys() in ({REVISION}, {SOURCE}):
        return next(iter(own.values()))
    return storage.fingerprint(own)
