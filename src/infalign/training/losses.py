"""Losses of offline methods, from log-ratios log π/π_ref of stored responses.

All are means over rows. Log-ratios are sums over the tokens of a response, never averages: an
average is another objective, which forgives long responses their KL.
"""

import math

import torch
from torch.nn.functional import logsigmoid


def tilt_loss(log_ratio: torch.Tensor, weight: torch.Tensor, largest: float) -> torch.Tensor:
    """Mean of ρ − w log ρ over samples of the reference; least, at w − w log w, where ρ = w.

    With w = dπ*/dπ_ref it is KL(π* ‖ π) plus a constant: E[ρ] = 1 added to the weighted likelihood
    leaves the objective as it is, but makes the gradient of every sample, (ρ − w) ∇ log π, vanish
    at the solution instead of only averaging to zero there.

    - `largest`: the greatest w of all samples. Beyond it, where no policy should be, ρ goes on as
      its tangent in log ρ: a few samples that a step has made e⁵ times as likely would decide the
      next ones alone.
    """
    top = math.log(largest)
    ratio = log_ratio.clamp(max=top).exp() + largest * (log_ratio - top).relu()
    return (ratio - weight * log_ratio).mean()


def regression_loss(
    log_ratio: torch.Tensor, log_weight: torch.Tensor, balance: float
) -> torch.Tensor:
    """Mean of v (log w − log ρ)², where log w = Φ/β − log Z, its Z known exactly (QRPO,
    arXiv:2507.08068, for any transform).

    - `balance`: v = 1 − balance + balance w. 0 weighs samples as the reference draws them, as in
      the paper; 1 as the tilt does. Spiky transforms say nothing under the reference: their few
      high weights are a few rows of many.
    """
    v = 1 - balance + balance * log_weight.exp()
    return (v * (log_weight - log_ratio) ** 2).mean()


def ipo_loss(chosen: torch.Tensor, rejected: torch.Tensor, tau: float) -> torch.Tensor:
    """Mean of (h − 1/2τ)², h the difference of log-ratios (IPO, Azar et al., arXiv:2310.12036,
    eq. 17): its optimum is π ∝ π_ref e^{C/τ}, the calibrated reward."""
    return ((chosen - rejected - 0.5 / tau) ** 2).mean()


def dpo_loss(chosen: torch.Tensor, rejected: torch.Tensor, beta: float) -> torch.Tensor:
    """Mean of −log σ(β h) (DPO, Rafailov et al., arXiv:2305.18290, eq. 7)."""
    return -logsigmoid(beta * (chosen - rejected)).mean()


def bonbon_loss(
    best: torch.Tensor, worst: torch.Tensor, logprob: torch.Tensor, n: int, alpha: float
) -> torch.Tensor:
    """α times the likelihood of the best of n, 1 − α times (h − 1/2β_n)² of best and worst of n
    (BonBon, Gui et al., arXiv:2406.00832): both have the best-of-n distribution as their optimum.

    - `logprob`: log π of the best.
    """
    return -alpha * logprob.mean() + (1 - alpha) * ((best - worst - bonbon_margin(n)) ** 2).mean()


def bonbon_margin(n: int) -> float:
    """1/2β_n = (n − 1) Σ_{k<n} 1/k: log-ratio of the best-of-n distribution at the best of n less
    that at the worst, on average."""
    return (n - 1) * sum(1 / k for k in range(1, n))
