"""Samples of every policy with their rewards and KL, drawn once."""

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from infalign import storage
from infalign.models.after_thinking import unconditioned
from infalign.models.interfaces import Conversation, Response, Sampler, Scorer
from infalign.models.rewards import load_reward, score
from infalign.models.samplers import load_sampler
from infalign.stores import PromptSamples, by_prompt

from .comparison import SELECTING, Comparison
from .resumable import BATCHES, Report, drop_parts, write_in_parts


def draw(comparison: Comparison, folder: Path, report: Report) -> None:
    """Write `folder`/NAME.parquet for the reference and every policy.

    Columns: prompt_id, sample, completion, tokens, logprob (nats, of the sampling distribution), kl
    and kl_sampled (nats), and one column per reward: `reward`, then `reward_NAME` for each gold
    reward. Unknown values are null: tokens and log-probabilities that a server does not report, the
    KL of samples on which it was not measured. Existing files are kept; a new reward scores the
    stored samples.
    """
    models, ids = _Models(comparison), [p.id for p in comparison.prompts]
    size = max(1, BATCHES * comparison.sampling.batch_size // comparison.samples)
    for name, model in comparison.models.items():
        path, progress = folder / f"{name}.parquet", partial(report, f"evaluate {name}")
        if path.exists():
            drop_parts(path)
            _add_rewards(comparison, models, path)
            progress(len(ids), len(ids))
        else:
            make = partial(_sampled, comparison, models, name, model)
            write_in_parts(path, ids, size, make, progress)


def column_of(reward: str) -> str:
    """The column of a reward's scores."""
    return reward if reward == SELECTING else f"{SELECTING}_{reward}"


def read(comparison: Comparison, folder: Path) -> dict[str, PromptSamples]:
    """The samples of `draw` by name, each joined to the comparison's prompts."""
    return {name: _joined(comparison, folder / f"{name}.parquet") for name in comparison.models}


def _joined(comparison: Comparison, path: Path) -> PromptSamples:
    return by_prompt(storage.read_table(path), [p.id for p in comparison.prompts], source=str(path))


class _Models:
    """The loaded models: one policy at a time, while the reference and the rewards stay loaded."""

    def __init__(self, comparison: Comparison):
        self.comparison = comparison
        self._rewards: dict[str, Scorer] = {}
        self._policy: tuple[str, Sampler] | None = None

    def reward(self, name: str) -> Scorer:
        if name not in self._rewards:
            spec = self.comparison.rewards[name]
            remote = self.comparison.trust_remote_code
            self._rewards[name] = load_reward(spec, trust_remote_code=remote)
        return self._rewards[name]

    @cached_property
    def reference(self) -> Sampler:
        return self._load(self.comparison.reference)

    def policy(self, model: str) -> Sampler:
        if model == self.comparison.reference:
            return self.reference
        if self._policy is None or self._policy[0] != model:
            self._policy = None  # frees the last policy before the next is loaded
            self._policy = (model, self._load(model))
        return self._policy[1]

    def _load(self, model: str) -> Sampler:
        sampling = self.comparison.sampling
        return load_sampler(
            model,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_new_tokens=sampling.max_new_tokens,
            batch_size=sampling.batch_size,
            strip=sampling.strip,
            answer=sampling.answer,
            ask_again=sampling.ask_again,
            trust_remote_code=self.comparison.trust_remote_code,
        )


def _sampled(
    comparison: Comparison, models: _Models, name: str, model: str, places: Sequence[int]
) -> pa.Table:
    """Scored samples of one policy on the prompts at these indices."""
    prompts, n = [comparison.prompts[place] for place in places], comparison.samples
    conversations, ids = [p.messages for p in prompts], [p.id for p in prompts]
    sampler = models.policy(model)
    drawn = sampler.sample(conversations, n, seed=comparison.sample_seed(name), keys=ids)
    texts = [[r.text for r in row] for row in drawn]
    flat = [r for row in drawn for r in row]
    columns: dict[str, object] = {
        "prompt_id": [i for i in ids for _ in range(n)],
        "sample": list(range(n)) * len(ids),
        "completion": [r.text for r in flat],
        "tokens": pa.array([len(r.tokens) or None for r in flat], pa.int64()),
        "logprob": pa.array([r.logprob for r in flat], pa.float64(), from_pandas=True),
    }
    for reward in comparison.rewards:
        values = score(models.reward(reward), conversations, texts, ids)
        columns[column_of(reward)] = values.ravel()
    if name in comparison.policies:
        measured = _kl(comparison, models, sampler, conversations, drawn)
    else:
        measured = dict.fromkeys(("kl", "kl_sampled"), np.full((len(ids), n), np.nan))
    columns |= {k: pa.array(kl.ravel(), from_pandas=True) for k, kl in measured.items()}
    return pa.table(columns)


def _kl(
    comparison: Comparison,
    models: _Models,
    sampler: Sampler,
    conversations: Sequence[Conversation],
    drawn: Sequence[Sequence[Response]],
) -> Mapping[str, np.ndarray]:
    """KL along the first responses to each prompt, exact per token and sampled; nan elsewhere.

    The reference is used without its top-p, because tokens outside its nucleus would make the KL
    infinite. Models without logits, such as a server's, have no KL, and none is measured with
    `kl_samples` 0 or from responses that were drawn again until they had an answer.
    """
    from infalign.models.hf import LanguageModel
    from infalign.models.kl import sequence_kl

    exact, sampled = (np.full((len(drawn), comparison.samples), np.nan) for _ in range(2))
    # The reference is loaded only if the policy has logits.
    k = comparison.kl_samples
    policy = unconditioned(sampler)
    if not (k and isinstance(policy, LanguageModel)):
        return {"kl": exact, "kl_sampled": sampled}
    reference = unconditioned(models.reference)
    if isinstance(reference, LanguageModel):
        first = [row[:k] for row in drawn]
        kl = sequence_kl(policy, reference, conversations, first, reference_top_p=1.0)
        exact[:, :k], sampled[:, :k] = kl.exact, kl.sampled
    return {"kl": exact, "kl_sampled": sampled}


def _add_rewards(comparison: Comparison, models: _Models, path: Path) -> None:
    """Add the scores that the stored samples lack."""
    samples = _joined(comparison, path)
    table = samples.table
    missing = [r for r in comparison.rewards if column_of(r) not in table.column_names]
    if not missing:
        return
    texts = samples.rows("completion")
    conversations = [p.messages for p in comparison.prompts]
    ids = [p.id for p in comparison.prompts]
    for reward in missing:
        values = score(models.reward(reward), conversations, texts, ids)
        table = table.append_column(column_of(reward), pa.array(values.ravel()))
    storage.write_table(path, table)
