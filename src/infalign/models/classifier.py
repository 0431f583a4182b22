"""Sequence classifiers of the transformers library as rewards."""

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from infalign.errors import DataError
from infalign.text import conversation_of, text_of

from .loading import (
    device,
    dtype,
    judged_text,
    load_model,
    load_tokenizer,
    tokenize,
)


class ClassifierReward:
    """The scalar output of a sequence classifier, as a TRL reward function.

    The conversation and the response are put into the classifier's chat template. Without a
    template, a one-message prompt and the response are two lines.
    """

    def __init__(self, path, *, batch_size=256, max_length=None, trust_remote_code=False):
        what = "The reward"
        self.tokenizer = load_tokenizer(path, trust_remote_code, what)
        self.model = load_model(
            AutoModelForSequenceClassification, path, trust_remote_code, what, dtype=dtype()
        )
        self.model.config.pad_token_id = self.tokenizer.pad_token_id
        self.model.to(device()).eval()
        self.batch_size = batch_size
        longest = getattr(self.model.config, "max_position_embeddings", None)
        self.max_length = max_length or longest
        self.__name__ = "reward_model"

    @torch.no_grad()
    def __call__(self, prompts, completions, **columns) -> list[float]:
        """One raw reward per completion."""
        texts = [self._text(p, c) for p, c in zip(prompts, completions, strict=True)]
        lengths = [len(ids) for ids in tokenize(self.tokenizer, texts)["input_ids"]]
        if self.max_length and max(lengths, default=0) > self.max_length:
            longest = int(np.argmax(lengths))
            raise DataError(
                f"The reward model reads at most {self.max_length} tokens; completion {longest} "
                f"with its prompt has {lengths[longest]}. Use shorter prompts or responses."
            )
        rewards = np.empty(len(texts))
        order = np.argsort(lengths)
        for start in range(0, len(texts), self.batch_size):
            index = order[start : start + self.batch_size]
            inputs = tokenize(
                self.tokenizer,
                [texts[i] for i in index],
                return_tensors="pt",
                padding=True,
                padding_side="right",
            ).to(device())
            logits = self.model(inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
            rewards[index] = logits[:, 0].float().cpu().numpy()
        return rewards.tolist()

    def _text(self, prompt, completion) -> str:
        messages, reply = conversation_of(prompt), text_of(completion)
        return judged_text(self.tokenizer, messages, reply, "The reward")
