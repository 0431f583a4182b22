"""Policies of the transformers library: sampling, with the log-probability of each response."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
)

from infalign import _check, _progress
from infalign.errors import DataError
from infalign.seeds import prompt_keys, uniforms
from infalign.text import decoded

from .interfaces import Conversation, Response
from .limits import prompt_ids
from .loading import device, load_model, load_tokenizer, prompt_text
from .logits import check_top_p, collate, sampling_law
from .padding import require_hidden_padding
from .precision import Dtype, precision_of
from .shared_prompts import prompt_cache, repeats
from .tokens import Tokens

__all__ = ["Draw", "LanguageModel", "generation_settings"]


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
        strip=False,
        dtype: Dtype = "auto",
        trust_remote_code=False,
    ):
        """Load the model at `path`, a folder or hub id.

        - `temperature`: divisor of the logits; > 0.
        - `top_p`: nucleus-sampling threshold, in (0, 1]; 1 samples from all tokens.
        - `max_new_tokens`: maximum length of a response in tokens, including the end token.
        - `batch_size`: responses generated at once.
        - `strip`: remove white space at both ends of the responses' texts.
        - `dtype`: precision, as `precision_of` reads it.

        Raises ValueError for other values, and DataError if the model does not exist, or if padding
        changes what it says: `require_hidden_padding` reads three short texts.
        """
        self._settle(temperature, top_p, max_new_tokens, batch_size, strip)
        self.path, what = path, "The model"
        self.tokenizer = load_tokenizer(path, trust_remote_code, what)
        precision = precision_of(dtype, path, trust_remote_code=trust_remote_code)
        self.model = load_model(
            AutoModelForCausalLM, path, trust_remote_code, what, dtype=getattr(torch, precision)
        )
        self.model.to(device()).eval()
        self._require_hidden_padding()

    @classmethod
    def of(
        cls,
        model,
        tokenizer,
        *,
        temperature=1.0,
        top_p=1.0,
        max_new_tokens=128,
        batch_size=256,
        strip=False,
    ):
        """A policy from a model and a tokenizer in memory, such as a trainer's; arguments as above.

        Neither of them is changed; the model should be in evaluation mode while sampling. Raises
        DataError for a tokenizer without a padding token, and for a model that reads padding.
        """
        if tokenizer.pad_token_id is None:
            raise DataError(
                "The tokenizer has no padding token, which batches need. Set one: "
                "tokenizer.pad_token = tokenizer.eos_token"
            )
        self = cls.__new__(cls)
        self._settle(temperature, top_p, max_new_tokens, batch_size, strip)
        self.path, self.model, self.tokenizer = model.config.name_or_path, model, tokenizer
        self._require_hidden_padding()
        return self

    def _require_hidden_padding(self) -> None:
        who = f"The model {str(self.path)!r}"
        require_hidden_padding(self.model, self.tokenizer.pad_token_id, who)

    def _settle(self, temperature, top_p, max_new_tokens, batch_size, strip):
        self.temperature = _check.positive("temperature", temperature)
        self.top_p = check_top_p("top_p", top_p)
        self.max_new_tokens = _check.count("max_new_tokens", max_new_tokens)
        self.batch_size = _check.count("batch_size", batch_size)
        self.strip = _check.truth("strip", strip)

    @property
    def ends(self) -> list[int]:
        """The tokens that end a response: the model's and the tokenizer's, as in TRL's trainers and
        in vLLM."""
        own = self.model.generation_config.eos_token_id
        own = [] if own is None else own if isinstance(own, list) else [own]
        return sorted({*own, self.tokenizer.eos_token_id} - {None})

    def prompt_text(self, messages: Conversation) -> str:
        """The prompt as the model reads it: in its chat template, or as plain text without one."""
        return prompt_text(self.tokenizer, messages)

    def prompt_ids(
        self, conversations: Sequence[Conversation], keys: Sequence[str], new: int
    ) -> list[list[int]]:
        """Prompts as token ids.

        - `keys`: the prompts' names in errors.
        - `new`: number of tokens that a response may have.

        Raises DataError for prompts that the chat template refuses, and for prompts that leave no
        room for `new` tokens in the model's positions.
        """
        who = f"The model {str(self.path)!r}"
        return prompt_ids(self.model, self.tokenizer, conversations, keys, new, who)

    def tokens(self, what: str = "The model") -> Tokens:
        """The tokens that the model writes.

        - `what`: the model's noun in errors.
        """
        return Tokens.of(self.tokenizer, self.model.config, f"{what} {str(self.path)!r}")

    @torch.no_grad()
    def sample(
        self,
        conversations: Sequence[Conversation],
        n: int,
        *,
        seed: int,
        keys: Sequence[str] | None = None,
        first: int = 0,
        batch_size: int | None = None,
    ) -> list[list[Response]]:
        """`n` independent responses to each conversation, in the order given.

        The random numbers of response k to a prompt depend only on the seed, the prompt's key and
        k, so the response does not depend on the others, up to rounding. Batches of another shape
        round logits differently, and a random number at the edge of a token's interval can then
        select the neighboring token.

        Prompts of similar length are batched, and a prompt is read once for all of its `n`
        responses where the model's cache can be repeated.

        - `keys`: one name for each conversation, all different. Default: "0", "1", …
        - `first`: number of the first response to each, after those that were drawn before.
        - `batch_size`: responses generated at once. Default: the model's own `batch_size`.

        `Response.logprob` is the log-probability under `temperature` and `top_p`.
        """
        n, first = _check.count("n", n), _check.count("first", first, at_least=0)
        batch_size = self.batch_size if batch_size is None else batch_size
        batch_size = _check.count("batch_size", batch_size)
        keys = prompt_keys(keys, conversations)
        if not conversations:
            return []
        prompts = self.prompt_ids(conversations, keys, self.max_new_tokens)
        # Longest first, so that a lack of memory shows up at once.
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        answers: list[list[Response]] = [[] for _ in prompts]
        responses, done = n * len(prompts), 0
        for part, drawn_before, copies in _batches(order, n, batch_size):
            own, at = len(part) * copies, first + drawn_before
            numbers = [uniforms(seed, keys[i], at, copies, self.max_new_tokens) for i in part]
            with _progress.share(done / responses, (done + own) / responses):
                drawn = self._draw([prompts[i] for i in part], copies, np.concatenate(numbers))
            done += own
            for row, i in enumerate(part):
                answers[i] += drawn[row * copies : (row + 1) * copies]
        return answers

    def _draw(self, prompts, copies: int, numbers: np.ndarray) -> list[Response]:
        """`copies` responses to each prompt, one prompt after the other.

        - `numbers`: uniform random numbers, shape (responses, `max_new_tokens`).
        """
        ids, mask, _ = collate(prompts, [()] * len(prompts), self.tokenizer.pad_token_id)
        ids, mask = ids.to(device()), mask.to(device())
        draw = Draw(torch.from_numpy(numbers).to(ids.device), f"The model {str(self.path)!r}")
        cache = None
        if copies > 1 and ids.shape[1] > 1 and self.repeats:
            cache = prompt_cache(self.model, ids, mask)
            cache.batch_repeat_interleave(copies)
        output = self._generate(
            ids.repeat_interleave(copies, 0),
            mask.repeat_interleave(copies, 0),
            LogitsProcessorList([*sampling_law(self.temperature, self.top_p), draw]),
            GenerationConfig(
                do_sample=False,  # `draw` samples
                max_new_tokens=self.max_new_tokens,
                pad_token_id=self.tokenizer.pad_token_id,
                eos_token_id=self.ends or None,
            ),
            cache,
        )
        new = output[:, ids.shape[1] :]
        ends = torch.tensor(self.ends, dtype=new.dtype, device=new.device)
        end = torch.isin(new, ends).int()
        inside = end.cumsum(1) - end == 0  # only padding follows an end token
        lengths = inside.sum(1).tolist()
        tokens = [ids[:length] for ids, length in zip(new.tolist(), lengths, strict=True)]
        texts = decoded(self.tokenizer, tokens, strip=self.strip)
        return [
            Response(text, tuple(ids), total)
            for text, ids, total in zip(texts, tokens, draw.totals(inside), strict=True)
        ]

    def _generate(self, ids, mask, steps, config, cache) -> torch.Tensor:
        shared = {} if cache is None else {"past_key_values": cache}
        with generation_settings(self.model, config):
            return self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                logits_processor=steps,
                generation_config=config,
                **shared,
            )

    @cached_property
    def repeats(self) -> bool:
        """Whether a prompt can be read once for all of its responses."""
        return repeats(self.model)


@contextmanager
def generation_settings(model: torch.nn.Module, config: GenerationConfig) -> Iterator[None]:
    """Inside, `config` is the model's own generation configuration; afterward, it is as before.

    `generate` fills the options that its caller leaves unset from the model's own configuration: a
    repetition penalty or suppressed tokens there would change the policy but not its
    log-probabilities.
    """
    # Wrappers and adapters may hold a configuration besides the model inside them.
    own = {m: m.generation_config for m in model.modules() if "generation_config" in vars(m)}
    for part in own:
        part.generation_config = config  # type: ignore[assignment]
    try:
        yield
    finally:
        for part, before in own.items():
            part.generation_config = before


def _batches(
    order: Sequence[int], n: int, batch_size: int
) -> Iterator[tuple[Sequence[int], int, int]]:
    """The generation batches: the prompts, the number of the first response to each, and the number
    of responses.

    If `n` exceeds `batch_size`, the responses to a prompt are drawn in several batches.
    """
    at_once = max(1, batch_size // n)
    for start in range(0, len(order), at_once):
        for done in range(0, n, batch_size):
            yield order[start : start + at_once], done, min(batch_size, n - done)


class Draw(LogitsProcessor):
    """Draws the next tokens, masks all others, and records the log-probabilities of the drawn ones.

    It is the last logits processor, and `generate` decodes greedily after it. Inverting the CDF
    takes one random number per token; `torch.multinomial` takes one for each entry of the
    vocabulary, and four times as long on one core. Log-probabilities are recorded while sampling,
    so no logits are stored: for 256 responses of 1,024 tokens and a vocabulary of 150,000 they
    would need 157 GB.

    - `numbers`: uniform random numbers, shape (responses, tokens).
    - `who`: the model's name in errors.
    """

    def __init__(self, numbers: torch.Tensor, who: str):
        self.numbers, self.who = numbers, who
        self.logprobs: list[torch.Tensor] = []

    def __call__(self, input_ids, scores):
        chances = scores.softmax(-1)
        # In double precision; in single precision, tokens with a probability below 1e-7 would get
        # no interval.
        cdf = chances.cumsum(-1, dtype=torch.float64)
        if not cdf[:, -1].isfinite().all():
            raise DataError(
                f"{self.who} gives tokens probabilities that are nan. Its weights are damaged, or "
                "overflow in this precision: train or save it again."
            )
        step = len(self.logprobs)
        _progress.advance(step / self.numbers.shape[1])
        at = cdf[:, -1:] * self.numbers[:, step : step + 1]
        token = torch.searchsorted(cdf, at, right=True)
        self.logprobs.append(chances.gather(1, token)[:, 0].log())
        return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)

    def totals(self, inside: torch.Tensor) -> list[float]:
        """Sum of each row's log-probabilities over the steps `inside`, shape (rows, steps)."""
        logprobs = torch.stack(self.logprobs, 1)[:, : inside.shape[1]].double()
        return torch.where(inside, logprobs, 0.0).sum(1).tolist()
