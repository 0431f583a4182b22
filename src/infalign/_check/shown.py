"""Values and texts as messages, terminals, tables and pages show them.

Texts of models, servers and users can hold characters that steer a terminal, reorder a line or are
not seen. Where a text is shown, those characters are spelled out: `\\x1b`, `\\u202e`.
"""

import difflib
import re
import reprlib
import unicodedata
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

LENGTH = 60
"""Largest number of characters of a value in a message."""

# Ignored by renderers, but printable by `str.isprintable`. Two selectors that choose between the
# text and the picture form of an emoji, U+FE0E and U+FE0F, are shown as they are.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0d\uffa0\U000e0100-\U000e01ef]"
)


def visible(text: str, keep: str = "") -> str:
    r"""`text` with everything escaped that is not seen as a character or a space.

    Escaped are control and format characters (bidirectional ones and zero-width ones among them),
    line separators, unassigned characters and halves of surrogate pairs.

    - `keep`: characters that stay, such as newlines in a text of several lines.

    >>> visible("\x1b[31mred\u202e\n", keep="\n")
    '\\x1b[31mred\\u202e\n'
    """
    if text.isprintable() and not _UNSEEN.search(text):
        return text
    return "".join(c if c in keep or _is_seen(c) else ascii(c)[1:-1] for c in text)


def nearest(name: object, known: Iterable[str]) -> str:
    """` Did you mean …?` with the known name that is most like `name`; empty if none is like it.

    >>> nearest("bset-of-n", ["best-of-n", "worst-of-n"])
    ' Did you mean best-of-n?'
    >>> nearest("ppo", ["rloo", "grpo"])
    ''
    """
    like = difflib.get_close_matches(str(name)[:100].lower(), list(known), n=1, cutoff=0.6)
    return f" Did you mean {like[0]}?" if like else ""


def _is_seen(character: str) -> bool:
    if character.isprintable():
        return not _UNSEEN.match(character)
    return unicodedata.category(character) == "Zs"  # spaces of other widths, as in Japanese


def short(value: Any, length: int = LENGTH) -> str:
    """`repr` of a value on one line, with at most `length` characters.

    No more of the value is read than is shown, however large it is.
    """
    try:
        text = _Bounded(length).repr(value)
    except Exception:  # what a class of others raises there is not to be foreseen
        text = f"<{type(value).__name__}>"
    text = visible(re.sub(r"\n\s*", " ", text))
    return text if len(text) <= length else text[: length - 3] + "…"


class _Bounded(reprlib.Repr):
    """`repr` that stops after as many values as a message has characters."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self._left = self._length = length
        self.maxlevel = length
        for name in ("maxtuple", "maxlist", "maxarray", "maxset", "maxfrozenset", "maxdeque"):
            setattr(self, name, length)

    def repr1(self, x: Any, level: int) -> str:
        """One value; an ellipsis after the last one that a message has room for."""
        self._left -= 1
        return "…" if self._left < 0 else super().repr1(x, level)

    def repr_str(self, x: str, level: int) -> str:
        """A text, cut before it is escaped."""
        return repr(x[: self._length])

    def repr_bytes(self, x: bytes, level: int) -> str:
        """Bytes, cut before they are escaped."""
        return repr(x[: self._length])

    def repr_int(self, x: int, level: int) -> str:
        """An integer; Python refuses to write more than some thousands of digits."""
        digits = abs(x).bit_length() * 0.30103
        return repr(x) if digits < 4 * self._length else f"an integer of {digits:.0f} digits"

    def repr_dict(self, x: Mapping[Any, Any], level: int) -> str:
        """A dictionary in its own order."""
        parts = [
            f"{self.repr1(key, level - 1)}: {self.repr1(value, level - 1)}"
            for key, value in islice(x.items(), self._length)
        ]
        return "{" + ", ".join(parts) + "}"

    def repr_instance(self, x: Any, level: int) -> str:
        """Any other value in its own words."""
        return repr(x)
