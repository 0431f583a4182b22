"""The page in one file, assembled from the markup, style and scripts in this folder.

The page computes everything itself by a different method than the package (it solves a boundary
value problem by shooting), so that the two check each other. Only the laws of procedures for which
it has no formula come from the package, as tables. Its content security policy allows its one style
and its one script, by checksum, and nothing else: no requests and no other scripts.
"""

import base64
import hashlib
import json
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from infalign import __version__, storage

from .tables import tables

__all__ = ["build_page", "write_page"]

SCRIPTS = (
    "laws.js",
    "tilts.js",
    "optimum.js",
    "finite.js",
    "state.js",
    "model.js",
    "words.js",
    "plots.js",
    "figures.js",
    "app.js",
)
"""In dependency order."""


def build_page() -> str:
    """The explorer as one self-contained HTML document.

    >>> build_page().count("<script>")
    1
    """
    style = _read("style.css")
    laws = tables()
    embedded = f"const TABLES = {json.dumps(laws)};\n"
    script = '"use strict";\n' + embedded + "\n".join(map(_read, SCRIPTS))
    for name, text, end in (("style", style, "</style"), ("script", script, "</script")):
        if end in text.lower():  # it would end there, and the rest would be markup
            raise ValueError(f"The explorer's {name} must not hold {end!r}. Split that text.")
    policy = (
        f"default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src {_checksum(style)}; script-src {_checksum(script)}"
    )
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        _read("page.html")
    )
    return template.render(
        policy=Markup(policy),
        style=Markup(style),
        script=Markup(script),
        tables=laws,
        version=__version__,
    )


def write_page(path: Path) -> Path:
    """Write the explorer to `path`, whole or not at all; returns `path`."""
    path = Path(path)
    storage.write_text(path, build_page())
    return path


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _checksum(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
