"""KL of a policy from its reference, along responses of the policy."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from infalign import _check
from infalign.errors import DataError
from infalign.evaluation.divergence import SequenceKL

from .hf import LanguageModel
from .interfaces import Conversation, Response
from .loading import device, tokenize
from .logits import check_top_p, collate, raw_logits, sampling_law

ENTRIES = 2**24
"""Maximum number of entries of one (tokens, vocabulary) table: 64 MiB in single precision. About
ten of these tables exist at a time."""

NO_IDS = torch.LongTensor()
"""Placeholder token ids for logits processors that do not read them."""

STRAYS = 0.02
"""Largest accepted share of sampled tokens outside the policy's recomputed nucleus: rounding at its
edge moves a few tokens, mostly in half precision."""


@torch.no_grad()
def sequence_kl(
    policy: LanguageModel,
    reference: LanguageModel,
    conversations: Sequence[Conversation],
    responses: Sequence[Sequence[Response]],
    *,
    reference_top_p: float | None = None,
    batch_tokens: int = 8192,
) -> SequenceKL:
    """KL(policy ‖ reference) of the sampling distributions, in nats, along each response.

    Each model has its own temperature and `top_p`. A truncated reference usually cannot produce
    every token that the policy can, so the KL is infinite and is reported as such;
    `reference_top_p=1` measures against the whole reference instead.

    - `responses`: samples of the policy for each conversation, with their tokens; rows may differ
      in length.
    - `reference_top_p`: replaces the reference's own `top_p`.
    - `batch_tokens`: number of tokens, including padding, that the models read at once; a longer
      response is read alone. It bounds memory: for each token, each model has a row of logits of
      the size of the vocabulary, in the model's precision. Further tables have `ENTRIES` entries at
      a time.

    Raises ValueError for responses without tokens, and DataError if the models' vocabularies differ
    or the responses are not the policy's.
    """
    top_p = reference.top_p
    if reference_top_p is not None:
        top_p = check_top_p("reference_top_p", reference_top_p)
    _check.count("batch_tokens", batch_tokens)
    flat = _flat(policy, conversations, responses)
    totals = np.zeros((4, len(flat)))
    for index in _batches([(len(p), len(r)) for p, r in flat], batch_tokens):
        ids, mask, of_response = collate(
            [flat[i][0] for i in index], [flat[i][1] for i in index], policy.tokenizer.pad_token_id
        )
        ids, mask = ids.to(device()), mask.to(device())
        length = of_response.shape[1]
        p, q = (raw_logits(m.model, ids, mask, length) for m in (policy, reference))
        if p.shape != q.shape:
            raise DataError(
                f"The policy {str(policy.path)!r} has logits for {p.shape[-1]} tokens and the "
                f"reference {str(reference.path)!r} for {q.shape[-1]}: they have no KL. "
                "Use a reference with the policy's vocabulary."
            )
        sampled = ids[:, -length:]
        for part in of_response.nonzero().split(max(1, ENTRIES // p.shape[-1])):
            row, place = part.to(device()).T
            values = _per_token(
                p[row, place].float(),
                q[row, place].float(),
                sampled[row, place][:, None],
                (policy.temperature, policy.top_p),
                (reference.temperature, top_p),
            )
            np.add.at(totals.T, np.array(index)[part[:, 0].numpy()], values.cpu().numpy())
    lengths = np.array([len(tokens) for _, tokens in flat])
    if totals[3].sum() > STRAYS * lengths.sum():
        raise DataError(
            f"`responses` must be samples of the policy; {totals[3].sum():.0f} of their "
            f"{lengths.sum()} tokens are outside its top-p of {policy.top_p:g}. Draw them with its "
            "`sample`, at the same temperature and `top_p`."
        )
    return _table([len(row) for row in responses], totals[0], totals[1], lengths, totals[2])


def _per_token(
    p: torch.Tensor,
    q: torch.Tensor,
    sampled: torch.Tensor,
    policy_law: tuple[float, float],
    reference_law: tuple[float, float],
) -> torch.Tensor:
    """Exact KL, log-ratio of the sampled token, whether the KL is infinite, and whether the sampled
    token is outside the nucleus; shape (tokens, 4).

    - `p`, `q`: logits, shape (tokens, vocabulary).
    - `policy_law`, `reference_law`: temperature and top-p.
    """
    warmed = sampling_law(policy_law[0], 1)(NO_IDS, p)
    p = sampling_law(1, policy_law[1])(NO_IDS, warmed)
    # A sampled token has positive probability, even if rounding now puts it outside the nucleus.
    stray = p.gather(1, sampled).isneginf()
    p = p.scatter(1, sampled, warmed.gather(1, sampled)).log_softmax(-1)
    q = sampling_law(*reference_law)(NO_IDS, q).log_softmax(-1)
    possible = ~p.isneginf()
    impossible = possible & q.isneginf()
    terms = torch.where(possible & ~impossible, p.exp() * (p - q), 0.0)
    infinite = impossible.any(1)
    exact = terms.sum(1).masked_fill(infinite, torch.inf)
    ratio = (p.gather(1, sampled) - q.gather(1, sampled))[:, 0]
    return torch.stack([x.double() for x in (exact, ratio, infinite, stray[:, 0])], 1)


def _flat(policy, conversations, responses) -> list[tuple[list[int], tuple[int, ...]]]:
    """Prompt and response tokens of each response, one prompt after the other."""
    if len(conversations) != len(responses):
        raise ValueError(
            "`responses` must have one row for each of the conversations; got "
            f"{len(responses)} rows for {len(conversations)}."
        )
    without = [(i, j) for i, row in enumerate(responses) for j, r in enumerate(row) if not r.tokens]
    if without:
        row, column = without[0]
        raise ValueError(
            f"`responses` must have tokens; got none at prompt {row}, response {column} "
            f"({len(without)} of {sum(map(len, responses))} have none). Sample them with a "
            "`LanguageModel`."
        )
    texts = [policy.prompt_text(c) for c in conversations]
    prompts = tokenize(policy.tokenizer, texts)["input_ids"] if texts else []
    return [(p, r.tokens) for p, row in zip(prompts, responses, strict=True) for r in row]


def _batches(shapes: Sequence[tuple[int, int]], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of (prompt length, response length) in groups of `batch_tokens`, padding included."""
    batch: list[int] = []
    longest = (0, 0)
    for i in sorted(range(len(shapes)), key=lambda i: shapes[i], reverse=True):
        padded = (max(longest[0], shapes[i][0]), max(longest[1], shapes[i][1]))
        if batch and (len(batch) + 1) * sum(padded) > batch_tokens:
            yield batch
            batch, padded = [], shapes[i]
        batch.append(i)
        longest = padded
    if batch:
        yield batch


def _table(counts: Sequence[int], exact, sampled, tokens, impossible) -> SequenceKL:
    """Values of all responses, one prompt after the other, as tables with a row for each prompt."""
    present = np.arange(max(counts, default=0)) < np.array(counts, int)[:, None]
    tables = [np.full(present.shape, empty) for empty in (np.nan, np.nan, 0, 0)]
    for table, values in zip(tables, (exact, sampled, tokens, impossible), strict=True):
        table[present] = values
    return SequenceKL(*tables)
