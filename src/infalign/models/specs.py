"""Specifications of models, rewards and judges, parsed in one place."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from infalign import _check
from infalign.demo import bundled
from infalign.errors import DataError

__all__ = ["MEMORY", "ModelSpec"]

Kind = Literal["python", "server", "vllm", "reward", "bundled", "path"]

_PREFIXES: dict[str, Kind] = {
    "python:": "python",
    "http://": "server",
    "https://": "server",
    "vllm:": "vllm",
    "reward:": "reward",
    "bundled:": "bundled",
}

_FILE = re.compile(r"\.py:[^/:]+$")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://|https?:")
"""What a URL begins with, and what one begins with whose slashes are missing."""

_OPTION = re.compile(r"#(\w+)=([^#]*)$")
"""An option at the end of `vllm:PATH`; other paths may contain a #."""

MEMORY = "gpu_memory_utilization"
"""The option of vLLM that a specification can set."""


@dataclass(frozen=True)
class ModelSpec:
    """A policy, a reward or a judge, as a configuration or an option names it."""

    text: str
    """The specification as it was given."""

    kind: Kind
    """`python`: python:package.module:function or path/to/file.py:function; `server`:
    http(s)://HOST/PATH or, for one of its models, http(s)://HOST/PATH#MODEL; `vllm`: vllm:PATH or
    vllm:PATH#gpu_memory_utilization=SHARE; `reward`: reward:REWARD, the order of a reward;
    `bundled`: bundled:NAME; `path`: a folder or hub id."""

    @classmethod
    def parse(cls, text: str) -> "ModelSpec":
        """Parse `text`; anything without a known prefix is a path.

        Raises DataError for URLs of other kinds, for a Python file without a function, and for
        options of vLLM other than a share of the GPU's memory.

        >>> ModelSpec.parse("http://host:8000/v1#name").model
        'name'
        """
        lower = text.lower()  # the scheme of a URL has no case
        for prefix, kind in _PREFIXES.items():
            if text.startswith(prefix) or (kind == "server" and lower.startswith(prefix)):
                return cls(text, kind)._checked()
        if _URL.match(lower):
            raise DataError(
                f"{_check.short(text)} is a URL, and none that can be used: a server's begins "
                "with http:// or https://."
            )
        if text.endswith(".py"):
            raise DataError(
                f"{_check.short(text)} is a Python file without a function. Name a function of "
                f"it, as in {_check.short(f'{text}:score')}."
            )
        return cls(text, "python" if _FILE.search(text) else "path")

    @property
    def url(self) -> str:
        """The URL of a server."""
        return self.text.partition("#")[0]

    @property
    def model(self) -> str:
        """The model requested from a server; empty if the URL names none."""
        return self.text.partition("#")[2]

    def _checked(self) -> "ModelSpec":
        """This specification; DataError if it has an option of vLLM that cannot be set."""
        option = _OPTION.search(self.text) if self.kind == "vllm" else None
        if option is not None and not (option[1] == MEMORY and _is_share(option[2])):
            raise DataError(
                f"{_check.short(self.text)} has the option {_check.short(option[0][1:])}. The one "
                f"option is {MEMORY}, above 0 and at most 1, as in vllm:PATH#{MEMORY}=0.5."
            )
        return self

    @property
    def memory(self) -> float | None:
        """The share of the GPU's memory that vLLM takes; None if it is not stated."""
        option = _OPTION.search(self.text) if self.kind == "vllm" else None
        return None if option is None else float(option[2])

    @property
    def inner(self) -> "ModelSpec":
        """The specification after `vllm:`, without its option, or after `reward:`; otherwise this
        specification."""
        if self.kind not in ("vllm", "reward"):
            return self
        own = _OPTION.sub("", self.text) if self.kind == "vllm" else self.text
        return ModelSpec.parse(own.partition(":")[2])

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


def _is_share(text: str) -> bool:
    """Whether a text is a number above 0 and at most 1."""
    try:
        return 0 < float(text) <= 1
    except ValueError:
        return False
