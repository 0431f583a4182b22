"""The shaped reward as verl's reward function: no import of verl, one sample a call.

    reward.custom_reward_function.path=pkg://infalign.frameworks.verl
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.run=/runs/mine

verl awaits it for all samples of a batch in one event loop; they are scored together. Each sample's
`extra_info` names its prompt as `prompt_id`, as in the data that `infalign export-prompts` writes.
"""

import asyncio

from infalign.errors import DataError

from .microbatch import MicroBatcher
from .opened import Once, open_scorer
from .scorer import Asked, Scored
from .stopping import loudly

KEY, MESSAGES = "prompt_id", "messages"
"""In `extra_info`: the prompt's id; and its conversation, which only a scorer of pieces without
`prompts` needs."""


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

    - `source`: arguments of `open_scorer`: `run` or `server`, or the pieces.
    - `window`, `batch`: seconds and responses, as of `MicroBatcher`.

    Raises TrainingStopped for whatever goes wrong, an unknown prompt for one.
    """
    with loudly():
        wanted = {"window": window, "batch": batch, **source}
        score = _opened.made(**wanted) or await asyncio.to_thread(_opened, **wanted)
        asked = score.call.resolve(_asked(solution_str, extra_info))
        return dict(await score.ask(asked))


def _open(*, window: float, batch: int, **source) -> MicroBatcher:
    return MicroBatcher(open_scorer(**source), window=window, batch=batch)


_opened = Once(_open)


def _asked(response: str, extra_info: dict | None) -> Asked:
    known = extra_info or {}
    if KEY not in known:
        raise DataError(
            f"A sample has no `extra_info[{KEY!r}]`, which names its prompt; it has "
            f"{sorted(known)}. Train on what `infalign export-prompts RUN --for verl` writes."
        )
    messages = known.get(MESSAGES)
    return Asked(str(known[KEY]), response, None if messages is None else tuple(messages))
