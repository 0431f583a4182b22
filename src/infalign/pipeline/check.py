"""One check before the first generation, and how all of them are made.

Checks that do not need one another are all made, so that one call reports every failure.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from infalign import storage
from infalign._look import Shown
from infalign.decoding.answers import load_answers
from infalign.decoding.selection import MajorityVote, try_vote
from infalign.errors import ArgumentError, ConfigError, DataError, InfalignError
from infalign.models.fingerprints import policy_parts
from infalign.models.functions import beside
from infalign.models.judges import load_judge, try_judge
from infalign.models.precision import Dtype
from infalign.models.rewards import load_reward
from infalign.models.specs import ModelSpec
from infalign.prompts import Prompt, try_out

__all__ = ["Check", "check", "on_responses", "server_of", "writable"]


@dataclass(frozen=True)
class Check(Shown):
    """One check of a run."""

    name: str
    """What is checked, as `--dry-run` lists it."""

    make: Callable[[], Any]
    """Raises an error of this package that says what is wrong."""

    needs: tuple[str, ...] = ()
    """Names of the checks without which it cannot be made."""


def check(checks: Sequence[Check], folder: Path | None = None) -> list[str]:
    """Make all checks; the names of those that passed.

    - `folder`: where Python functions are looked for first. Default: as around the call.

    Raises the error of the check that failed. If several did, raises one error with all of their
    messages: ConfigError if the configuration causes them all, else DataError.
    """
    passed: list[str] = []
    errors: list[Exception] = []
    with beside(folder) if folder is not None else nullcontext():
        for one in checks:
            if not set(one.needs) <= set(passed):
                continue
            try:
                one.make()
            except (InfalignError, ArgumentError) as error:
                if str(error) not in map(str, errors):  # a model may be both policy and reference
                    errors.append(error)
            else:
                passed.append(one.name)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        kind = ConfigError if all(isinstance(e, ConfigError) for e in errors) else DataError
        listed = "\n".join(f"{number}. {error}" for number, error in enumerate(errors, 1))
        raise kind(f"{len(errors)} things must be mended before the run can begin:\n{listed}")
    return passed


def on_responses(
    reward: str | None,
    gold: Mapping[str, str],
    judge: str | None,
    answers: str,
    asked: Callable[[], Sequence[Prompt]],
    *,
    dtype: Dtype,
    trust_remote_code: bool,
    weights: bool = True,
    inspected: bool = False,
) -> Iterator[Check]:
    """Rewards, judge and answers, called once on two responses that no model wrote.

    - `asked`: returns prompts; the first and the last are used.
    - `weights`: whether rewards that are models are loaded too.
    - `inspected`: whether other checks inspect them first.
    """

    def rewarded(spec: str) -> None:
        try_out(load_reward(spec, dtype=dtype, trust_remote_code=trust_remote_code), asked())

    def judged(spec: str) -> None:
        prompt = asked()[-1]
        chosen = load_judge(spec, dtype=dtype, trust_remote_code=trust_remote_code)
        try_judge(chosen, prompt.value, {"prompt_id": prompt.id, **prompt.columns})

    def answered() -> None:
        try_vote(MajorityVote(1, load_answers(answers)))

    own = {f"gold reward {name}": spec for name, spec in gold.items()}
    for what, spec in ({} if reward is None else {"reward": reward} | own).items():
        if weights or ModelSpec.parse(spec).kind in ("python", "server"):
            needs = (what,) if inspected else ()
            yield Check(f"{what} on two responses", partial(rewarded, spec), needs)
    if judge is not None and ModelSpec.parse(judge).kind == "python":
        yield Check(
            "judge on two responses", partial(judged, judge), ("judge",) if inspected else ()
        )
    if ModelSpec.parse(answers).kind == "python":
        yield Check("answers of two responses", answered)


def server_of(what: str, spec: str, *needs: str) -> Iterator[Check]:
    """Whether the server of a policy answers a probe, if it is on one.

    - `what`: the policy, in the name of the check.
    """
    if ModelSpec.parse(spec).kind == "server":
        yield Check(f"server of the {what}", partial(policy_parts, spec), needs)


def writable(path: Path, *, file: bool = False) -> Check:
    """Whether results can be written to a folder or, with `file`, to a file."""
    return Check("place of the results", partial(storage.require_writable, path, file=file))
