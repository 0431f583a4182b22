"""The explorer: one interactive page on which a transform is understood and chosen."""

from .page import build_page, write_page
from .server import serve

__all__ = ["build_page", "serve", "write_page"]
