"""One self-contained HTML page from a body, styles, scripts and data.

Its content security policy allows its one style and its one script, by checksum, and nothing else:
no requests and no other scripts. Texts of models are hostile: markup comes from templates that
escape every value, data is JSON that no tag can end, and scripts show it as text.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from infalign._check import visible

__all__ = ["document", "environment", "read"]

FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
{{ body }}
{% for name, text in data.items() %}
<script type="application/json" id="{{ name }}">{{ text }}</script>
{% endfor %}
<script>{{ script }}</script>
</body>
</html>
"""

SCRIPTS = ("numbers.js", "plots.js", "tables.js")
"""The scripts of every page, before its own."""


def document(
    title: str,
    body: Markup,
    *,
    style: str = "",
    scripts: Sequence[str] = (),
    data: Mapping[str, object] | None = None,
) -> str:
    """The page as HTML.

    - `body`: the content of the body, of which every value has been escaped.
    - `style`: rules after those that all pages share.
    - `scripts`: scripts after those that all pages share, in dependency order; all are one strict
      script.
    - `data`: id of an element → its value as JSON, for `dataOf(id)` in scripts.
    """
    style = read(__package__, "base.css") + style
    script = "\n".join(['"use strict";', *(read(__package__, s) for s in SCRIPTS), *scripts])
    for name, text, end in (("style", style, "</style"), ("script", script, "</script")):
        if end in text.lower():  # it would end there, and the rest would be markup
            raise ValueError(f"The page's {name} must not hold {end!r}. Split that text.")
    policy = (
        f"default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src {_checksum(style)}; script-src {_checksum(script)}"
    )
    return (
        environment()
        .from_string(FRAME)
        .render(
            policy=Markup(policy),
            title=title,
            style=Markup(style),
            script=Markup(script),
            body=body,
            data={name: Markup(_embedded(value)) for name, value in (data or {}).items()},
        )
    )


def environment() -> Environment:
    """Templates that escape every value, and show characters that are not seen as escapes."""
    return Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )


def read(package: str | None, name: str) -> str:
    """The text of a file inside a package."""
    return files(str(package)).joinpath(name).read_text(encoding="utf-8")


def _shown(value: object) -> object:
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value, "\n\t")
    return value


def _embedded(value: object) -> str:
    """JSON in which no text can end the element that holds it."""
    text = json.dumps(_seen(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _seen(value: object) -> object:
    """The value with its unseen characters shown as escapes, as in templates."""
    if isinstance(value, str):
        return visible(value, "\n\t")
    if isinstance(value, Mapping):
        return {visible(str(k), "\n\t"): _seen(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_seen(v) for v in value]
    return value


def _checksum(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
