"""Sequence classifiers of the transformers library as rewards."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from infalign import _progress
from infalign.errors import DataError, InfalignError
from infalign.text import conversation_of, text_of

from .checkpoints import first_line
from .interfaces import ANSWER, QUESTION
from .limits import positions_of, require_known
from .loading import (
    device,
    judged_text,
    load_model,
    load_tokenizer,
    tokenize,
)
from .precision import Dtype, precision_of
from .shared_prompts import depends_on_length, repeats, shared_inputs

__all__ = ["ClassifierReward"]

LONGER = " That is so because two and two more are as many as one, one, one and one."
"""Makes the second text of the probe longer than the first."""


@dataclass(frozen=True)
class _Group:
    """Texts that begin with the same tokens."""

    index: np.ndarray
    """Their numbers."""

    prefix: Sequence[int]
    longest: int
    """Number of tokens of the longest text after the prefix."""


class ClassifierReward:
    """The scalar output of a sequence classifier, as a TRL reward function.

    The conversation and the response are put into the classifier's chat template. Without a
    template, a one-message prompt and the response are two lines.

    The score of a text is the model's own for the text alone, without padding. Texts are scored in
    batches nevertheless: a padding token that the model's configuration names is used as it is;
    without one, a token that occurs in none of the texts of a batch, so that no end of a text is
    taken for padding. When the model is loaded, two texts are scored alone and together. If these
    scores differ by more than rounding, texts are only batched with others of the same length.

    Responses to one prompt that stand beside each other share the tokens of the prompt: a causal
    model reads these once. Whether that gives the same scores is tried in the same way.

    Raises DataError if the model is not a sequence classifier with one output, if its score of a
    text is not reproducible, or if the score depends on other texts of the same length.
    """

    def __init__(
        self,
        path,
        *,
        batch_size=256,
        max_length=None,
        dtype: Dtype = "auto",
        trust_remote_code=False,
    ):
        what = "The reward"
        precision = precision_of(dtype, path, trust_remote_code=trust_remote_code, what=what)
        self.path, self.batch_size, self.__name__ = str(path), batch_size, "reward_model"
        self.tokenizer = load_tokenizer(path, trust_remote_code, what)
        self.model = load_model(
            AutoModelForSequenceClassification,
            path,
            trust_remote_code,
            what,
            dtype=getattr(torch, precision),
        )
        self.model.to(device()).eval()
        _score_exactly(self.model)
        self.max_length = max_length or positions_of(self.model, self.tokenizer)
        self.pads, self.shares = True, False
        try:
            self._probe()
            self.shares = self.pads and self._can_share()
        except (InfalignError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # models with code of their own can fail in any way
            raise DataError(
                f"The reward {self.path!r} cannot score a text in {self.model.dtype}: "
                f"{first_line(error)}."
            ) from error

    def __call__(self, prompts, completions, **columns) -> list[float]:
        """One raw reward per completion."""
        texts = [self._text(p, c) for p, c in zip(prompts, completions, strict=True)]
        rows = tokenize(self.tokenizer, texts)["input_ids"] if texts else []
        require_known(self.model, self.tokenizer, rows, f"The reward {self.path!r}")
        lengths = [len(ids) for ids in rows]
        if self.max_length and max(lengths, default=0) > self.max_length:
            longest = int(np.argmax(lengths))
            raise DataError(
                f"The reward {self.path!r} reads at most {self.max_length} tokens; completion "
                f"{longest} with its prompt has {lengths[longest]}. Use shorter prompts or "
                "responses."
            )
        rewards = np.empty(len(rows))
        groups = list(self._groups(prompts, rows)) if self.shares else []
        alone = np.ones(len(rows), bool)
        for group in groups:
            alone[group.index] = False
        done = 0
        for part in self._packed(groups):
            _progress.advance(done / len(rows))
            index = np.concatenate([group.index for group in part])
            done += len(index)
            rewards[index] = self._shared_scores(part, rows)
        (rest,) = alone.nonzero()
        for places in self._batches([lengths[i] for i in rest]):
            _progress.advance(done / len(rows))
            index = rest[places]
            done += len(index)
            rewards[index] = self._scores([rows[i] for i in index])
        return rewards.tolist()

    def _groups(self, prompts, rows: Sequence[Sequence[int]]) -> Iterator[_Group]:
        """Neighboring texts with the same prompt, where reading its tokens once saves more than
        the padding of the others costs."""
        pad = self._own_padding()
        for _, run in groupby(range(len(rows)), key=lambda i: prompts[i]):
            index = np.array(list(run))
            for part in np.split(index, range(self.batch_size, len(index), self.batch_size)):
                texts = [rows[i] for i in part]
                prefix = list(_common(texts))[: min(map(len, texts)) - 1]
                while prefix and prefix[-1] == pad:  # the score could be that of an earlier token
                    prefix.pop()
                longest = max(map(len, texts)) - len(prefix)
                shared = len(prefix) + len(texts) * longest
                if len(prefix) > 1 and shared < sum(map(len, texts)):
                    yield _Group(part, prefix, longest)

    def _packed(self, groups: Sequence[_Group]) -> Iterator[list[_Group]]:
        """Batches of groups of similar lengths."""
        batch: list[_Group] = []
        for group in sorted(groups, key=lambda g: (g.longest, len(g.prefix))):
            if batch and sum(len(g.index) for g in [*batch, group]) > self.batch_size:
                yield batch
                batch = []
            batch.append(group)
        if batch:
            yield batch

    def _text(self, prompt, completion) -> str:
        messages, reply = conversation_of(prompt), text_of(completion)
        return judged_text(self.tokenizer, messages, reply, "The reward")

    def _batches(self, lengths: Sequence[int]) -> Iterator[np.ndarray]:
        """Indices of the texts of each batch, of similar lengths or of the same."""
        order = np.argsort(lengths)
        changes = np.flatnonzero(np.diff(np.array(lengths)[order])) + 1
        for part in [order] if self.pads else np.split(order, changes):
            for start in range(0, len(part), self.batch_size):
                yield part[start : start + self.batch_size]

    @torch.no_grad()
    def _scores(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """The scores of one batch of token ids."""
        pad = self._padding(rows)
        if pad is None and len(rows) > 1:  # few tokens are left only in tiny vocabularies
            half = len(rows) // 2
            return np.concatenate([self._scores(rows[:half]), self._scores(rows[half:])])
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[pad or 0] * (width - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        return self._read(ids.to(device()), {"attention_mask": mask.to(device())}, pad)

    @torch.no_grad()
    def _shared_scores(self, groups: Sequence[_Group], rows: Sequence[Sequence[int]]) -> np.ndarray:
        """The scores of the texts of some groups, each prefix read once."""
        texts = [rows[i] for group in groups for i in group.index]
        pad = self._padding(texts)
        if pad is None:
            return self._scores(texts)
        owners = [place for place, group in enumerate(groups) for _ in group.index]
        # `shared_inputs` leaves out the last token, which predicts none.
        ends = [[*rows[i][len(group.prefix) :], pad] for group in groups for i in group.index]
        prefixes = [group.prefix for group in groups]
        _, _, inputs = shared_inputs(self.model, prefixes, ends, owners, pad)
        return self._read(inputs.pop("input_ids"), {**inputs, "use_cache": True}, pad)

    def _read(self, ids: torch.Tensor, inputs: dict, pad: int | None) -> np.ndarray:
        """The model's scores of texts that are padded with `pad`."""
        configs = (self.model.config, self.model.config.get_text_config())
        own = [getattr(config, "pad_token_id", None) for config in configs]
        for config in configs:
            config.pad_token_id = pad
        try:
            logits = self.model(ids, **inputs).logits
        finally:
            for config, token in zip(configs, own, strict=True):
                config.pad_token_id = token
        if logits.shape != (len(ids), 1):
            raise DataError(
                f"The reward {self.path!r} returns scores of shape {tuple(logits.shape)} for "
                f"{len(ids)} texts, and a reward is one number for each. Use a classifier of "
                "whole sequences."
            )
        return logits[:, 0].float().cpu().numpy()

    def _padding(self, rows: Sequence[Sequence[int]]) -> int | None:
        """The token that fills up the rows: the model's own, else one that is in none of them.

        Many classifiers read the score at the last token that is not padding. If the model names
        no padding token, its score is that of the last token, whichever it is.
        """
        own = self._own_padding()
        if own is not None or len(rows) == 1:
            return own
        size = self._vocabulary
        used = {token for row in rows for token in row}
        candidates = (self.tokenizer.pad_token_id, *range(size))
        return next((t for t in candidates if t is not None and t < size and t not in used), None)

    def _own_padding(self) -> int | None:
        """The padding token that the model's configuration names."""
        own = getattr(self.model.config.get_text_config(), "pad_token_id", None)
        return own if own is not None and 0 <= own < self._vocabulary else None

    @property
    def _vocabulary(self) -> int:
        return self.model.get_input_embeddings().weight.shape[0]

    def _probe(self) -> None:
        """Checks that texts have the same scores alone and together."""
        replies = (ANSWER["content"], ANSWER["content"] + LONGER)
        try:
            texts = [self._text([QUESTION], reply) for reply in replies]
        except DataError:  # a template for other conversations than this one
            texts = list(replies)
        rows = tokenize(self.tokenizer, texts)["input_ids"]
        require_known(self.model, self.tokenizer, rows, f"The reward {self.path!r}")
        rows = [row for row in rows if not self.max_length or len(row) <= self.max_length]
        alone = [float(self._scores([row])[0]) for row in rows]
        for row, score in zip(rows, alone, strict=True):
            again, beside = float(self._scores([row])[0]), self._scores([row, row])
            if not self._same(again, score):
                raise DataError(
                    f"The reward {self.path!r} gives the same text different scores: {score:.6g}, "
                    f"then {again:.6g}. A part of the model is random, such as dropout."
                )
            if not self._same(beside, score):
                raise DataError(
                    f"The reward {self.path!r} gives a text the score {score:.6g} alone and "
                    f"{beside[0]:.6g} beside a copy of itself, so its scores depend on the batch. "
                    "Use a model that scores every text by itself."
                )
        if len(rows) > 1:
            same = self._same(self._scores(rows), np.array(alone))
            self.pads = same and not depends_on_length(self.model)

    def _can_share(self) -> bool:
        """Whether texts have the same scores where tokens that they share are read once: with
        prefixes of two lengths, and ends of two lengths. Half precision rounds so much that this
        does not show, and the score of a response would depend on those beside it."""
        replies = (ANSWER["content"], ANSWER["content"] + LONGER)
        questions = (QUESTION["content"], QUESTION["content"] + LONGER)
        asked = [{**QUESTION, "content": text} for text in questions for _ in replies]
        try:
            if self.model.dtype != torch.float32 or not repeats(self.model):
                return False
            texts = [self._text([q], r) for q, r in zip(asked, 2 * replies, strict=True)]
            rows = tokenize(self.tokenizer, texts)["input_ids"]
            if self.max_length and max(map(len, rows)) > self.max_length:
                return False
            groups = [
                _Group(np.array(own), _common([rows[i] for i in own])[:-1], 0)
                for own in ([0, 1], [2, 3])
            ]
            if min(len(group.prefix) for group in groups) < 2:
                return False
            alone = np.array([self._scores([row])[0] for row in rows])
            return self._same(self._shared_scores(groups, rows), alone)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception:  # models with code of their own can fail in any way
            return False

    def _same(self, some, others) -> bool:
        """Whether scores differ by no more than rounding."""
        size = np.maximum(1, np.abs(others))
        return bool(np.all(np.abs(some - others) <= _rounding(self.model.dtype) * size))


def _common(rows: Sequence[Sequence[int]]) -> Sequence[int]:
    """The tokens with which all rows begin: the first and the last row in order differ first."""
    lists = [list(row) for row in rows]
    first, last = min(lists), max(lists)
    pairs = enumerate(zip(first, last, strict=False))
    return first[: next((i for i, (a, b) in pairs if a != b), min(len(first), len(last)))]


def _score_exactly(model) -> None:
    """Let the score head of a model in half precision compute in float32. In bfloat16, with three
    significant digits, many scores of different responses would be equal."""
    for name in ("score", "classifier"):
        head = getattr(model, name, None)
        if isinstance(head, torch.nn.Linear) and head.weight.dtype != torch.float32:
            head.float().register_forward_pre_hook(lambda _, given: (given[0].float(), *given[1:]))


def _rounding(precision: torch.dtype) -> float:
    """Relative difference of scores that batches of another shape can cause."""
    return max(1e-4, 16 * torch.finfo(precision).eps)
