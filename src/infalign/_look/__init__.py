"""How results look: as text on one screen, in a notebook, in a plot and in a data frame."""

from .pictured import Framed, Pictured, label, table
from .rows import Rows
from .shown import Shown, brief, facts, summary

__all__ = ["Framed", "Pictured", "Rows", "Shown", "brief", "facts", "label", "summary", "table"]
