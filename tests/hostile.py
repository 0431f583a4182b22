"""Texts that steer terminals, break tables or run as code, for every output that shows a text."""

import re

TEXTS = {
    "a color": "\x1b[31mred\x1b[0m",
    "a hidden text": "\x1b[8mhidden",
    "a cleared screen": "\x1b[2J\x1b[H",
    "a window title": "\x1b]0;title\x07",
    "a link": "\x1b]8;;http://evil.test\x1b\\here\x1b]8;;\x1b\\",
    "an eight-bit control": "\x9b31mred \x9d0;title\x9c",
    "a backspace": "good\x08\x08\x08\x08evil",
    "a carriage return": "evil\rgood",
    "two lines": "one\ninfalign: done",
    "a tab": "a\tb",
    "a null": "a\0b",
    "a delete": "a\x7fb",
    "a form feed": "a\x0b\x0cb",
    "right to left": "user\u202etxt.exe\u202c",
    "isolates": "\u2066a\u2067b\u2069",
    "marks": "a\u200eb\u200fc\u061cd",
    "a zero width": "ad\u200bmin\u2060\ufeff\u00ad",
    "a filler": "a\u3164b\u115fc\U000e0100",
    "tags": "a\U000e0041\U000e0042",
    "line separators": "a\u2028b\u2029c\u0085d",
    "half a pair": "a\ud83db",
    "the other half": "a\ude00b",
    "markup of rich": "[red]a[/red] [/] [link=http://evil.test]b[/link]",
    "an emoji's name": ":smile: :warning:",
    "HTML": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "an attribute": "\" onmouseover='alert(1)' `",
    "an entity": "&lt;b&gt; &#x3c;",
    "a template": "{{ 7 * 7 }} {% raw %}",
    "Markdown": "**a** [b](javascript:alert(1)) `c` | d _e_ # f ~~g~~ ![h](i)",
    "LaTeX": r"\input{/etc/passwd} $x^2$ a_b {c} ~d % e & f # g",
    "mathematics": "$x$ a_$b",
    "broken mathematics": r"$\frac{",
    "a formula": '=HYPERLINK("http://evil.test")',
    "an end of a comment": "a\n\\input{x}",
    "words in Japanese": "日本　語 é 👍🏽 ❤️",
    "a long name": "n" * 300,
    "many combining marks": "a" + "\u0301" * 50,
}

STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)
"""What no terminal may get from a text."""

STYLE = re.compile(r"\x1b\[[0-9;]*m")
"""What a console writes itself, in color."""


def steering(output: str) -> list[str]:
    """The characters of an output that steer a terminal or are not seen, apart from styles."""
    return STEERING.findall(STYLE.sub("", output))
