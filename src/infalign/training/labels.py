"""What the methods are called on a page, kept apart so that reading results needs no torch."""

LABELS = {
    "rloo": "InfAlign-CTRL",
    "grpo": "InfAlign-CTRL, by GRPO",
    "group": "exact group objective",
    "identity": "RLHF on the calibrated reward",
    "rlhf": "RLHF on the raw reward",
    "vbon": "log-quantile reward (vBoN)",
    "pkpo": "max@k policy gradient (PKPO)",
    "rs-grpo": "exponential utility (RS-GRPO)",
    "likelihood": "likelihood weighted by the tilt",
    "regression": "regression on the tilt",
    "qrpo": "quantile regression (QRPO)",
    "ipo": "IPO",
    "dpo": "DPO",
    "bonbon": "best-of-n likelihood and IPO (BonBon)",
}
"""Each method of `train.method`."""
