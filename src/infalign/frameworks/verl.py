"""The shaped reward as verl's reward function: no import of verl, one sample per call.

    reward.custom_reward_function.path=pkg://infalign.frameworks.verl
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.run=/runs/mine

verl awaits the function for all samples of a batch in one event loop, so they are scored together.
The `prompt_id` in a sample's `extra_info` names its prompt, as in the data that `infalign
export-prompts` writes.
"""

import asyncio
from typing import Any

from infalign.errors import DataError
from infalign.shaping.signature import PASSED

from .callback import Once, stops_training
from .microbatch import MicroBatcher
from .opened import open_scorer
from .scorer import Asked, Scored, Scorer

__all__ = [
    "compute_score",
]

KEY, MESSAGES, TEXT = "prompt_id", "messages", "prompt_text"
"""Keys of `extra_info`: the prompt's id, its conversation, and its text if there is no id. The
conversation is needed only by a scorer that was made from parts without `prompts`."""


async def compute_score(
    data_source,
    solution_str: str,
    ground_truth,
    extra_info: dict | None = None,
    *,
    window: float = 0.005,
    batch: int = 256,
    reward_router_address=None,
    reward_model_tokenizer=None,
    **source,
) -> Scored:
    """`score`, `raw_reward` and `quantile` of one response.

    The reward gets `data_source`, `ground_truth` and the entries of `extra_info` as columns, and
    those of the run's prompts, which take precedence.

    - `source`: arguments of `open_scorer`: `run`, `server`, or the parts.
    - `window`, `batch`: seconds and responses, as in `MicroBatcher`.

    Raises TrainingStopped for every error, such as an unknown prompt.
    """
    with stops_training():
        arguments = {"window": window, "batch": batch, **source}
        opened = _opened.made(**arguments)
        if opened is None:
            opened = await asyncio.to_thread(_opened, **arguments)
        scorer, batcher = opened
        more = {"data_source": data_source, "ground_truth": ground_truth}
        scored = await batcher.ask(scorer.resolve(_asked(solution_str, extra_info, more)))
        return scored.copy()


def _open(*, window: float, batch: int, **source) -> tuple[Scorer, MicroBatcher[Asked, Scored]]:
    scorer = open_scorer(**source)
    return scorer, MicroBatcher(scorer, window=window, batch=batch)


_opened = Once(_open)


def _asked(response: str, extra_info: dict | None, more: dict[str, Any]) -> Asked:
    info = extra_info or {}
    columns = {k: v for k, v in {**more, **info}.items() if k not in (*PASSED, MESSAGES, TEXT)}
    if KEY not in info and TEXT in info:
        return Asked(info[TEXT], response, by_text=True, columns=columns)
    if KEY not in info:
        raise DataError(
            f"A sample has no `extra_info[{KEY!r}]`, which names its prompt; it has "
            f"{sorted(info)}. Train on the data that `infalign export-prompts RUN --for verl` "
            "writes."
        )
    messages = info.get(MESSAGES)
    messages = None if messages is None else tuple(messages)
    return Asked(str(info[KEY]), response, messages, columns=columns)
