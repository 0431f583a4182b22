"""Collection of reference samples with their rewards, on this machine or on Ray."""

from .answers import answer
from .cluster import OnRay
from .collect import collect
from .local import Local

__all__ = ["Local", "OnRay", "answer", "collect"]
