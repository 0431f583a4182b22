"""Losses of offline methods, from log-ratios log π/π_ref of stored responses.

All losses are means over rows. Log-ratios are sums over the tokens of a response, never averages:
an average would be a different objective, in which KL is cheaper for long responses.
"""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["bonbon_loss", "bonbon_margin", "dpo_loss", "ipo_loss", "regression_loss", "tilt_loss"]


def tilt_loss(log_ratio: "Tensor", weight: "Tensor", largest: float) -> "Tensor":
    """Mean of ρ − w log ρ over samples of the reference. The minimum, w − w log w, is at ρ = w.

    With w = dπ*/dπ_ref it is KL(π* ‖ π) plus a constant. E[ρ] = 1 is added to the weighted
    likelihood: the objective stays the same, but the gradient of every sample, (ρ − w) ∇ log π,
    vanishes at the solution instead of only averaging to zero there.

    - `largest`: the largest w of all samples. Beyond it, where no policy should be, ρ is replaced
      by its tangent in log ρ. Otherwise a few samples that one step made e⁵ times as likely would
      dominate the next steps.
    """
    top = math.log(largest)
    ratio = log_ratio.clamp(max=top).exp() + largest * (log_ratio - top).relu()
    return (ratio - weight * log_ratio).mean()


def regression_loss(log_ratio: "Tensor", log_weight: "Tensor", balance: float) -> "Tensor":
    """Mean of v (log w − log ρ)², where log w = Φ/β − log Z with Z known exactly (QRPO,
    arXiv:2507.08068, for any transform).

    - `balance`: v = 1 − balance + balance w. 0 weights samples as the reference draws them, as in
      the paper; 1 weights them like the tilt. A spiky transform needs a value above 0, because only
      a few of its rows have large weights.
    """
    v = 1 - balance + balance * log_weight.exp()
    return (v * (log_weight - log_ratio) ** 2).mean()


def ipo_loss(chosen: "Tensor", rejected: "Tensor", tau: float) -> "Tensor":
    """Mean of (h − 1/2τ)², where h is the difference of log-ratios (IPO, Azar et al.,
    arXiv:2310.12036, eq. 17): its optimum is π ∝ π_ref e^{C/τ}, with C the calibrated reward."""
    return ((chosen - rejected - 0.5 / tau) ** 2).mean()


def dpo_loss(chosen: "Tensor", rejected: "Tensor", beta: float) -> "Tensor":
    """Mean of −log σ(β h) (DPO, Rafailov et al., arXiv:2305.18290, eq. 7)."""
    from torch.nn.functional import logsigmoid

    return -logsigmoid(beta * (chosen - rejected)).mean()


def bonbon_loss(
    best: "Tensor", worst: "Tensor", logprob: "Tensor", n: int, alpha: float
) -> "Tensor":
    """−α log π of the best of n, plus 1 − α times (h − 1/2β_n)² of the best and worst of n (BonBon,
    Gui et al., arXiv:2406.00832). The optimum of both terms is the best-of-n distribution.

    - `logprob`: log π of the best.
    """
    return -alpha * logprob.mean() + (1 - alpha) * ((best - worst - bonbon_margin(n)) ** 2).mean()


def bonbon_margin(n: int) -> float:
    """1/2β_n = (n − 1) Σ_{k<n} 1/k: the mean difference between the best-of-n distribution's
    log-ratios at the best and at the worst of n."""
    return (n - 1) * sum(1 / k for k in range(1, n))
