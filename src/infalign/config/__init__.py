"""The configuration of a run: one schema, from which help, docs and error messages come."""

from .help import describe
from .load import load_config, parse_config, read_section, require_trust
from .schema import (
    Calibration,
    Config,
    Evaluation,
    EvaluationPrompts,
    Listed,
    Prompts,
    SamplingSettings,
    Section,
    Training,
)

__all__ = [
    "Calibration",
    "Config",
    "Evaluation",
    "EvaluationPrompts",
    "Listed",
    "Prompts",
    "SamplingSettings",
    "Section",
    "Training",
    "describe",
    "load_config",
    "parse_config",
    "read_section",
    "require_trust",
]
