"""Whether models, rewards and judges can be what they are asked to be, before any work begins.

Only configurations, tokenizers, templates and the names and shapes of weights are read, not the
weights, so an inspection takes seconds. Servers are not contacted.
"""

from collections.abc import Collection, Sequence
from typing import Any
from urllib.parse import urlsplit

from infalign import _check
from infalign.errors import DataError

from .functions import python_function
from .interfaces import ANSWER, QUESTION, Conversation
from .judges import FORMS as JUDGES
from .python_reward import PythonReward
from .specs import ModelSpec

__all__ = ["inspect_judge", "inspect_kl", "inspect_policy", "inspect_reward"]


def inspect_policy(
    spec: str,
    *,
    trust_remote_code: bool = False,
    trained: bool = False,
    conversations: Sequence[Conversation] = (),
    keys: Sequence[str] | None = None,
    max_new_tokens: int = 0,
    what: str = "The model",
) -> None:
    """Raises DataError if `spec`, a specification for `load_sampler`, cannot be a policy.

    - `trained`: whether it is to be trained, which takes weights of its own.
    - `conversations`: prompts that it has to read, with room for `max_new_tokens` more tokens.
    - `keys`: names of the prompts in errors. Default: "0", "1", …
    - `what`: the policy's noun in errors.
    """
    named = ModelSpec.parse(spec)
    if named.kind == "server":
        _require_url(spec, what)
        if not named.model:
            raise DataError(
                f"{what} {spec!r} does not name one of the server's models. Add the model's "
                f"name after a #: {named.url.rstrip('/')}#NAME."
            )
        return
    if named.kind in ("python", "reward"):
        raise DataError(f"{what} {spec!r} is not a policy: a policy is a model that writes text.")
    from transformers import AutoModelForCausalLM

    from .checkpoints import require_merged
    from .limits import prompt_ids
    from .loading import load_config, prompt_text

    path = (named.inner if named.kind == "vllm" else named).path("model")
    who = f"{what} {str(path)!r}"
    if trained or named.kind == "vllm":
        require_merged(path, who, "be trained" if trained else "be run by vLLM")
    if trained and getattr(load_config(path, trust_remote_code, what), "quantization_config", None):
        raise DataError(
            f"{who} is quantized, so it cannot be trained: KL targeting moves its weights by "
            "fractions. Give the model that it was quantized from."
        )
    tokenizer, model = _parts(AutoModelForCausalLM, path, trust_remote_code, what)
    asked = list(conversations) or [[QUESTION]]
    texts = [prompt_text(tokenizer, c) for c in asked]
    _require_in_text(texts[0], asked[0][-1:], who)
    names = keys if keys is not None and conversations else [str(i) for i in range(len(asked))]
    prompt_ids(model, tokenizer, asked, names, max_new_tokens, who)


def inspect_reward(
    spec: str,
    *,
    trust_remote_code: bool = False,
    conversations: Sequence[Conversation] = (),
    columns: Collection[str] | None = None,
    what: str = "The reward",
) -> None:
    """Raises DataError if `spec`, a specification for `load_reward`, cannot be a reward.

    - `conversations`: prompts that it has to read.
    - `columns`: the prompts' other columns, if they are known: a function may need one that is not
      among them.
    - `what`: the reward's noun in errors.
    """
    named = ModelSpec.parse(spec)
    if named.kind == "python":
        reward = PythonReward(python_function(spec, _noun(what)))
        if columns is not None:
            reward.require_columns(columns)
        return
    if named.kind == "server":
        _require_url(spec, what)
        return
    if named.kind in ("vllm", "reward"):
        raise DataError(f"{what} {spec!r} is not a reward. Write the reward without a prefix.")
    from transformers import AutoModelForSequenceClassification

    from .limits import require_known
    from .loading import judged_text, tokenize

    path = named.path("reward")
    who = f"{what} {str(path)!r}"
    tokenizer, model = _parts(AutoModelForSequenceClassification, path, trust_remote_code, what)
    answer = ANSWER["content"]
    asked = list(conversations) or [[QUESTION]]
    texts = [judged_text(tokenizer, c, answer, what) for c in asked]
    _require_in_text(texts[0], [*asked[0][-1:], ANSWER], who)
    if model is not None:
        require_known(model, tokenizer, tokenize(tokenizer, texts)["input_ids"], who)


def inspect_kl(policy: str, reference: str, *, trust_remote_code: bool = False) -> None:
    """Raises DataError if two policies have logits but write with different tokens, so that they
    have no KL."""
    specs = {"The policy": ModelSpec.parse(policy), "The reference": ModelSpec.parse(reference)}
    if policy == reference or not all(s.has_weights for s in specs.values()):
        return
    from .loading import load_config, load_tokenizer
    from .tokens import Tokens, require_same_tokens

    both = []
    for what, spec in specs.items():
        path = spec.path("model")
        config = load_config(path, trust_remote_code, what)
        tokenizer = load_tokenizer(path, trust_remote_code, what)
        both.append(Tokens.of(tokenizer, config, f"{what} {str(path)!r}"))
    require_same_tokens(*both)


def inspect_judge(
    spec: str,
    *,
    trust_remote_code: bool = False,
    columns: Collection[str] | None = None,
    what: str = "The judge",
) -> None:
    """Raises DataError if `spec`, a specification for `load_judge`, cannot be a judge.

    - `columns`: as in `inspect_reward`.
    """
    named = ModelSpec.parse(spec)
    if named.kind == "python":
        judge = python_function(spec, _noun(what))
        if columns is not None:  # prompts and both responses come by position
            judge.require_columns({*columns, "prompt_id"}, 3)
    elif named.kind == "reward":
        inspect_reward(
            named.inner.text,
            trust_remote_code=trust_remote_code,
            columns=columns,
            what=f"{what}'s reward",
        )
    elif named.kind == "server" and named.model:
        _require_url(spec, what)
    else:
        raise DataError(f"{what} {spec!r} cannot be loaded: it must be {JUDGES}.")


def _noun(what: str) -> str:
    return what.removeprefix("The ").lower()


def _require_url(spec: str, what: str) -> None:
    """Raises DataError for a URL without a host, with an invalid port, or with blanks."""
    url = ModelSpec.parse(spec).url
    try:
        parts = urlsplit(url)
        good = bool(parts.hostname) and not any(c.isspace() for c in url)
        good = good and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good:
        raise DataError(f"{what} {spec!r} is not a URL such as http://127.0.0.1:8000/v1.")


def _parts(loader: Any, path: Any, trust_remote_code: bool, what: str) -> tuple[Any, Any]:
    """The tokenizer, and the model without data in its weights; no model if the names of its
    weights cannot be read."""
    from .loading import load_tokenizer, outline

    model = outline(loader, path, trust_remote_code, what)
    return load_tokenizer(path, trust_remote_code, what), model


def _require_in_text(text: str, messages: Conversation, who: str) -> None:
    """Raises DataError for a chat template that leaves out what a message says.

    Templates may strip and escape texts, so only their letters and digits are compared.
    """
    for message in messages:
        if _letters(str(message["content"])) not in _letters(text):
            raise DataError(
                f"The chat template of {who[:1].lower()}{who[1:]} leaves out messages of the role "
                f"{message['role']!r}: it writes {_check.short(text)} for a conversation that "
                f"ends with {_check.short(message['content'])}. Correct the template in "
                "chat_template.jinja."
            )


def _letters(text: str) -> str:
    return "".join(c for c in text if c.isalnum())
