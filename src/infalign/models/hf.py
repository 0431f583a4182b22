"""Policies of the transformers library: sampling, and the log-probability of what is sampled."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
)

from infalign import _check
from infalign.errors import DataError
from infalign.seeds import prompt_keys, uniforms

from .interfaces import Conversation, Response
from .loading import device, dtype, load, load_tokenizer, prompt_text, tokenize
from .logits import check_top_p, collate, sampling_law
from .shared_prompts import prompt_cache, repeats


class LanguageModel:
    """A causal language model that answers prompts by sampling."""

    def __init__(
        self,
        path,
        *,
        temperature=1.0,
        top_p=1.0,
        max_new_tokens=128,
        batch_size=256,
        trust_remote_code=False,
    ):
        """Load the model that is in the folder, or has the hub id, `path`.

        - `temperature`: the logits are divided by it; > 0.
        - `top_p`: only the fewest most probable tokens that have this much probability together
          are sampled, in (0, 1].
        - `max_new_tokens`: longest response, its end token included.
        - `batch_size`: responses generated at once.

        Raises ValueError for other values, and DataError when there is no such model.
        """
        self._settle(temperature, top_p, max_new_tokens, batch_size)
        self.path, what = path, "The model"
        self.tokenizer = load_tokenizer(path, trust_remote_code, what)
        self.model = load(AutoModelForCausalLM, path, trust_remote_code, what, dtype=dtype())
        self.model.to(device()).eval()

    @classmethod
    def of(
        cls, model, tokenizer, *, temperature=1.0, top_p=1.0, max_new_tokens=128, batch_size=256
    ):
        """A model and a tokenizer that are in memory, such as a trainer's; arguments as above.

        Both stay as they are: the model should be in evaluation mode while it samples.
        Raises DataError for a tokenizer without a padding token.
        """
        if tokenizer.pad_token_id is None:
            raise DataError(
                "The tokenizer has no padding token, which batches need. Set one: "
                "tokenizer.pad_token = tokenizer.eos_token"
            )
        self = cls.__new__(cls)
        self._settle(temperature, top_p, max_new_tokens, batch_size)
        self.path, self.model, self.tokenizer = model.config.name_or_path, model, tokenizer
        return self

    def _settle(self, temperature, top_p, max_new_tokens, batch_size):
        self.temperature = _check.positive("temperature", temperature)
        self.top_p = check_top_p("top_p", top_p)
        self.max_new_tokens = _check.count("max_new_tokens", max_new_tokens)
        self.batch_size = _check.count("batch_size", batch_size)

    def prompt_text(self, messages: Conversation) -> str:
        """The prompt as the model reads it: its chat template, or the plain text without one."""
        return prompt_text(self.tokenizer, messages)

    @torch.no_grad()
    def sample(
        self,
        conversations: Sequence[Conversation],
        n: int,
        *,
        seed: int,
        keys: Sequence[str] | None = None,
        batch_size: int | None = None,
    ) -> list[list[Response]]:
        """`n` independent responses to each conversation, in the order given.

        Response k to a prompt has random numbers that follow from the seed, the prompt's key and k
        alone: it does not depend on what else is drawn, but for rounding. Batches of another shape
        round logits differently, and a token whose random number falls that close to the edge of
        its interval becomes its neighbor.

        Prompts of similar length are batched, and where the model's cache can be repeated a prompt
        is read once for all of its `n` responses.

        - `keys`: one name for each conversation, all different; "0", "1", … unless given.
        - `batch_size`: responses generated at once, where not as the model was told.

        `Response.logprob` is that under the temperature and `top_p` that are sampled with.
        """
        n = _check.count("n", n)
        batch_size = self.batch_size if batch_size is None else batch_size
        batch_size = _check.count("batch_size", batch_size)
        keys = prompt_keys(keys, conversations)
        if not conversations:
            return []
        texts = [self.prompt_text(c) for c in conversations]
        prompts = tokenize(self.tokenizer, texts)["input_ids"]
        # The longest first: should memory not suffice, it shows at once.
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        answers: list[list[Response]] = [[] for _ in prompts]
        for part, first, copies in _batches(order, n, batch_size):
            numbers = [uniforms(seed, keys[i], first, copies, self.max_new_tokens) for i in part]
            drawn = self._draw([prompts[i] for i in part], copies, np.concatenate(numbers))
            for row, i in enumerate(part):
                answers[i] += drawn[row * copies : (row + 1) * copies]
        return answers

    def _draw(self, prompts, copies: int, numbers: np.ndarray) -> list[Response]:
        """`copies` responses to each prompt, one prompt after the other.

        - `numbers`: uniform ones, shape (responses, `max_new_tokens`).
        """
        ids, mask, _ = collate(prompts, [()] * len(prompts), self.tokenizer.pad_token_id)
        ids, mask = ids.to(device()), mask.to(device())
        ends = self.model.generation_config.eos_token_id
        ends = self.tokenizer.eos_token_id if ends is None else ends
        draw = Draw(torch.from_numpy(numbers).to(ids.device))
        cache = None
        if copies > 1 and ids.shape[1] > 1 and self._repeats:
            cache = prompt_cache(self.model, ids, mask)
            cache.batch_repeat_interleave(copies)
        output = self._generate(
            ids.repeat_interleave(copies, 0),
            mask.repeat_interleave(copies, 0),
            LogitsProcessorList([*sampling_law(self.temperature, self.top_p), draw]),
            GenerationConfig(
                do_sample=False,  # `draw` does
                max_new_tokens=self.max_new_tokens,
                pad_token_id=self.tokenizer.pad_token_id,
                eos_token_id=ends,
            ),
            cache,
        )
        new = output[:, ids.shape[1] :]
        end = torch.isin(new, torch.tensor(ends, device=new.device)).int()
        inside = end.cumsum(1) - end == 0  # nothing but padding follows an end token
        lengths = inside.sum(1).tolist()
        tokens = [ids[:length] for ids, length in zip(new.tolist(), lengths, strict=True)]
        decoded = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [
            Response(text.strip(), tuple(ids), total)
            for text, ids, total in zip(decoded, tokens, draw.totals(inside), strict=True)
        ]

    def _generate(self, ids, mask, steps, config, cache) -> torch.Tensor:
        shared = {} if cache is None else {"past_key_values": cache}
        # With adapters around it, the model inside is given the configuration too.
        inner = getattr(self.model, "get_base_model", lambda: self.model)()
        own = inner.generation_config
        # `generate` takes what a configuration leaves open from the model's own one: a repetition
        # penalty or suppressed tokens there would change the policy and not its log-probabilities.
        self.model.generation_config = config
        try:
            return self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                logits_processor=steps,
                generation_config=config,
                **shared,
            )
        finally:
            self.model.generation_config = inner.generation_config = own

    @cached_property
    def _repeats(self) -> bool:
        return repeats(self.model)


def _batches(
    order: Sequence[int], n: int, batch_size: int
) -> Iterator[tuple[Sequence[int], int, int]]:
    """Prompts, number of the first response to each, and how many responses to each, of one
    generation of `batch_size` after the other.

    More responses to one prompt than fit are drawn in several.
    """
    at_once = max(1, batch_size // n)
    for start in range(0, len(order), at_once):
        for done in range(0, n, batch_size):
            yield order[start : start + at_once], done, min(batch_size, n - done)


class Draw(LogitsProcessor):
    """Draws the next tokens itself, leaves `generate` no choice, and notes their log-probabilities.

    The last of the processors, for greedy decoding; `numbers` are uniform ones, shape (responses,
    tokens). By inversion of the distribution function one
    random number a token is enough, where `torch.multinomial` takes one for each entry of the
    vocabulary: a quarter of the time on one core. And the probability is known at once, so that no
    logits are kept: those of 256 responses of 1,024 tokens of 150,000 kinds have 157 GB.
    """

    def __init__(self, numbers: torch.Tensor):
        self.numbers = numbers
        self.noted: list[torch.Tensor] = []

    def __call__(self, input_ids, scores):
        chances = scores.softmax(-1)
        # In double precision: in single, tokens of less than 1e-7 would fall between two sums.
        cdf = chances.cumsum(-1, dtype=torch.float64)
        step = len(self.noted)
        at = cdf[:, -1:] * self.numbers[:, step : step + 1]
        token = torch.searchsorted(cdf, at, right=True)
        self.noted.append(chances.gather(1, token)[:, 0].log())
        return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)

    def totals(self, inside: torch.Tensor) -> list[float]:
        """Σ log-probability of each row over its steps that are `inside`, shape (rows, steps)."""
        noted = torch.stack(self.noted, 1)[:, : inside.shape[1]].double()
        return torch.where(inside, noted, 0.0).sum(1).tolist()
