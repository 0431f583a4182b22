"""The parts that every page of the package is built from: one self-contained file, its look, its
tables and its plots."""

from .document import document, environment, read
from .table import Column, table

__all__ = ["Column", "document", "environment", "read", "table"]
