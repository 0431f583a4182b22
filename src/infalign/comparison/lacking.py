"""What a comparison has yet to draw, to score and to judge."""

from dataclasses import dataclass

from infalign._look import Shown
from infalign.manifest import Manifest

from .comparison import Comparison
from .measured import Measured
from .origins import KL, Origins
from .sampling import table_of
from .verdicts import pending

__all__ = ["Lacking", "lacking"]


@dataclass(frozen=True)
class Lacking(Shown):
    """Numbers of what is missing from the folder of a comparison."""

    responses: int
    """Responses to draw; each reward scores them."""

    scored: int
    """Scores of stored responses by rewards that are new or have changed."""

    kl: int
    """Responses whose KL is measured, at most."""

    pairs: int
    """Pairs that the judge compares; at most, where samples are missing, on which pairs depend."""


def lacking(comparison: Comparison, manifest: Manifest, origins: Origins) -> Lacking:
    """What a comparison has yet to do. Nothing is written.

    - `origins`: what its samples come from.
    """
    prompts, responses, scored, kl = len(comparison.prompts), 0, 0, 0
    exact = True
    for name in comparison.models:
        table, wanted = table_of(comparison, manifest, name), origins.samples(name)
        stored = table.origin()
        changed, drawn, again = table.needed(wanted)
        responses, scored = responses + drawn, scored + again
        exact = exact and table.is_exact() and not (changed or drawn or again)
        if KL in wanted.sources:
            known = stored is not None and KL in stored.sources and not changed
            if drawn or not known or (stored is not None and stored.changes(wanted).get(KL)):
                kl += prompts * min(comparison.kl_samples, comparison.samples)
    pairs = 0
    if comparison.judge is not None:
        pairs = len(comparison.policies) * prompts * comparison.judge_pairs
        if exact:
            pairs = sum(pending(Measured(comparison, manifest), origins).values())
    return Lacking(responses, scored, kl, pairs)
