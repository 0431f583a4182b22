"""One trained policy: warm start, on-policy steps, landing."""

import gc
from collections.abc import Callable, Sequence
from pathlib import Path

from infalign.config import Config
from infalign.prompts import Prompt

from .landing import land
from .loop import drop_checkpoints
from .objectives import Objective
from .rloo import on_policy
from .warm_start import StoredSamples, warm_start


def train_policy(
    config: Config,
    model_path: str,
    prompts: Sequence[Prompt],
    samples: StoredSamples,
    objective: Objective,
    target_kl: float,
    seed: int,
    out: Path,
    *,
    report: Callable[[str, int, int], None],
) -> None:
    """Train one policy into `out/model`; what an interrupted call finished is not done again.

    The last prompts, a share of `train.validation`, are not trained on: a policy moves further on
    prompts it has seen, and the KL that was asked for is that of prompts it has not.
    """
    kept = config.train.trained_prompts(len(prompts))
    landing = prompts[kept:] or prompts
    prompts, samples = prompts[:kept], samples.first(kept)
    start, trained = None, out / "rloo"
    if config.train.warm_start:
        start = out / "warm_start" / "model"
        if not (out / "warm_start" / "done.json").exists():
            warm_start(config, model_path, prompts, samples, objective, out / "warm_start", report)
    if not config.train.steps:
        trained = out / "warm_start"
    elif not (trained / "done.json").exists():
        on_policy(config, model_path, prompts, objective, target_kl, start, trained, report)
    # Here and not where training ends, so that a run killed in between leaves none behind.
    for part in ("warm_start", "rloo"):
        drop_checkpoints(out / part)
    # Trainers refer to themselves: each would stay in memory beside the next one.
    gc.collect()
    land(config, model_path, trained / "model", landing, target_kl, seed, out, report)
