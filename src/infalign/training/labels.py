"""What the methods are called on a page, kept apart so that reading results needs no torch."""

LABELS = {
    "rloo": "InfAlign-CTRL",
    "group": "exact group objective",
    "identity": "RLHF on the calibrated reward",
    "rlhf": "RLHF on the raw reward",
    "vbon": "log-quantile reward (vBoN)",
    "pkpo": "max@k policy gradient (PKPO)",
    "rs-grpo": "exponential utility (RS-GRPO)",
}
"""Each method of `train.method`."""
