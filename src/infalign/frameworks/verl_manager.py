"""The shaped reward as verl's reward manager, which decodes responses itself.

    reward.reward_manager.source=importlib
    reward.reward_manager.name=ShapedRewardManager
    reward.reward_manager.module.path=pkg://infalign.frameworks.verl_manager
    reward.custom_reward_function.path=pkg://infalign.frameworks.verl
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.run=/runs/mine

verl's own manager `naive` works too. The reward gets the same columns from both: `data_source`, the
`ground_truth` of the sample's `reward_model`, and the entries of `extra_info`. This manager needs
none of them, and it names the prompt by its conversation if `extra_info` has no id.
"""

import asyncio

from infalign.models.reward_server import conversation_text
from infalign.text import decoded

from .verl import KEY, TEXT

__all__ = ["ShapedRewardManager"]


class ShapedRewardManager:
    """The interface of verl's reward managers, without their base class.

    - `compute_score`: `infalign.frameworks.verl.compute_score`, with its `reward_kwargs`.
    """

    def __init__(
        self,
        config,
        tokenizer,
        compute_score,
        reward_router_address=None,
        reward_model_tokenizer=None,
    ):
        self.config, self.tokenizer, self.compute_score = config, tokenizer, compute_score

    async def run_single(self, data) -> dict:
        """`reward_score` and `reward_extra_info` of one sample; for several turns, those of the
        last turn."""
        item = data[-1:][0]
        ids = item.batch["responses"]
        length = int(item.batch["attention_mask"][-ids.shape[-1] :].sum())
        (text,) = await asyncio.to_thread(decoded, self.tokenizer, [ids[:length].tolist()])
        info = dict(item.non_tensor_batch.get("extra_info") or {})
        known = item.non_tensor_batch.get("reward_model") or {}
        conversation = item.non_tensor_batch.get("raw_prompt")
        if KEY not in info and conversation is not None:
            info[TEXT] = conversation_text(list(conversation))
        scored = await self.compute_score(
            data_source=item.non_tensor_batch.get("data_source"),
            solution_str=text,
            ground_truth=known.get("ground_truth"),
            extra_info=info,
        )
        return {"reward_score": scored["score"], "reward_extra_info": dict(scored)}

    @classmethod
    def assemble_rm_scores(cls, data, scores: list[float]):
        """Scores at the last token of each response, shape (samples, tokens), zero elsewhere."""
        responses = data.batch["responses"]
        start = data.batch["prompts"].size(1)
        lengths = data.batch["attention_mask"][:, start:].sum(dim=1)
        placed = responses.new_zeros(responses.shape).float()
        for row, (length, score) in enumerate(zip(lengths.tolist(), scores, strict=True)):
            placed[row, length - 1] = score
        return placed
