"""The shaped reward in the calling conventions of other frameworks, without importing any.

`opened.open_scorer` opens a run folder, a server or the pieces; `scorer` has the scorers. `verl`,
`verl_manager` and `openrlhf` hold the functions that those frameworks load, and `serving` speaks
HTTP. `export` writes a run's prompts; `settings` prints the settings that keep the objective.
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
