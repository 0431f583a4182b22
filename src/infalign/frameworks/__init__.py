"""The shaped reward in the calling conventions of other frameworks, none of which is imported.

`opened.open_scorer` reads a run folder, a server or the pieces; `scorer` scores. `verl`,
`verl_manager` and `openrlhf` are what those frameworks load; `server` speaks HTTP. `export` writes
a run's prompts for them, `settings` what keeps the objective.
"""

from .opened import open_reward, open_run, open_scorer
from .scorer import Asked, Scored

__all__ = [
    "Asked",
    "Scored",
    "open_reward",
    "open_run",
    "open_scorer",
]
