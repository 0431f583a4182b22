"""The definition of a comparison: policies, procedures, rewards and prompts."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from infalign import _check
from infalign._look import Shown
from infalign.config import SamplingSettings
from infalign.core import AbstractProcedure
from infalign.decoding.answers import load_answers
from infalign.decoding.selection import Decoder, MajorityVote, parse_decoder, reads
from infalign.errors import ConfigError
from infalign.models.precision import Dtype
from infalign.prompts import Prompt
from infalign.seeds import derived

__all__ = ["Comparison", "theory_pairs"]

REFERENCE = "reference"
CALIBRATION = "calibration"
"""Reserved names: the reference's samples, and a second set of reference samples, which calibrates
rewards for procedures that read calibrated rewards."""

JUDGED = "judge-"
"""The files of verdicts are called by this and the name of their policy."""

LONGEST = 100
"""Maximum number of characters in a name: file systems allow 255 bytes for that of a file."""

SELECTING = "reward"
"""The reward that procedures select by; the others judge the selected responses."""


@dataclass(frozen=True)
class Comparison(Shown):
    """Policies against one reference, decoded in several ways and judged by several rewards."""

    reference: str
    """The reference policy, a specification for `load_sampler`."""

    policies: Mapping[str, str]
    """Name → specification of each policy, for `load_sampler`."""

    reward: str
    """The reward that procedures select by: that of training, the proxy."""

    prompts: Sequence[Prompt]
    """The held-out prompts that all policies answer."""

    procedures: tuple[str, ...]
    """How policies are decoded; the first is the main procedure."""

    against: str | None = None
    """How the reference is decoded. Default: like the policy."""

    gold: Mapping[str, str] = field(default_factory=dict)
    """Name → specification of held-out rewards, which judge the selected responses."""

    answers: str = "numeric"
    """How `majority-vote:N` extracts answers, a specification for `load_answers`."""

    judge: str | None = None
    """The judge that compares selected responses pairwise, a specification for `load_judge`."""

    judge_pairs: int = 1
    """Pairs per prompt and policy that the judge compares, under the first procedure."""

    judge_max_new_tokens: int = 256
    """Maximum length of a judge's reply, in tokens."""

    judge_unreadable: Literal["error", "missing"] = "error"
    """What two unreadable replies of a judge are, as in `ModelJudge`."""

    sampling: SamplingSettings = field(default_factory=SamplingSettings)

    samples: int = 32
    """Responses per prompt and policy."""

    kl_samples: int = 8
    """Maximum number of responses per prompt used to measure the KL; 0 measures none."""

    seed: int = 0
    seeds: Mapping[str, int] = field(default_factory=dict)
    """Name → seed of the samples of policies that do not use `seed`."""

    dtype: Dtype = "auto"
    """Precision of policies and rewards, as `precision_of` reads it."""

    trust_remote_code: bool = False

    renews: bool = False
    """Whether other settings, and other models under the same name, take the place of those that
    stored samples come from. Otherwise they are refused."""

    @property
    def loading(self) -> dict[str, Any]:
        """How policies and rewards are loaded, as arguments of `load_sampler` and the like."""
        return {"dtype": self.dtype, "trust_remote_code": self.trust_remote_code}

    def __post_init__(self):
        self._check_names()
        first = next(iter(self.pairs.values()))
        if self.judge and any(isinstance(p, MajorityVote) for p in first):
            raise ConfigError(
                "The judge compares pairs that the first procedure selects, which a majority vote "
                "does not define. Name another procedure first."
            )
        for procedure, against in self.pairs.values():
            needed = max(procedure.draws, against.draws)
            if self.samples < needed:
                raise ConfigError(
                    f"`samples` is {self.samples}, fewer than the {needed} that "
                    f"{procedure.spec} draws; raise it, or use a smaller n."
                )

    def _check_names(self) -> None:
        """ConfigError for names that cannot be those of files and columns."""
        for name in (*self.policies, *self.gold):
            if not name.replace("-", "").replace("_", "").isalnum() or len(name) > LONGEST:
                raise ConfigError(
                    f"Policies and gold rewards name files and columns; {_check.short(name)} must "
                    f"consist of letters, digits, - and _, at most {LONGEST}."
                )
        if SELECTING in self.gold:
            raise ConfigError(
                f"No gold reward can be called {SELECTING!r}: procedures select by that reward."
            )
        files = {name: name for name in (REFERENCE, CALIBRATION)}
        for name in self.policies:
            # Some file systems ignore case, and some write é in two characters.
            file = unicodedata.normalize("NFC", name).casefold()
            if file.startswith(JUDGED):
                raise ConfigError(
                    f"No policy can be called {name!r}: a name that begins with {JUDGED} is that "
                    "of a file with the judge's verdicts. Give it another name."
                )
            other = files.setdefault(file, name)
            if other in (REFERENCE, CALIBRATION):
                raise ConfigError(f"No policy can be called {name!r}: the {other} has that name.")
            if other != name:
                raise ConfigError(
                    f"Policies {other!r} and {name!r} would share a file where the file system "
                    "ignores the difference of their names. Give one another name."
                )

    @cached_property
    def pairs(self) -> dict[str, tuple[Decoder, Decoder]]:
        """Spec of each procedure → how the policy and the reference are decoded."""
        answer = load_answers(self.answers)
        pairs = {}
        for spec in dict.fromkeys(self.procedures):
            procedure = parse_decoder(spec, answer)
            against = parse_decoder(self.against, answer) if self.against else procedure
            pairs[procedure.spec] = (procedure, against)
        return pairs

    @cached_property
    def theory_pairs(self) -> dict[str, tuple[AbstractProcedure, AbstractProcedure]]:
        """The pairs with win rates in theory."""
        return theory_pairs(self.pairs)

    @property
    def calibrated(self) -> bool:
        """Whether any procedure reads calibrated rewards."""
        return any(reads(p) == "quantiles" for pair in self.pairs.values() for p in pair)

    @property
    def models(self) -> dict[str, str]:
        """Name → policy of every set of samples, starting with the reference's."""
        again = {CALIBRATION: self.reference} if self.calibrated else {}
        return {REFERENCE: self.reference, **again, **self.policies}

    @property
    def rewards(self) -> dict[str, str]:
        """Name → specification of every reward, starting with the reward that procedures select
        by."""
        return {SELECTING: self.reward, **self.gold}

    def sample_seed(self, name: str) -> int:
        """The seed of one set of samples; different sets get independent streams."""
        return derived(self.seeds.get(name, self.seed), f"evaluate {name}")


def theory_pairs(
    pairs: Mapping[str, tuple[Decoder, Decoder]],
) -> dict[str, tuple[AbstractProcedure, AbstractProcedure]]:
    """Those of the pairs that have win rates in theory, on the quantile axis: all but majority
    votes."""
    return {
        spec: (procedure, against)
        for spec, (procedure, against) in pairs.items()
        if isinstance(procedure, AbstractProcedure) and isinstance(against, AbstractProcedure)
    }
