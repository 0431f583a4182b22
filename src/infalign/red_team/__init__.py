"""Repeated attacks on a policy: attempts, success rates, their growth with n, and a figure.

`red_team` runs a `Campaign` of attacks, stores every attempt and writes the results.
"""

from .campaign import Campaign, red_team

__all__ = ["Campaign", "red_team"]
