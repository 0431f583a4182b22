"""Samples of every policy with their rewards and KL, drawn once."""

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from infalign import _progress, storage
from infalign.decoding.selection import MajorityVote, try_vote
from infalign.errors import ConfigError, DataError
from infalign.manifest import Manifest
from infalign.models.after_thinking import unconditioned
from infalign.models.blocks import block_of
from infalign.models.interfaces import Conversation, Response, Sampler, Scorer, sample_from
from infalign.models.judges import load_judge, try_judge
from infalign.models.rewards import load_reward
from infalign.models.samplers import load_sampler
from infalign.models.specs import ModelSpec
from infalign.prompts import CHECKSUM, checksum, read_by, score_responses, try_out
from infalign.stores import PromptSamples, by_prompt
from infalign.stores.resumable import Origin, Report, ResumableTable

from .comparison import Comparison
from .origins import KL, KL_COLUMNS, POLICY, Origins, column_of
from .rows import SampleTable, read_of

__all__ = ["draw", "identify", "read", "table_of"]

LOG = logging.getLogger(__name__)
STAGE = "evaluate"


def identify(comparison: Comparison, manifest: Manifest) -> Origins:
    """What the tables of a comparison come from.

    Raises ConfigError if the folder holds samples drawn with other settings.
    """
    tables = {name: table_of(comparison, manifest, name) for name in comparison.models}
    stored = {name: table.origin() for name, table in tables.items()}
    finished = [name for name, table in tables.items() if not table.missing()]
    origins = Origins(comparison, stored, finished, manifest.folder.parent)
    wanted = {name: origins.samples(name) for name in tables}
    if not comparison.renews:
        _require_same(manifest.folder, stored, wanted)
    return origins


def draw(comparison: Comparison, manifest: Manifest, origins: Origins, report: Report) -> None:
    """Write NAME.parquet in the manifest's folder for the reference and every policy.

    Columns: prompt_id, sample, completion, tokens (their number), token_ids, logprob (nats, of the
    sampling distribution), kl and kl_sampled (nats), and one column per reward: `reward`, then
    `reward_NAME` for each gold reward. Unknown values are null: tokens and log-probabilities that a
    server does not report, the KL of samples on which it was not measured.

    Stored samples of the same policy are used again, and only missing ones are drawn; so are their
    rewards and KL, unless these come from something else now. Samples of a policy whose content has
    changed are set aside, and drawn again.
    """
    tables = {name: table_of(comparison, manifest, name) for name in comparison.models}
    wanted = {name: origins.samples(name) for name in tables}
    _name_changed_rewards({n: t.origin() for n, t in tables.items()}, wanted)
    models = _Models(comparison, origins)
    for name, table in tables.items():
        changed, aside = table.arrange(wanted[name])
        if changed:
            LOG.warning(
                "%s: its %s changed. Its samples are drawn again; the earlier ones are in %s.",
                _called(comparison, name),
                " and ".join(changed),
                aside,
            )
        if table.missing():
            models.try_out()
        make = partial(_sampled, comparison, models, name)
        sampling = comparison.sampling
        size = block_of(
            comparison.models[name],
            tokens=sampling.max_new_tokens,
            batch_size=sampling.batch_size,
        )
        table.draw(size, make, wanted[name], partial(report, f"evaluate {name}"))
        _complete(comparison, models, name, table, wanted[name])


def read(comparison: Comparison, manifest: Manifest) -> dict[str, PromptSamples]:
    """The samples of `draw` by name, each joined to the comparison's prompts."""
    return {
        name: _joined(comparison, table_of(comparison, manifest, name).table.path, manifest)
        for name in comparison.models
    }


def table_of(comparison: Comparison, manifest: Manifest, name: str) -> SampleTable:
    """The table of one policy's samples."""
    path = manifest.folder / f"{name}.parquet"
    rewards = {column_of(reward): spec for reward, spec in comparison.rewards.items()}
    columns = {KL: KL_COLUMNS} | {own: (own, read_of(own)) for own in rewards}
    table = ResumableTable(manifest, path, STAGE, POLICY, columns)
    reads = {own: read_by(comparison.prompts, spec) for own, spec in rewards.items()}
    return SampleTable(table, comparison.prompts, comparison.samples, reads)


def _joined(comparison: Comparison, path: Path, manifest: Manifest) -> PromptSamples:
    """The samples of one policy; DataError unless each prompt has its samples, numbered from 0."""
    manifest.require(path)
    table, n = storage.read_table(path), comparison.samples
    samples = by_prompt(table, [p.id for p in comparison.prompts], source=str(path))
    wrong = [
        i
        for i, own in zip(samples.prompt_ids, samples.rows("sample"), strict=True)
        if own != list(range(n))
    ]
    if wrong or len(table) != n * len(comparison.prompts):
        raise DataError(
            f"{path} must hold {n} samples of each of the {len(comparison.prompts)} prompts, and "
            f"holds {len(table)} rows"
            + (f"; prompt_id {wrong[0]!r} has others" if wrong else "")
            + f". Remove it, and run `{STAGE}` again."
        )
    return samples


def _called(comparison: Comparison, name: str) -> str:
    return f"Policy {name}" if name in comparison.policies else f"The {name}"


def _name_changed_rewards(
    stored: Mapping[str, Origin | None], wanted: Mapping[str, Origin]
) -> None:
    """Log each reward by which stored samples were scored and that has changed since."""
    changed = {
        wanted[name].sources[source].name: nouns
        for name, origin in stored.items()
        if origin is not None
        for source, nouns in origin.changes(wanted[name]).items()
        if source not in (POLICY, KL)
    }
    for reward, nouns in changed.items():
        LOG.warning(
            "Reward %s: its %s changed. The stored samples are scored again.",
            reward,
            " and ".join(nouns),
        )


def _require_same(
    folder: Path, stored: Mapping[str, Origin | None], wanted: Mapping[str, Origin]
) -> None:
    """ConfigError if a table was drawn with other settings, or a name means something else now."""
    conflicts = [
        conflict
        for name, origin in stored.items()
        if origin is not None
        for conflict in origin.conflicts(wanted[name])
    ]
    if conflicts:
        raise ConfigError(
            f"{folder} holds samples drawn with other settings: "
            f"{'; '.join(dict.fromkeys(conflicts))}. Choose another folder with --out, or restore "
            "those values; another policy or gold reward needs a name of its own."
        )


class _Models:
    """The loaded models: one policy at a time, while the reference and the rewards stay loaded."""

    def __init__(self, comparison: Comparison, origins: Origins):
        self.comparison, self._origins = comparison, origins
        self._rewards: dict[str, Scorer] = {}
        self._policy: tuple[str, Sampler] | None = None
        self._tried = False

    def reward(self, name: str) -> Scorer:
        if name not in self._rewards:
            spec = self.comparison.rewards[name]
            self._rewards[name] = load_reward(spec, **self.comparison.loading)
            self._origins.require_unchanged(spec)
        return self._rewards[name]

    def try_out(self) -> None:
        """Use rewards, judge and answers once before the first sample is drawn. Raises DataError
        for what is wrong with them."""
        comparison = self.comparison
        if self._tried:
            return
        for reward in comparison.rewards:
            try_out(self.reward(reward), comparison.prompts)
        if comparison.judge is not None and ModelSpec.parse(comparison.judge).kind == "python":
            prompt = comparison.prompts[-1]
            judge = load_judge(comparison.judge, **comparison.loading)
            try_judge(judge, prompt.value, {"prompt_id": prompt.id, **prompt.columns})
        for vote in {p for pair in comparison.pairs.values() for p in pair}:
            if isinstance(vote, MajorityVote):
                try_vote(vote)
        self._tried = True

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
        loaded = load_sampler(
            model,
            **sampling.model_dump(),
            **self.comparison.loading,
        )
        self._origins.require_unchanged(model)
        return loaded


def _sampled(
    comparison: Comparison, models: _Models, name: str, places: Sequence[int], first: int, part: int
) -> pa.Table:
    """Scored samples, from number `first` on, of one policy on the prompts at these indices."""
    prompts, n = [comparison.prompts[place] for place in places], comparison.samples - first
    conversations, ids = [p.messages for p in prompts], [p.id for p in prompts]
    sampler = models.policy(comparison.models[name])
    seed = comparison.sample_seed(name)
    with _progress.share(0, _progress.DRAWING):
        drawn = sample_from(sampler, conversations, n, first, seed=seed, keys=ids)
    texts = [[r.text for r in row] for row in drawn]
    flat = [r for row in drawn for r in row]
    columns: dict[str, object] = {
        "prompt_id": [i for i in ids for _ in range(n)],
        CHECKSUM: [value for p in prompts for value in [checksum(p)] * n],
        "sample": list(range(first, first + n)) * len(ids),
        "completion": [r.text for r in flat],
        "tokens": pa.array([len(r.tokens) or None for r in flat], pa.int64()),
        "token_ids": pa.array([r.tokens or None for r in flat], pa.list_(pa.int32())),
        "logprob": pa.array([r.logprob for r in flat], pa.float64(), from_pandas=True),
    }
    each = (1 - _progress.DRAWING) / (len(comparison.rewards) + 1)
    for place, reward in enumerate(comparison.rewards):
        begun = _progress.DRAWING + place * each
        with _progress.share(begun, begun + each):
            values = score_responses(models.reward(reward), prompts, texts)
        column = column_of(reward)
        columns[column] = np.concatenate(values)
        if read := read_by(comparison.prompts, comparison.rewards[reward]):
            columns[read_of(column)] = [value for i in ids for value in [read[i]] * n]
    if name in comparison.policies and first < comparison.kl_samples:
        with _progress.share(1 - each, 1):
            measured = _kl(comparison, models, sampler, conversations, drawn, first)
    else:
        measured = dict.fromkeys(KL_COLUMNS, np.full((len(ids), n), np.nan))
    columns |= {k: pa.array(kl.ravel(), from_pandas=True) for k, kl in measured.items()}
    return pa.table(columns)


def _kl(
    comparison: Comparison,
    models: _Models,
    sampler: Sampler,
    conversations: Sequence[Conversation],
    drawn: Sequence[Sequence[Response]],
    first: int = 0,
) -> Mapping[str, np.ndarray]:
    """KL along the first responses to each prompt, exact per token and sampled; nan elsewhere.

    - `first`: number of the first response in `drawn`.

    The reference is used without its top-p, because tokens outside its nucleus would make the KL
    infinite. Models without logits, such as a server's, have no KL, and none is measured with
    `kl_samples` 0 or from responses that were drawn again until they had an answer.
    """
    from infalign.models.hf import LanguageModel
    from infalign.models.kl import sequence_kl

    shape = (len(drawn), len(drawn[0]))
    exact, sampled = (np.full(shape, np.nan) for _ in range(2))
    # The reference is loaded only if the policy has logits.
    k = max(0, comparison.kl_samples - first)
    policy = unconditioned(sampler)
    if not (k and isinstance(policy, LanguageModel)):
        return {"kl": exact, "kl_sampled": sampled}
    reference = unconditioned(models.reference)
    if isinstance(reference, LanguageModel):
        own = [row[:k] for row in drawn]
        kl = sequence_kl(policy, reference, conversations, own, reference_top_p=1.0)
        exact[:, :k], sampled[:, :k] = kl.exact, kl.sampled
    return {"kl": exact, "kl_sampled": sampled}


def _complete(
    comparison: Comparison, models: _Models, name: str, table: SampleTable, wanted: Origin
) -> None:
    """Score the rows that lack a reward, measure the KL of those that lack it, and write the
    table."""
    stored = table.stored(wanted)
    assert stored is not None, "the rows were drawn"
    rows, origin = stored
    due = [key for key in wanted.sources if key != POLICY]
    lacking = [key for key in due if _lacks(key, rows, origin)]
    if not lacking and table.is_exact() and table.origin() == origin:
        table.sweep()
        return
    before = table.origin()
    if KL in lacking and before is not None and KL in before.sources:
        if changed := before.changes(wanted).get(KL):
            LOG.warning(
                "%s: the %s changed. Its KL is measured again.",
                _called(comparison, name),
                " and the ".join(changed),
            )
    samples = by_prompt(rows, [p.id for p in comparison.prompts], source=str(table.table.path))
    columns = dict(zip(samples.table.column_names, samples.table.columns, strict=True))
    for reward in comparison.rewards:
        if (column := column_of(reward)) in lacking:
            columns[column] = _scores(comparison, models, reward, samples)
            if read := read_by(comparison.prompts, comparison.rewards[reward]):
                ids = samples.table["prompt_id"].to_pylist()
                columns[read_of(column)] = pa.array([read[i] for i in ids], pa.string())
    if KL in lacking:
        columns |= _measured_kl(comparison, models, name, samples)
    sources = {**origin.sources, **wanted.sources}
    table.finish(pa.table(columns), Origin(wanted.settings, sources))


def _lacks(key: str, rows: pa.Table, origin: Origin) -> bool:
    """Whether rows lack a reward, or prompts the KL of their first sample."""
    if key not in origin.sources:
        return True
    if key != KL:
        return key not in rows.column_names or rows[key].null_count > 0
    column = KL_COLUMNS[1]
    if column not in rows.column_names:
        return True
    known = ~np.isnan(rows[column].to_numpy().astype(float))
    first = rows["sample"].to_numpy() == 0
    # Of models without logits none is known, and none will be.
    return bool(known.any() and not known[first].all())


def _scores(
    comparison: Comparison, models: _Models, reward: str, samples: PromptSamples
) -> pa.Array:
    """A column of rewards, in which those that are missing are scored."""
    column, texts = column_of(reward), samples.rows("completion")
    if column in samples.table.column_names:
        known = samples.rows(column)
    else:
        known = [[None] * len(row) for row in texts]
    missing = [[k for k, value in enumerate(row) if value is None] for row in known]
    due = [place for place, own in enumerate(missing) if own]
    scored = score_responses(
        models.reward(reward),
        [comparison.prompts[place] for place in due],
        [[texts[place][k] for k in missing[place]] for place in due],
    )
    for place, values in zip(due, scored, strict=True):
        for k, value in zip(missing[place], values, strict=True):
            known[place][k] = float(value)
    return pa.array([value for row in known for value in row], pa.float64())


def _measured_kl(
    comparison: Comparison, models: _Models, name: str, samples: PromptSamples
) -> dict[str, pa.Array]:
    """The KL columns of stored samples, of which the missing ones are measured."""
    there = all(column in samples.table.column_names for column in KL_COLUMNS)
    shape = (len(samples.prompt_ids), comparison.samples)
    known = {
        column: samples.matrix(column) if there else np.full(shape, np.nan) for column in KL_COLUMNS
    }
    due = np.flatnonzero(np.isnan(known[KL_COLUMNS[1]][:, 0])).tolist()
    texts, tokens = samples.rows("completion"), samples.rows("token_ids")
    rows = [
        [Response(text, tuple(ids or ())) for text, ids in zip(texts[at], tokens[at], strict=True)]
        for at in due
    ]
    conversations = [comparison.prompts[at].messages for at in due]
    sampler = models.policy(comparison.models[name])
    measured = _kl(comparison, models, sampler, conversations, rows)
    for column, values in measured.items():
        known[column][due] = values
    return {column: pa.array(values.ravel(), from_pandas=True) for column, values in known.items()}
