"""KL of a policy from its reference, along responses of the policy."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from infalign import _check, _progress
from infalign.errors import DataError
from infalign.evaluation.divergence import SequenceKL

from .hf import LanguageModel
from .interfaces import Conversation, Response
from .loading import device
from .logits import check_top_p, collate, raw_logits, sampling_law
from .precision import in_float32
from .shared_prompts import shared_logits
from .tokens import WITHOUT_KL, require_same_tokens

__all__ = ["sequence_kl", "token_values"]

ENTRIES = 2**24
"""Maximum number of entries of one (tokens, vocabulary) table: 64 MiB in single precision. About
ten of these tables exist at a time."""

BATCH_TOKENS = 4096
"""Number of tokens that the models read at once: seconds for a large model on a CPU."""

NO_IDS = torch.LongTensor()
"""Placeholder token ids for logits processors that do not read them."""

STRAYS = 0.02
"""Largest accepted share of sampled tokens outside the policy's recomputed nucleus: rounding at its
edge moves a few tokens, mostly in half precision."""


OUTSIDE = 1e-3
"""Largest mean probability of tokens that the reference has not which is left out."""


@torch.no_grad()
def sequence_kl(
    policy: LanguageModel,
    reference: LanguageModel,
    conversations: Sequence[Conversation],
    responses: Sequence[Sequence[Response]],
    *,
    reference_top_p: float | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> SequenceKL:
    """KL(policy ‖ reference) of the sampling distributions, in nats, along each response.

    Models in half precision compute in float32 here: the rounding of bfloat16 adds about 0.003 nats
    for each token, as much as a small KL.

    Each model has its own temperature and `top_p`. A truncated reference usually cannot produce
    every token that the policy can, so the KL is infinite and is reported as such;
    `reference_top_p=1` measures against the whole reference instead.

    Each model reads the prompts with its own tokenizer and in its own chat template, as it does
    when it samples; the responses are the policy's tokens, which must be the reference's too. If
    the policy has logits that the reference has not, such as those of padded embeddings, they are
    left out as long as they have next to no probability.

    - `responses`: samples of the policy for each conversation, with their tokens; rows may differ
      in length.
    - `reference_top_p`: replaces the reference's own `top_p`.
    - `batch_tokens`: number of tokens, including padding, that the models read at once; a longer
      response is read alone. It bounds memory: for each token, each model has a row of logits of
      the size of the vocabulary, in the model's precision. Further tables have `ENTRIES` entries at
      a time.

    Raises ValueError for responses without tokens, and DataError if the models' tokens differ or
    the responses are not the policy's.
    """
    tokens = _tokens(conversations, responses)
    lengths, totals = np.array([len(row) for row in tokens]), np.zeros((5, len(tokens)))
    for row, _, values in token_values(
        policy,
        reference,
        conversations,
        responses,
        reference_top_p=reference_top_p,
        batch_tokens=batch_tokens,
    ):
        np.add.at(totals.T, row, values[:, :5])
    if totals[3].sum() > STRAYS * lengths.sum():
        raise DataError(
            f"`responses` must be samples of the policy; {totals[3].sum():.0f} of their "
            f"{lengths.sum()} tokens are outside its top-p of {policy.top_p:g}. Draw them with its "
            "`sample`, at the same temperature and `top_p`."
        )
    if totals[4].sum() > OUTSIDE * lengths.sum():
        raise DataError(
            f"The policy {str(policy.path)!r} gives {totals[4].sum() / lengths.sum():.2g} of its "
            f"probability to tokens that the reference {str(reference.path)!r} has not, so the KL "
            f"is infinite. Use a reference with the policy's tokens, or {WITHOUT_KL}."
        )
    return _table([len(row) for row in responses], totals[0], totals[1], lengths, totals[2])


@torch.no_grad()
def token_values(
    policy: LanguageModel,
    reference: LanguageModel,
    conversations: Sequence[Conversation],
    responses: Sequence[Sequence[Response]],
    *,
    reference_top_p: float | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The values of `_per_token` along each response, a few responses at a time: their numbers, one
    prompt after the other, the places of their tokens, and the values, shape (tokens, 6).

    Arguments and errors as in `sequence_kl`, but any responses with the policy's tokens are read,
    whoever wrote them. A prompt is read once for its responses in a batch where the model's cache
    can be repeated.
    """
    top_p = reference.top_p
    if reference_top_p is not None:
        top_p = check_top_p("reference_top_p", reference_top_p)
    _check.count("batch_tokens", batch_tokens)
    if policy.tokenizer is not reference.tokenizer:
        require_same_tokens(policy.tokens("The policy"), reference.tokens("The reference"))
    tokens = _tokens(conversations, responses)
    _require_possible(policy, reference, tokens)
    owners = [i for i, row in enumerate(responses) for _ in row]
    prompts, theirs = (_prompts(m, conversations, responses) for m in (policy, reference))
    shapes = [
        (max(len(prompts[i]), len(theirs[i])), i, len(r))
        for i, r in zip(owners, tokens, strict=True)
    ]
    with in_float32(policy.model, reference.model):
        yield from _values(
            policy,
            reference,
            top_p,
            (prompts, theirs),
            owners,
            tokens,
            _batches(shapes, batch_tokens),
        )


def _values(
    policy: LanguageModel,
    reference: LanguageModel,
    top_p: float,
    prompts: tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]],
    owners: Sequence[int],
    tokens: Sequence[Sequence[int]],
    batches: Iterable[list[int]],
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    done = 0
    for index in batches:
        _progress.advance(done / len(tokens))
        done += len(index)
        p, sampled, of_response = _logits(policy, prompts[0], owners, tokens, index)
        _progress.advance((done - len(index) / 2) / len(tokens))
        q, _, _ = _logits(reference, prompts[1], owners, tokens, index)
        for part in of_response.nonzero().split(max(1, ENTRIES // p.shape[-1])):
            row, place = part.to(device()).T
            values = _per_token(
                p[row, place].float(),
                q[row, place].float(),
                sampled[row, place][:, None],
                (policy.temperature, policy.top_p),
                (reference.temperature, top_p),
            )
            yield np.array(index)[part[:, 0].numpy()], part[:, 1].numpy(), values.cpu().numpy()


def _per_token(
    p: torch.Tensor,
    q: torch.Tensor,
    sampled: torch.Tensor,
    policy_law: tuple[float, float],
    reference_law: tuple[float, float],
) -> torch.Tensor:
    """Exact KL, log-ratio of the sampled token, whether the KL is infinite, whether the sampled
    token is outside the nucleus, the probability of tokens that the reference has not, and the
    log-probability of the sampled token; shape (tokens, 6).

    - `p`, `q`: logits, shape (tokens, vocabulary).
    - `policy_law`, `reference_law`: temperature and top-p.
    """
    warmed = sampling_law(policy_law[0], 1)(NO_IDS, p)
    p = sampling_law(1, policy_law[1])(NO_IDS, warmed)
    # A sampled token has positive probability, even if rounding now puts it outside the nucleus.
    stray = p.gather(1, sampled).isneginf()
    p = p.scatter(1, sampled, warmed.gather(1, sampled)).log_softmax(-1)
    q = sampling_law(*reference_law)(NO_IDS, q).log_softmax(-1)
    shared = min(p.shape[-1], q.shape[-1])
    outside = p[:, shared:].exp().sum(1)
    if p.shape != q.shape:
        p, q = p[:, :shared] - torch.log1p(-outside)[:, None], q[:, :shared]
    possible = ~p.isneginf()
    impossible = possible & q.isneginf()
    terms = torch.where(possible & ~impossible, p.exp() * (p - q), 0.0)
    infinite = impossible.any(1)
    exact = terms.sum(1).masked_fill(infinite, torch.inf)
    logprob = p.gather(1, sampled)[:, 0]
    values = (exact, logprob - q.gather(1, sampled)[:, 0], infinite, stray[:, 0], outside, logprob)
    return torch.stack([x.double() for x in values], 1)


def _tokens(
    conversations: Sequence[Conversation], responses: Sequence[Sequence[Response]]
) -> list[tuple[int, ...]]:
    """The tokens of each response, one prompt after the other."""
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
    return [r.tokens for row in responses for r in row]


def _prompts(
    model: LanguageModel,
    conversations: Sequence[Conversation],
    responses: Sequence[Sequence[Response]],
) -> list[list[int]]:
    """The prompts as `model` reads them."""
    longest = max((len(r.tokens) for row in responses for r in row), default=0)
    return model.prompt_ids(conversations, [str(i) for i in range(len(conversations))], longest)


def _logits(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    owners: Sequence[int],
    tokens: Sequence[Sequence[int]],
    index: Sequence[int],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of the responses at `index`, their tokens, and which of them are not padding.

    - `owners`: index of each response's prompt in `prompts`.
    """
    own, answers = [owners[i] for i in index], [tokens[i] for i in index]
    pad, asked = model.tokenizer.pad_token_id, list(dict.fromkeys(own))
    if len(asked) < len(own) and max(len(prompts[i]) for i in asked) > 1 and model.repeats:
        places = [asked.index(i) for i in own]
        ids, of_response, logits = shared_logits(
            model.model, [prompts[i] for i in asked], answers, places, pad
        )
        return logits, ids, of_response.cpu()
    ids, mask, of_response = collate([prompts[i] for i in own], answers, pad)
    ids, mask = ids.to(device()), mask.to(device())
    length = of_response.shape[1]
    return raw_logits(model.model, ids, mask, length), ids[:, -length:], of_response


def _require_possible(
    policy: LanguageModel, reference: LanguageModel, tokens: Sequence[Sequence[int]]
) -> None:
    """Raises DataError for tokens of the policy that the reference cannot read."""
    size = reference.model.get_input_embeddings().weight.shape[0]
    largest = max((max(row) for row in tokens), default=0)
    if largest >= size:
        token = policy.tokenizer.convert_ids_to_tokens(largest)
        raise DataError(
            f"The policy {str(policy.path)!r} wrote the token {token!r}, which the reference "
            f"{str(reference.path)!r} has not, so the KL is infinite. Use a reference with the "
            f"policy's tokens, or {WITHOUT_KL}."
        )


def _batches(shapes: Sequence[tuple[int, int, int]], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of (prompt length, prompt, response length) in groups of `batch_tokens`, padding
    included; the responses to a prompt are neighbors."""
    batch: list[int] = []
    longest = (0, 0)
    for i in sorted(range(len(shapes)), key=lambda i: shapes[i], reverse=True):
        prompt, _, response = shapes[i]
        padded = (max(longest[0], prompt), max(longest[1], response))
        if batch and (len(batch) + 1) * sum(padded) > batch_tokens:
            yield batch
            batch, padded = [], (prompt, response)
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
