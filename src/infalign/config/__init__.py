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
from .study import Cell, Grid, Study, StudyTask, load_study, read_study

__all__ = [
    "Calibration",
    "Cell",
    "Config",
    "Evaluation",
    "EvaluationPrompts",
    "Grid",
    "Listed",
    "Prompts",
    "SamplingSettings",
    "Section",
    "Study",
    "StudyTask",
    "Training",
    "describe",
    "load_config",
    "load_study",
    "parse_config",
    "read_section",
    "read_study",
    "require_trust",
]
