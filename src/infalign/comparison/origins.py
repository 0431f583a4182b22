"""What the tables of a comparison come from: fingerprints of models, rewards and judge."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path

from infalign.errors import DataError
from infalign.models.fingerprints import judge_parts, policy_parts, reward_parts
from infalign.models.specs import ModelSpec
from infalign.stores import PromptSamples
from infalign.stores.resumable import Origin, Source

from .comparison import REFERENCE, SELECTING, Comparison
from .rows import law

__all__ = ["Origins", "column_of", "digest"]

LOG = logging.getLogger(__name__)

POLICY, KL, VERDICTS = "policy", "kl", "verdicts"
"""Names of sources: of samples, of their KL, and of verdicts. A reward has that of its column."""

KL_COLUMNS = ("kl", "kl_sampled")
JUDGE = "judge's "


def column_of(reward: str) -> str:
    """The column of a reward's scores."""
    return reward if reward == SELECTING else f"{SELECTING}_{reward}"


class Origins:
    """The sources of a comparison's tables, each identified once.

    - `folder`: the folder that holds the comparison.
    - `stored`: what each stored table comes from; `finished`: the tables that lack no rows. If a
      server cannot be reached and nothing more is needed of it, what it gave counts as its own.
    """

    def __init__(
        self,
        comparison: Comparison,
        stored: Mapping[str, Origin | None],
        finished: Iterable[str],
        folder: Path,
    ):
        self._folder = folder.absolute()
        self.comparison, self._stored, self._finished = comparison, stored, set(finished)
        self._parts: dict[tuple[str, str], Mapping[str, object]] = {}
        self._read: dict[tuple[str, str], Callable[[], Mapping[str, object]]] = {}

    def samples(self, name: str) -> Origin:
        """What the samples of one policy, their rewards and their KL come from."""
        comparison = self.comparison
        policy = self._policy(name)
        sources = {POLICY: policy}
        if name in comparison.policies and self._has_kl(name):
            parts = {f"reference's {k}": v for k, v in self._policy(REFERENCE).parts.items()}
            sources[KL] = Source({**parts, "number of samples": comparison.kl_samples})
        return Origin(self._settings(name), sources | self._rewards)

    def verdicts(self, stored: Origin | None, complete: bool) -> Origin:
        """What a judge's verdicts come from, beside what it reads.

        - `stored`: what stored verdicts come from; `complete`: whether none is missing.
        """
        comparison = self.comparison
        spec = comparison.judge or ""
        before = stored.sources[VERDICTS] if stored else None
        if before is not None:
            own = {k: part for k, part in before.parts.items() if k.startswith(JUDGE)}
            before = Source(own, spec=before.spec)

        def parts() -> dict[str, str]:
            own = judge_parts(spec, **comparison.loading)
            return {f"{JUDGE}{noun}": part for noun, part in own.items()}

        same = complete and before is not None and before.spec == spec
        judge = self._identified("The judge", Source({}, spec=spec), parts, before, same)
        settings = {
            "handling of unreadable replies": comparison.judge_unreadable,
            "maximum length of a reply": comparison.judge_max_new_tokens,
            "seed": comparison.seed,
        }
        return Origin({}, {VERDICTS: Source({**judge.parts, **settings}, spec=judge.spec)})

    def require_unchanged(self, spec: str) -> None:
        """DataError if a policy or reward in files has changed since it was identified: after it
        was loaded, what was loaded is then what was identified."""
        if ModelSpec.parse(spec).inner.kind == "server":
            return
        for (_, own), parts in self._read.items():
            if own in (spec, self._written(spec)) and parts() != self._parts[_, own]:
                raise DataError(
                    f"{spec} has changed while this command was running. Run it again when nothing "
                    "writes to it."
                )

    def _written(self, spec: str) -> str:
        """A specification as it is stored: without the folder that holds the comparison, which may
        be moved."""
        path = Path(spec).absolute()
        inside = ModelSpec.parse(spec).kind == "path" and path.is_relative_to(self._folder)
        return path.relative_to(self._folder).as_posix() if inside else spec

    def _settings(self, name: str) -> dict[str, object]:
        comparison = self.comparison
        seed = comparison.seeds.get(name, comparison.seed)
        return law({"sampling": comparison.sampling.model_dump(), "seed": seed})

    def _policy(self, name: str) -> Source:
        comparison = self.comparison
        spec = comparison.models[name]
        called = f"policies.{name}" if name in comparison.policies else REFERENCE
        what = f"The policy {name}" if name in comparison.policies else f"The {REFERENCE}"
        return self._identified(
            what,
            Source({}, called, self._written(spec)),
            partial(policy_parts, spec, what=what, **self.comparison.loading),
            *self._stored_source(POLICY, name),
        )

    @cached_property
    def _rewards(self) -> dict[str, Source]:
        sources = {}
        for reward, spec in self.comparison.rewards.items():
            name = reward if reward == SELECTING else f"gold.{reward}"
            what = "The reward" if reward == SELECTING else f"The gold reward {reward}"
            parts = partial(self._scored_by, spec, what)
            stored = self._stored_source(column_of(reward), *self.comparison.models)
            sources[column_of(reward)] = self._identified(
                what, Source({}, name, spec), parts, *stored
            )
        return sources

    def _scored_by(self, spec: str, what: str) -> dict[str, str]:
        """What determines the scores of a reward on the comparison's prompts."""
        # What it reads of a prompt beside the messages belongs to the rows (`rows.read_of`).
        return reward_parts(spec, what=what, **self.comparison.loading)

    def _stored_source(self, key: str, *names: str) -> tuple[Source | None, bool]:
        """The source that stored tables state under `key`, and whether all of the tables are
        finished and state the same."""
        origins = [self._stored.get(name) for name in names]
        sources = [origin.sources.get(key) if origin else None for origin in origins]
        known = [source for source in sources if source is not None]
        same = len(known) == len(names) and all(s.parts == known[0].parts for s in known)
        return (known[0] if known else None), same and self._finished.issuperset(names)

    def _identified(
        self,
        who: str,
        source: Source,
        parts: Callable[[], Mapping[str, object]],
        stored: Source | None,
        complete: bool,
    ) -> Source:
        """`source` with its parts.

        - `stored`: the source of stored rows; `complete`: whether nothing more is needed of it.
        """
        key = (source.name, source.spec)
        if key not in self._parts:
            self._read[key] = parts
            try:
                self._parts[key] = parts()
            except DataError as error:
                if stored is None:
                    raise
                named = source.name and not self.comparison.renews
                if named and stored.spec != source.spec:
                    self._parts[key] = {}  # another model of that name is refused as such
                elif complete and ModelSpec.parse(source.spec).inner.kind == "server":
                    LOG.warning(
                        "%s does not answer, so it is not known whether it has changed; what it "
                        "gave before is used. (%s)",
                        who,
                        error,
                    )
                    self._parts[key] = stored.parts
                else:
                    raise
        return Source(self._parts[key], source.name, source.spec)

    def _has_kl(self, name: str) -> bool:
        """Whether the KL is measured: policy and reference have logits."""
        if not self.comparison.kl_samples:
            return False
        specs = (self.comparison.reference, self.comparison.models[name])
        return all(ModelSpec.parse(spec).has_weights for spec in specs)


def digest(samples: PromptSamples) -> str:
    """Checksum of all responses, whatever the order of the prompts."""
    rows = dict(zip(samples.prompt_ids, samples.rows("completion"), strict=True))
    checksum = hashlib.sha256()
    for prompt_id in sorted(rows):
        checksum.update(json.dumps([prompt_id, rows[prompt_id]]).encode())
    return checksum.hexdigest()[:16]
