"""What is compared: policies, procedures, rewards, and the prompts they meet on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from infalign.config import SamplingSettings
from infalign.decoding.answers import load_answers
from infalign.decoding.selection import Decoder, MajorityVote, parse_decoder, reads
from infalign.errors import ConfigError
from infalign.prompts import Prompt
from infalign.seeds import derived

REFERENCE = "reference"
CALIBRATION = "calibration"
"""Names that no policy may have: the reference's samples, and a second set of them by which
procedures that read calibrated rewards are calibrated."""

SELECTING = "reward"
"""The reward that procedures keep by; others judge what is kept."""


@dataclass(frozen=True)
class Comparison:
    """Policies against one reference, decoded in several ways and judged by several rewards."""

    reference: str
    """The reference policy, as `load_sampler` reads it."""

    policies: Mapping[str, str]
    """Name to folder, hub id or server of each policy."""

    reward: str
    """What procedures keep by: the reward of training, the proxy."""

    prompts: Sequence[Prompt]

    procedures: tuple[str, ...]
    """How policies are decoded; the first is the one that the verdict is on."""

    against: str | None = None
    """How the reference is decoded; as the policy unless given."""

    gold: Mapping[str, str] = field(default_factory=dict)
    """Name to reward of held-out rewards, which say what the kept responses are worth."""

    answers: str = "numeric"
    """How `majority-vote:N` finds the answer in a response, as `load_answers` reads it."""

    judge: str | None = None
    """Who compares kept responses pairwise, as `load_judge` reads it."""

    judge_pairs: int = 1
    """Pairs to each prompt and policy that the judge compares, under the first procedure."""

    sampling: SamplingSettings = field(default_factory=SamplingSettings)

    samples: int = 32
    """Responses to each prompt by each policy."""

    kl_samples: int = 8
    """Responses to each prompt on which the KL is measured, at most."""

    seed: int = 0
    trust_remote_code: bool = False

    def __post_init__(self):
        wrong = {REFERENCE, CALIBRATION} & self.policies.keys()
        if wrong:
            raise ConfigError(f"No policy can be called {wrong.pop()!r}: that is the reference's.")
        if SELECTING in self.gold:
            raise ConfigError(
                f"No gold reward can be called {SELECTING!r}: that is the reward kept by."
            )
        for name in (*self.policies, *self.gold):
            if not name.replace("-", "").replace("_", "").isalnum():
                raise ConfigError(
                    f"Policies and gold rewards become names of files and columns; {name!r} must "
                    "be letters, digits, - and _."
                )
        first = next(iter(self.pairs.values()))
        if self.judge and any(isinstance(p, MajorityVote) for p in first):
            raise ConfigError(
                "The judge compares what the first procedure keeps, and a majority vote is none "
                "that it can be shown pairs of. Name another procedure first."
            )
        for procedure, against in self.pairs.values():
            needed = max(procedure.draws, against.draws)
            if self.samples < needed:
                raise ConfigError(
                    f"`samples` is {self.samples}, fewer than the {needed} that "
                    f"{procedure.spec} draws; raise it, or use a smaller n."
                )

    @cached_property
    def pairs(self) -> dict[str, tuple[Decoder, Decoder]]:
        """Each procedure's spec to how the policy and how the reference are decoded."""
        answer = load_answers(self.answers)
        pairs = {}
        for spec in dict.fromkeys(self.procedures):
            procedure = parse_decoder(spec, answer)
            against = parse_decoder(self.against, answer) if self.against else procedure
            pairs[procedure.spec] = (procedure, against)
        return pairs

    @property
    def calibrated(self) -> bool:
        """Whether any procedure reads calibrated rewards."""
        return any(reads(p) == "quantiles" for pair in self.pairs.values() for p in pair)

    @property
    def models(self) -> dict[str, str]:
        """Name to model of every set of samples, the reference's first."""
        again = {CALIBRATION: self.reference} if self.calibrated else {}
        return {REFERENCE: self.reference, **again, **self.policies}

    @property
    def rewards(self) -> dict[str, str]:
        """Name to spec of every reward, the one that is kept by first."""
        return {SELECTING: self.reward, **self.gold}

    def sample_seed(self, name: str) -> int:
        """The seed of one policy's samples: independent streams from one seed."""
        return derived(self.seed, f"evaluate {name}")
