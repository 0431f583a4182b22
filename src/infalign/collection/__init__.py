"""Reference samples with their rewards, drawn once and kept: on this machine or on Ray."""

from .answers import answer
from .cluster import OnRay
from .collect import collect
from .local import Local

__all__ = ["Local", "OnRay", "answer", "collect"]
