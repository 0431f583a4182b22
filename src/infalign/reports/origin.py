"""Where the results of a report come from: the command, the date and the cost."""

from collections.abc import Sequence
from dataclasses import dataclass

from infalign._look import Shown

__all__ = ["Cost", "Origin", "duration"]


@dataclass(frozen=True)
class Cost(Shown):
    """What one part of the work cost; None where it was not counted."""

    name: str
    generations: int | None
    """Responses that were written."""

    tokens: int | None
    """Tokens of these responses."""

    seconds: float | None

    @classmethod
    def total(cls, costs: "Sequence[Cost]") -> "Cost":
        """All costs together, as far as they were counted."""
        generations = [c.generations for c in costs if c.generations is not None]
        tokens = [c.tokens for c in costs if c.tokens is not None]
        seconds = [c.seconds for c in costs if c.seconds is not None]
        return cls(
            "all",
            sum(generations) if generations else None,
            sum(tokens) if tokens else None,
            sum(seconds) if seconds else None,
        )

    def cells(self) -> list[str]:
        """Responses, tokens and time, as tables show them."""
        counts = [
            "–" if value is None else f"{value:,}" for value in (self.generations, self.tokens)
        ]
        return [*counts, "–" if self.seconds is None else duration(self.seconds)]

    def words(self) -> str:
        """What was counted, in words."""
        units = zip(self.cells(), (" responses", " tokens", ""), strict=True)
        return ", ".join(f"{cell}{unit}" for cell, unit in units if cell != "–")


@dataclass(frozen=True)
class Origin(Shown):
    """Where results come from."""

    command: str = ""
    """The command line that gives the same results in another folder."""

    date: str = ""
    """When the results were made."""

    costs: Sequence[Cost] = ()


def duration(seconds: float) -> str:
    """A time in hours, minutes or seconds.

    >>> duration(5400), duration(100), duration(2.5)
    ('1.50 hours', '1.7 minutes', '2.5 seconds')
    """
    if seconds >= 3600:
        return f"{seconds / 3600:.2f} hours"
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.1f} seconds"
