"""What the methods are called on a page, kept apart so that reading results needs no torch."""

LABELS = {"rloo": "InfAlign-CTRL", "rlhf": "RLHF on the raw reward"}
