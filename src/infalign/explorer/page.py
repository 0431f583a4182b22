"""The page in one file, assembled from the markup, style and scripts in this folder.

The page computes everything itself by a different method than the package (it solves a boundary
value problem by shooting), so that the two check each other. Only the laws of procedures for which
it has no formula come from the package, as tables.
"""

import json
from pathlib import Path

from markupsafe import Markup

from infalign import __version__, storage
from infalign._pages import document, environment, read

from .tables import tables

__all__ = ["build_page", "write_page"]

TITLE = "infalign explorer: which reward transform fits your decoding?"

SCRIPTS = (
    "laws.js",
    "tilts.js",
    "optimum.js",
    "finite.js",
    "state.js",
    "model.js",
    "words.js",
    "figures.js",
    "app.js",
)
"""In dependency order."""


def build_page() -> str:
    """The explorer as one self-contained HTML document.

    >>> build_page().count("<script>")
    1
    """
    laws = tables()
    template = environment().from_string(read(__package__, "page.html"))
    return document(
        TITLE,
        Markup(template.render(tables=laws, version=__version__)),
        style=read(__package__, "style.css"),
        scripts=(
            f"const TABLES = {json.dumps(laws)};",
            *(read(__package__, name) for name in SCRIPTS),
        ),
    )


def write_page(path: Path) -> Path:
    """Write the explorer to `path`, whole or not at all; returns `path`."""
    path = Path(path)
    storage.write_text(path, build_page())
    return path
