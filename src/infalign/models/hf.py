"""Policies and reward models of the transformers library: sampling, log-probabilities, scores."""

from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
)

from infalign.errors import DataError

from .interfaces import Response


def _load(loader, path, trust_remote_code: bool, what: str, **options):
    try:
        return loader.from_pretrained(path, trust_remote_code=trust_remote_code, **options)
    except (OSError, ValueError, KeyError) as error:
        kind = "folder" if Path(path).is_dir() else "folder, or hub id that could be reached"
        raise DataError(
            f"{what} {str(path)!r} is not a {kind} that transformers can load: "
            f"{str(error).splitlines()[0]}"
        ) from error


def device() -> str:
    """Where models go: the first accelerator, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _dtype():
    # Half precision is slower than single on most CPUs.
    return torch.bfloat16 if device() == "cuda" else torch.float32


@contextmanager
def seeded(seed: int):
    """Torch's randomness fixed inside the block and as it was after it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


class LanguageModel:
    """A causal language model that answers prompts by sampling."""

    def __init__(self, path, *, temperature=1.0, max_new_tokens=128, trust_remote_code=False):
        self.path, self.temperature, self.max_new_tokens = path, temperature, max_new_tokens
        what = "The model"
        self.tokenizer = load_tokenizer(path, trust_remote_code, what)
        self.model = _load(AutoModelForCausalLM, path, trust_remote_code, what, dtype=_dtype())
        self.model.to(device()).eval()

    def prompt_text(self, messages: Sequence[dict]) -> str:
        """The prompt as the model reads it: its chat template, or the plain text without one."""
        return prompt_text(self.tokenizer, messages)

    @torch.no_grad()
    def sample(
        self, conversations: Sequence[Sequence[dict]], n: int, *, seed: int, batch_size: int = 256
    ) -> list[list[Response]]:
        """`n` responses to each conversation; the same for the same seed and batch size."""
        per_batch = max(1, batch_size // n)
        answers: list[list[Response]] = []
        with seeded(seed):
            for start in range(0, len(conversations), per_batch):
                answers += self._batch(conversations[start : start + per_batch], n)
        return answers

    def _batch(self, conversations, n):
        texts = [self.prompt_text(c) for c in conversations]
        inputs = tokenize(
            self.tokenizer, texts, return_tensors="pt", padding=True, padding_side="left"
        ).to(device())
        ends = self.model.generation_config.eos_token_id
        output = self.model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            # The whole configuration is ours: a model's own top-k would change the reference.
            generation_config=GenerationConfig(
                do_sample=True,
                temperature=self.temperature,
                top_k=0,
                top_p=1.0,
                max_new_tokens=self.max_new_tokens,
                num_return_sequences=n,
                pad_token_id=self.tokenizer.pad_token_id,
                eos_token_id=self.tokenizer.eos_token_id if ends is None else ends,
                output_logits=True,
                return_dict_in_generate=True,
            ),
        )
        new = output.sequences[:, inputs["input_ids"].shape[1] :]
        logprobs = torch.stack(
            [
                (step.float() / self.temperature).log_softmax(-1).gather(1, new[:, t : t + 1])
                for t, step in enumerate(output.logits)
            ],
            dim=1,
        )[..., 0]
        ends = {ends} if isinstance(ends, int) else set(ends or [self.tokenizer.eos_token_id])
        responses = []
        for ids, scores in zip(new.tolist(), logprobs.tolist(), strict=True):
            stop = next((t + 1 for t, token in enumerate(ids) if token in ends), len(ids))
            text = self.tokenizer.decode(ids[:stop], skip_special_tokens=True).strip()
            responses.append(Response(text, tuple(ids[:stop]), float(sum(scores[:stop]))))
        return [responses[i : i + n] for i in range(0, len(responses), n)]


def load_tokenizer(path, trust_remote_code=False, what="The model"):
    """The tokenizer of `path`, with a padding token."""
    tokenizer = _load(AutoTokenizer, path, trust_remote_code, what)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def prompt_text(tokenizer, messages: Sequence[dict]) -> str:
    """A conversation as text that ends where the response begins.

    Raises DataError for more than one message where no chat template says how to join them.
    """
    if tokenizer.chat_template is None:
        return _single_message(messages, "The model")
    return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)


def tokenize(tokenizer, texts: Sequence[str], **options):
    """Texts of `prompt_text` as token ids.

    A chat template has written its special tokens already; plain text gets the tokenizer's, which
    is what TRL does while training.
    """
    return tokenizer(list(texts), add_special_tokens=tokenizer.chat_template is None, **options)


def _single_message(messages: Sequence[dict], who: str) -> str:
    if len(messages) > 1:
        raise DataError(
            f"{who} has no chat template to read a conversation with; the prompt that begins "
            f"{messages[0]['content'][:60]!r} has {len(messages)} messages. Use prompts of one "
            "message, or give its tokenizer a chat template."
        )
    return messages[0]["content"]


def collate(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], pad: int):
    """Prompts and responses as one batch, both ragged sides padded outwards.

    Returns input ids and attention mask of shape (batch, P + R), and the response mask of shape
    (batch, R).
    """
    left, right = max(map(len, prompts)), max(map(len, responses))
    ids, mask, kept = [], [], []
    for prompt, response in zip(prompts, responses, strict=True):
        before, after = left - len(prompt), right - len(response)
        ids.append([pad] * before + list(prompt) + list(response) + [pad] * after)
        mask.append([0] * before + [1] * (len(prompt) + len(response)) + [0] * after)
        kept.append([1] * len(response) + [0] * after)
    return torch.tensor(ids), torch.tensor(mask), torch.tensor(kept)


def response_logits(model, ids, mask, length: int, temperature: float) -> torch.Tensor:
    """Logits that predict the last `length` tokens, at the sampling temperature."""
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    output = model(
        input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=length + 1
    )
    return output.logits[:, :-1].float() / temperature


@torch.no_grad()
def sequence_kl(
    policy: LanguageModel,
    reference: LanguageModel,
    conversations: Sequence[Sequence[dict]],
    responses: Sequence[Sequence[Response]],
    *,
    batch_size: int = 128,
) -> np.ndarray:
    """Rao-Blackwellised sequence KL(policy ‖ reference) per response, in nats.

    Σ_t KL(π(·|x, y_<t) ‖ π_ref(·|x, y_<t)) along responses of the policy: the exact per-token KL
    instead of the sampled log-ratio, with the same mean and a smaller variance.

    Returns shape (prompts, responses).
    """
    tokenizer = policy.tokenizer
    prompts = tokenize(tokenizer, map(policy.prompt_text, conversations))["input_ids"]
    flat = [(ids, r.tokens) for ids, row in zip(prompts, responses, strict=True) for r in row]
    order = sorted(range(len(flat)), key=lambda i: len(flat[i][0]))
    kl = np.empty(len(flat))
    for start in range(0, len(flat), batch_size):
        index = order[start : start + batch_size]
        ids, mask, kept = collate(
            [flat[i][0] for i in index], [flat[i][1] for i in index], tokenizer.pad_token_id
        )
        ids, mask, kept = (x.to(device()) for x in (ids, mask, kept))
        length, t = kept.shape[1], policy.temperature
        p = response_logits(policy.model, ids, mask, length, t).log_softmax(-1)
        q = response_logits(reference.model, ids, mask, length, t).log_softmax(-1)
        kl[index] = ((p.exp() * (p - q)).sum(-1) * kept).sum(-1).cpu().numpy()
    return kl.reshape(len(conversations), -1)


class ClassifierReward:
    """The scalar output of a sequence classifier, as a TRL reward function.

    Reads the conversation and the response in the classifier's own chat template; without one, a
    prompt of one message and the response as two lines.
    """

    def __init__(self, path, *, batch_size=256, max_length=None, trust_remote_code=False):
        what = "The reward"
        self.tokenizer = load_tokenizer(path, trust_remote_code, what)
        self.model = _load(
            AutoModelForSequenceClassification,
            path,
            trust_remote_code,
            what,
            num_labels=1,
            dtype=_dtype(),
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
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        reply = completion if isinstance(completion, str) else completion[-1]["content"]
        if self.tokenizer.chat_template is None:
            return f"{_single_message(messages, 'The reward model')}\n{reply}"
        conversation = [*messages, {"role": "assistant", "content": reply}]
        return self.tokenizer.apply_chat_template(conversation, tokenize=False)
