"""Specifications of models, rewards and judges, parsed in one place."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from infalign.demo import bundled

Kind = Literal["python", "server", "vllm", "reward", "bundled", "path"]

_PREFIXES: dict[str, Kind] = {
    "python:": "python",
    "http://": "server",
    "https://": "server",
    "vllm:": "vllm",
    "reward:": "reward",
    "bundled:": "bundled",
}


@dataclass(frozen=True)
class ModelSpec:
    """A policy, a reward or a judge, as a configuration or an option names it."""

    text: str
    """The specification as it was given."""

    kind: Kind
    """`python`: python:package.module:function; `server`: http(s)://HOST/PATH or, for one of its
    models, http(s)://HOST/PATH#MODEL; `vllm`: vllm:PATH; `reward`: reward:REWARD, the order of a
    reward; `bundled`: bundled:NAME; `path`: a folder or hub id."""

    @classmethod
    def parse(cls, text: str) -> "ModelSpec":
        """Parse `text`; anything without a known prefix is a path.

        >>> ModelSpec.parse("http://host:8000/v1#name").model
        'name'
        """
        kinds = [kind for prefix, kind in _PREFIXES.items() if text.startswith(prefix)]
        return cls(text, kinds[0] if kinds else "path")

    @property
    def url(self) -> str:
        """The URL of a server."""
        return self.text.partition("#")[0]

    @property
    def model(self) -> str:
        """The model requested from a server; empty if the URL names none."""
        return self.text.partition("#")[2]

    @property
    def inner(self) -> "ModelSpec":
        """The specification after `vllm:` or `reward:`; otherwise this specification."""
        if self.kind not in ("vllm", "reward"):
            return self
        return ModelSpec.parse(self.text.partition(":")[2])

    @property
    def has_weights(self) -> bool:
        """Whether it names a policy whose weights are accessible and can be trained."""
        return self.kind in ("bundled", "path")

    def path(self, what: Literal["model", "reward"]) -> str | Path:
        """Folder or hub id of the weights. For `vllm:PATH`, use the path of `inner`.

        - `what`: the kind of bundled model that is meant.

        Raises DataError if the package bundles nothing of that name.
        """
        return bundled(self.text, what) or self.text
