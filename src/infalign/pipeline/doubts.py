"""What makes a run's theory or training doubtful, known once its transform is designed."""

from collections.abc import Iterator

from infalign.core import design as exact_design
from infalign.methods import TrainingDesign
from infalign.shaping.doubts import few_samples
from infalign.stores import CalibrationStore

from .folder import Run

__all__ = ["doubts"]

MOST_TIES = 0.05
"""Probability of a tie above which the theory of continuous rewards does not hold."""

LARGE_LOSS = 0.03
"""Loss of win rate by few calibration samples above which more are advised."""


def doubts(run: Run, store: CalibrationStore, designed: TrainingDesign) -> Iterator[str]:
    """Warnings for the terminal and the report, a few sentences each."""
    tied = store.tied()
    if tied > MOST_TIES:
        yield (
            f"Two reference samples of a prompt have the same reward {tied:.0%} of the time: "
            "win rates that assume continuous rewards, such as design.json's and the "
            "frontier, do not hold. Tied rewards are trained on the transform's average over "
            "their quantiles; `infalign.verifiable` and `infalign.finite` give exact figures."
        )
    samples, draws = store.samples, run.procedure.draws
    if samples < draws:
        yield few_samples(samples, run.procedure)  # as training says it, which is then silent
    elif run.config.transform == "optimal":
        kl = designed.target_kl
        exact = exact_design(run.procedure, kl=kl, against=run.against).win_rate
        if exact - designed.win_rate > LARGE_LOSS:
            yield (
                f"K = {samples} calibration samples per prompt are few for {run.procedure.spec}: "
                f"in theory the best transform wins {designed.win_rate:.1%} with them and "
                f"{exact:.1%} with exact quantiles. Raise calibration.samples to {4 * samples} or "
                "more."
            )
