"""Standard output and standard error, for every command.

`guarded()` surrounds a command. Inside it, whatever is written to either stream is shown with its
control characters escaped, so texts of models, servers and users cannot steer the terminal. A
character that the stream's encoding lacks is written in ASCII, and a standard output that cannot be
written is an `OutputError`; a standard error that cannot be written ends nothing.
"""

import codecs
import io
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import (
    ExitStack,
    closing,
    contextmanager,
    redirect_stderr,
    redirect_stdout,
    suppress,
)
from typing import Any, TextIO

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from infalign._check import visible

KEPT = "\n\t"
"""Control characters that a text of several lines may hold."""

WORD = 28
"""Longer words in a table may be folded."""

IN_ASCII = {
    "−": "-",
    "–": "-",
    "—": "-",
    "±": "+/-",
    "×": "x",
    "…": "...",
    "’": "'",
    "✓": "*",
    "β": "beta",
    "√": "sqrt",
    "\N{NO-BREAK SPACE}": " ",
}
"""Signs of this package's own texts, for terminals whose encoding lacks them."""


class OutputError(Exception):
    """Standard output cannot be written. `broken` says that its reader has closed it."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror or str(error))
        self.broken = isinstance(error, BrokenPipeError)


@contextmanager
def guarded() -> Iterator[None]:
    """Both standard streams as this module describes them, until the block ends."""
    out, err = sys.stdout or _closed(), sys.stderr or _nowhere()
    errors = [getattr(stream, "errors", None) for stream in (out, err)]
    for stream in (out, err):
        _reconfigure(stream, "infalign")
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Shown(out, OutputError), Shown(err, None)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream, former in zip((out, err), errors, strict=True):
            _reconfigure(stream, former)


def console(*, stderr: bool = False) -> Console:
    """A console for standard output or error. Texts are shown as they are, without markup, and with
    control characters escaped."""
    stream = sys.stderr if stderr else sys.stdout
    stream = getattr(stream, "rich_proxied_file", stream)
    return _Console(file=stream, stderr=stderr, markup=False, emoji=False, highlight=False)


def print_json(value: Any) -> None:
    """Print `value` as one line of JSON that any terminal can show."""
    print(json_text(value, ascii=not _is_unicode(sys.stdout)))


def json_text(value: Any, *, ascii: bool = False) -> str:
    """`value` as one line of JSON. Characters that are not seen are escaped, and so are halves of
    surrogate pairs, which no file can hold; it reads as the same value. Numbers that are not finite
    become null.

    >>> json_text({"é": "\\x1b\\x9b\\ud83d", "value": float("nan")})
    '{"é": "\\\\u001b\\\\u009b\\\\ud83d", "value": null}'
    """
    text = json.dumps(_finite(value), ensure_ascii=ascii, allow_nan=False)
    if visible(text) == text:
        return text
    return "".join(c if visible(c) == c else json.dumps(c)[1:-1] for c in text)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


class _Console(Console):
    """A console whose every piece of text is escaped, whatever it is a part of, and whose tables
    are never cut: on a narrow terminal they are wider than it."""

    def print(self, *objects: Any, **settings: Any) -> None:
        """Print the objects."""
        before = self.width
        self.width = max([before, *(self._fitting(o) for o in objects if isinstance(o, Table))])
        try:
            super().print(*objects, **settings)
        finally:
            self.width = before

    def _fitting(self, table: Table) -> int:
        """The least width from this console's on in which every word of a table can be read."""
        for column in table.columns:
            cells = [visible(str(cell)) for cell in (column.header, *column.cells)]
            parts = cells if column.no_wrap else [word for cell in cells for word in cell.split()]
            longest = max(map(cell_len, parts), default=0)
            column.min_width = longest if column.no_wrap else min(longest, WORD)
        least = Measurement.get(self, self.options.update(width=10_000), table).minimum
        for width in range(max(least, self.width), 10_000):
            segments = self.render(table, self.options.update(width=width))
            if all(
                Segment.get_line_length(line) <= width for line in Segment.split_lines(segments)
            ):
                return width
        return self.width

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The segments of a renderable."""
        for segment in super().render(renderable, options):
            if segment.control:  # rich's own, such as those that move a progress bar
                yield segment
            else:
                yield Segment(visible(segment.text, KEPT), segment.style)


@contextmanager
def above(screen: Console) -> Iterator[None]:
    """Inside the block, lines that are printed on a terminal appear above the bars of `screen`."""
    with ExitStack() as streams:
        if screen.is_terminal:
            lines = streams.enter_context(closing(_Lines(screen)))
            streams.enter_context(redirect_stderr(lines))
            if sys.stdout.isatty():
                streams.enter_context(redirect_stdout(lines))
        yield


class _Lines(io.TextIOBase):
    """A text stream that prints each line on a console once it is whole."""

    def __init__(self, screen: Console) -> None:
        self._screen, self._rest = screen, ""

    def write(self, text: str) -> int:
        """Add a text; the number of its characters."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._screen.print(Text(line), soft_wrap=True)
        return len(text)

    def close(self) -> None:
        """Print a last line without its end."""
        if self._rest:
            self.write("\n")


class Shown(io.TextIOBase):
    """A text stream that writes to another, escaped.

    - `failing`: the exception for a stream that cannot be written; None writes on in silence.
    """

    def __init__(self, stream: TextIO, failing: type[OutputError] | None, keep: str | None = KEPT):
        self._stream, self._failing, self._keep = stream, failing, keep
        if keep is not None:  # rich escapes by itself; its own control sequences must pass
            self.rich_proxied_file = Shown(stream, failing, None)

    def write(self, text: str) -> int:
        """Write a text; the number of its characters."""
        with self._checked():
            self._stream.write(text if self._keep is None else visible(text, self._keep))
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        with self._checked():
            self._stream.flush()

    @contextmanager
    def _checked(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: closed by Python
            if isinstance(error, UnicodeError):
                raise
            if self._failing is not None:
                closed = error if isinstance(error, OSError) else OSError(str(error))
                raise self._failing(closed) from None

    def close(self) -> None:
        """Nothing: the stream is not this one's to close."""

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The stream's file descriptor."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """True."""
        return True

    def __getattr__(self, name: str) -> Any:
        # `buffer`, `reconfigure` and others that the stream may have.
        return getattr(self._stream, name)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The stream's encoding."""
        return getattr(self._stream, "encoding", None) or "utf-8"


def open_closed_streams() -> None:
    """Put the null device where a standard stream is closed: the next file that is opened would
    take its number, and what libraries print would go into that file."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def discard_output() -> None:
    """Send what is still buffered to the null device, so that Python can end without a message."""
    with suppress(OSError, ValueError, AttributeError):
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)


def _closed() -> TextIO:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(9, "it is closed")

    return Closed()


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


def _reconfigure(stream: Any, errors: str | None) -> None:
    if errors is not None and hasattr(stream, "reconfigure"):
        with suppress(OSError, ValueError):
            stream.reconfigure(errors=errors)


def _is_unicode(stream: Any) -> bool:
    return str(getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """For `codecs`: signs that an encoding lacks, in ASCII."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    written = "".join(IN_ASCII.get(sign, sign) for sign in lacking)
    return written.encode("ascii", "backslashreplace").decode("ascii"), error.end


codecs.register_error("infalign", _in_ascii)
