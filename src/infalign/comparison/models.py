"""Checks of a comparison's models before the first sample is drawn."""

from collections.abc import Mapping

from infalign.models.inspection import inspect_judge, inspect_kl, inspect_policy, inspect_reward

from .comparison import SELECTING, Comparison

__all__ = ["inspect_models"]


def inspect_models(comparison: Comparison, policies: Mapping[str, str] | None = None) -> None:
    """Raises DataError if a model, a reward or the judge cannot be what it is asked to be.

    Weights are not loaded, and servers are not contacted.

    - `policies`: the policies that exist already. Default: all.
    """
    policies = comparison.policies if policies is None else policies
    remote, reference = comparison.trust_remote_code, comparison.reference
    prompts = [p.messages for p in comparison.prompts]
    for name, spec in {"The reference": reference, **_named("policy", policies)}.items():
        inspect_policy(
            spec,
            trust_remote_code=remote,
            conversations=prompts,
            keys=[p.id for p in comparison.prompts],
            max_new_tokens=comparison.sampling.max_new_tokens,
            what=name,
        )
    golds = {name: spec for name, spec in comparison.rewards.items() if name != SELECTING}
    columns = {name for p in comparison.prompts for name in p.columns}
    for name, spec in {"The reward": comparison.reward, **_named("gold reward", golds)}.items():
        inspect_reward(
            spec, trust_remote_code=remote, conversations=prompts, columns=columns, what=name
        )
    if comparison.judge:
        inspect_judge(comparison.judge, trust_remote_code=remote, columns=columns)
    if comparison.kl_samples:
        for spec in policies.values():
            inspect_kl(spec, reference, trust_remote_code=remote)


def _named(kind: str, specs: Mapping[str, str]) -> dict[str, str]:
    return {f"The {kind} {name}": spec for name, spec in specs.items()}
