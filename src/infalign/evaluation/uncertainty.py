"""Standard errors and intervals, clustered by prompt.

Samples of one prompt share its difficulty, so the prompt is the unit: the estimate is a mean over
prompts, its error the spread between them.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.special import stdtrit


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts with its 95 % interval."""

    value: float
    stderr: float
    """Standard error of `value`; nan with a single prompt."""

    low: float
    high: float
    per_prompt: np.ndarray = field(repr=False)
    """The estimate of each prompt, shape (prompts,)."""

    def __str__(self):
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def over_prompts(per_prompt: np.ndarray, *, level: float = 0.95) -> Estimate:
    """Mean of independent per-prompt values, with a Student-t interval of P − 1 degrees.

    A single prompt gives nan for the error and the interval: one cluster says nothing of others.
    """
    per_prompt = np.asarray(per_prompt, float)
    prompts = per_prompt.size
    value = float(per_prompt.mean())
    if prompts < 2:
        return Estimate(value, float("nan"), float("nan"), float("nan"), per_prompt)
    stderr = float(per_prompt.std(ddof=1) / np.sqrt(prompts))
    reach = float(stdtrit(prompts - 1, (1 + level) / 2)) * stderr
    return Estimate(value, stderr, value - reach, value + reach, per_prompt)
