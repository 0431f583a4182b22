"""Prompts, from JSON Lines, Parquet, or a dataset on the Hugging Face Hub."""

from .load import load_prompts
from .prompt import Prompt, fingerprint

__all__ = ["Prompt", "fingerprint", "load_prompts"]
