"""The explorer: one interactive page that explains transforms and helps to choose one."""

from .page import build_page, write_page
from .server import serve

__all__ = ["build_page", "serve", "write_page"]
