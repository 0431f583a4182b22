"""Language models so small that every response can be listed with its exact probability."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import chisquare
from tokenizers import Tokenizer, decoders, models
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
)

END = "<end>"


def _config(family: str, size: int):
    shared = {"vocab_size": size, "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0}
    llama = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 32,
    }
    if family == "llama":
        return LlamaConfig(**shared, **llama)
    if family == "mistral":
        return MistralConfig(**shared, **llama, sliding_window=3)
    if family in ("gpt2", "gpt2-dropout"):
        still = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        own = still if family == "gpt2" else {}
        return GPT2Config(**shared, **own, n_embd=8, n_layer=2, n_head=2, n_positions=32)
    return MambaConfig(**shared, hidden_size=8, num_hidden_layers=2, state_size=4)


@dataclass(frozen=True)
class EnumerableModel:
    """A random causal language model over a few letters and an end token, saved in a folder.

    Prompts are words of the same letters. Each letter is one token, and the end token has no text,
    so two different responses have different texts.
    """

    path: Path
    """Folder of model and tokenizer, as `LanguageModel` loads it."""

    letters: str
    max_new_tokens: int

    @classmethod
    def make(
        cls,
        path: Path,
        *,
        seed: int,
        letters: str = "abc",
        max_new_tokens: int = 3,
        family: str = "llama",
        scale: float = 0.6,
        near: "EnumerableModel | None" = None,
    ) -> "EnumerableModel":
        """Write a new model to the folder `path`.

        - `family`: `llama`, `gpt2`, `gpt2-dropout`, which has the family's dropout, `mistral`,
          which sees three tokens, or `mamba`, whose cache is no list of keys and values.
        - `scale`: standard deviation of the weights; the larger, the more uneven the law.
        - `near`: a model of the same shape to whose weights the random ones are added instead, for
          a policy that is not far from its reference.
        """
        vocabulary = {END: 0} | {letter: i + 1 for i, letter in enumerate(letters)}
        tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
        tokenizer.decoder = decoders.Fuse()
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END).save_pretrained(path)
        model = AutoModelForCausalLM.from_config(_config(family, len(vocabulary)))
        start = model if near is None else near.model(torch.float32)
        generator = torch.Generator().manual_seed(seed)
        before = dict(start.named_parameters())
        with torch.no_grad():
            for name, weights in model.named_parameters():
                noise = scale * torch.randn(weights.shape, generator=generator)
                weights.copy_(noise if near is None else before[name] + noise)
        model.save_pretrained(path)
        return cls(path, letters, max_new_tokens)

    def model(self, dtype=torch.float64):
        """The bare model of transformers."""
        return AutoModelForCausalLM.from_pretrained(self.path, dtype=dtype).eval()

    def language_model(self, **options):
        """The `LanguageModel` of this folder, with this limit on the length of a response."""
        from infalign.models.hf import LanguageModel

        return LanguageModel(self.path, max_new_tokens=self.max_new_tokens, **options)

    def conversation(self, prompt: str) -> list[dict]:
        """The prompt as chat messages."""
        return [{"role": "user", "content": prompt}]

    def tokens(self, text: str) -> tuple[int, ...]:
        """Token ids of the response that has this text, with the end token if it was reached."""
        ids = tuple(self.letters.index(letter) + 1 for letter in text)
        return ids if len(ids) == self.max_new_tokens else (*ids, 0)

    def step_laws(self, prompt: str, temperature: float = 1.0, top_p: float = 1.0):
        """Law of the next token after each unfinished response: text to shape (vocabulary,)."""
        start = [self.letters.index(letter) + 1 for letter in prompt]
        model, laws, level = self.model(), {}, [""]
        for length in range(self.max_new_tokens):
            ids = [[*start, *self.tokens(text)[:length]] for text in level]
            with torch.no_grad():
                logits = model(torch.tensor(ids), use_cache=False).logits[:, -1].numpy()
            for text, row in zip(level, logits, strict=True):
                laws[text] = nucleus(softmax(row / temperature), top_p)
            level = [text + letter for text in level for letter in self.letters]
        return laws

    def law(self, prompt: str, temperature: float = 1.0, top_p: float = 1.0) -> dict[str, float]:
        """Probability of each response by its text; those that cannot occur have 0.

        By one forward pass in double precision for every beginning, without a cache and without
        any code of generation.
        """
        laws, reached, law = self.step_laws(prompt, temperature, top_p), {"": 1.0}, {}
        for text, step in laws.items():  # shorter ones come first
            law[text] = reached[text] * float(step[0])
            for letter, chance in zip(self.letters, step[1:], strict=True):
                reached[text + letter] = reached[text] * float(chance)
        return law | {t: p for t, p in reached.items() if len(t) == self.max_new_tokens}


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits, over the last axis."""
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def nucleus(law: np.ndarray, top_p: float) -> np.ndarray:
    """The fewest most probable tokens that have `top_p` together, renormalized; one dimension."""
    order = np.argsort(-law)
    before = np.concatenate([[0.0], np.cumsum(law[order])[:-1]])
    kept = np.where(before < top_p, law[order], 0.0)
    result = np.zeros_like(law)
    result[order] = kept / kept.sum()
    return result


def fits(counts, law) -> bool:
    """Whether so many of each are no surprise; what is expected less than five times is pooled."""
    n = sum(counts.values())
    often = [t for t, p in law.items() if p * n >= 5]
    seen, expected = [counts[t] for t in often], [law[t] * n for t in often]
    if n - sum(expected) >= 5:
        seen, expected = [*seen, n - sum(seen)], [*expected, n - sum(expected)]
    if len(seen) < 2:
        return n - sum(seen) < 20
    return chisquare(seen, np.array(expected) * sum(seen) / sum(expected)).pvalue > 1e-5
