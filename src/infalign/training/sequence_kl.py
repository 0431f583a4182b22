"""The log-ratio of sampled sequences as a reward function, for trainers whose KL is another one."""

import torch
from peft import PeftModel

from infalign.models.loading import prompt_text, tokenize
from infalign.models.logits import collate, response_logits

BATCH = 64
"""Sequences whose logits are kept at a time."""


class SequenceKL:
    """k1 = Σ_t log π/π_ref of each completion at the sampling temperature, in nats.

    Its mean over samples of π is KL(π ‖ π_ref). The policy is the one that `trainer` trains, which
    is set when training begins; the reference is `reference`, or the policy without its adapters.
    """

    def __init__(self, reference, tokenizer, temperature: float):
        self.reference, self.tokenizer, self.temperature = reference, tokenizer, temperature
        self.trainer = None
        self.__name__ = "sequence_kl"

    @torch.no_grad()
    def __call__(self, prompts, completions, *, completion_ids, **columns) -> list[float]:
        """One log-ratio per completion."""
        model = self.trainer.model
        texts = [p if isinstance(p, str) else prompt_text(self.tokenizer, p) for p in prompts]
        pairs = list(zip(tokenize(self.tokenizer, texts)["input_ids"], completion_ids, strict=True))
        found = []
        for start in range(0, len(pairs), BATCH):
            batch = [x.to(model.device) for x in self._collate(pairs[start : start + BATCH])]
            if isinstance(model, PeftModel):
                with model.disable_adapter():
                    theirs = self._logprob(model, *batch)
            else:
                theirs = self._logprob(self.reference.to(model.device), *batch)
            found += (self._logprob(model, *batch) - theirs).tolist()
        return found

    def _collate(self, pairs):
        return collate(*zip(*pairs, strict=True), self.tokenizer.pad_token_id)

    def _logprob(self, model, ids, mask, kept) -> torch.Tensor:
        length = kept.shape[1]
        logits = response_logits(model, ids, mask, length, self.temperature)
        chosen = logits.log_softmax(-1).gather(2, ids[:, -length:, None])[..., 0]
        return (chosen * kept).sum(1)
