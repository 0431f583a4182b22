"""Plots, data frames and notebook cells of results.

matplotlib, pandas and polars are imported when they are asked for. Texts may come from users: they
are escaped, and a dollar sign in them is not mathematics.
"""

import io
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from html import escape
from importlib import import_module
from typing import Any

from infalign import _check
from infalign.errors import ArgumentError, InfalignError, MissingExtraError

from .shown import facts

FRAMES = ("pandas", "polars")
"""Libraries of data frames, the first one that is installed first."""

SIZE = (4.8, 2.6)
"""Width and height of a picture in a notebook, in inches."""

STYLE: dict[Any, Any] = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "figure.facecolor": "white",
    "font.size": 8.5,
    "svg.fonttype": "path",
    "svg.hashsalt": None,  # ids of two pictures in one notebook differ
    "text.parse_math": False,
    "text.usetex": False,
}


class Framed:
    """Base of results that are a table: `to_frame`, and a table in a notebook."""

    __slots__ = ()

    def _columns(self) -> Mapping[str, Any]:
        """Name of each column → its values."""
        raise NotImplementedError

    def _table(self) -> str:
        """The table of a notebook cell, as HTML."""
        return table([], facts(self).items())

    def to_frame(self) -> Any:
        """The numbers as a data frame of pandas or, without pandas, of polars.

        Raises MissingExtraError if neither is installed.
        """
        for name in FRAMES:
            try:
                library = import_module(name)
            except ImportError:
                continue
            return library.DataFrame(dict(self._columns()))
        raise MissingExtraError(
            "`to_frame` needs pandas or polars, and neither can be imported. Install one: "
            "pip install pandas"
        )

    def _repr_html_(self) -> str:
        return cell(self._table())


class Pictured(Framed):
    """Base of results that are also drawn: `plot`, and a small picture in a notebook."""

    __slots__ = ()

    def _draw(self, axes: Any) -> None:
        """Draw the result on axes of matplotlib."""
        raise NotImplementedError

    def plot(self, ax: Any = None) -> Any:
        """Draw on `ax`, axes of matplotlib, and return them. Default: axes of a new figure.

        Raises MissingExtraError without matplotlib.
        """
        if ax is None:
            try:
                from matplotlib import pyplot
            except ImportError:
                raise MissingExtraError(
                    "`plot` needs matplotlib, which cannot be imported: pip install matplotlib"
                ) from None
            ax = pyplot.subplots()[1]
        elif not hasattr(ax, "get_xlim"):
            raise ArgumentError(
                "ax", f"must be axes of matplotlib, such as plt.gca(); got {_check.short(ax)}."
            )
        self._draw(ax)
        return ax

    def _repr_html_(self) -> str:
        picture = ""
        with suppress(ImportError, InfalignError):  # the table says what is known
            picture = svg(self._draw)
        return cell(self._table(), picture)


def label(axes: Any, *, x: str, y: str, title: str = "") -> None:
    """Name the axes, and title them with a text that may come from a user."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(_check.visible(title[:80]), parse_math=False)


def svg(draw: Callable[[Any], None]) -> str:
    """A small picture as an SVG element."""
    import matplotlib
    from matplotlib.figure import Figure

    file = io.StringIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure = Figure(figsize=SIZE, layout="constrained")
        draw(figure.subplots())
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing)
    text = file.getvalue()
    return text[text.index("<svg") :]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as HTML, with every text escaped. Without a head, rows start with their names."""
    lines = [_line("th", head)] if head else []
    for first, *others in rows:
        lines.append(_line("td", [first, *others], "td" if head else "th"))
    return f"<table>{''.join(lines)}</table>"


def _line(tag: str, texts: Sequence[str], first: str = "th") -> str:
    tags = [first, *[tag] * (len(texts) - 1)]
    style = ' style="text-align:left"'
    cells = (
        f"<{t}{style}>{escape(_check.visible(text))}</{t}>"
        for t, text in zip(tags, texts, strict=True)
    )
    return f"<tr>{''.join(cells)}</tr>"


def cell(*parts: str) -> str:
    """The output of a notebook cell. The classes keep MathJax from texts of users."""
    return f'<div class="tex2jax_ignore mathjax_ignore">{"".join(parts)}</div>'
