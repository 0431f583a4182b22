"""Repeated attacks on a policy: attempts, success rates, their growth with n, and a figure.

`red_team` runs a `Campaign` of attacks, stores every attempt and writes the results.
"""

from .campaign import Campaign, inspect_campaign, missing_attempts, red_team

__all__ = ["Campaign", "inspect_campaign", "missing_attempts", "red_team"]
