"""Prompts, from files, folders, or a dataset on the Hugging Face Hub."""

from .held_out import RunPrompts, held_out, run_prompts
from .load import load_prompts, require_readable
from .prompt import CHECKSUM, Prompt, checksum, columns_fingerprint, fingerprint, read_by
from .scoring import call_arguments, require_scorable, score_responses, try_out

__all__ = [
    "CHECKSUM",
    "Prompt",
    "RunPrompts",
    "call_arguments",
    "checksum",
    "columns_fingerprint",
    "fingerprint",
    "held_out",
    "load_prompts",
    "read_by",
    "require_readable",
    "require_scorable",
    "run_prompts",
    "score_responses",
    "try_out",
]
