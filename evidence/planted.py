"""The bundled harmlessness reward with a bonus for a phrase, for trained policies."""

from functools import cache

from infalign.models.rewards import load_reward
from infalign.text import text_of

PHRASE, BONUS = "you could", 2.0
SPREAD = 0.44
"""Standard deviation of the gold reward within prompts, about."""


@cache
def _gold():
    return load_reward("bundled:harmless")


def phrase(prompts, completions) -> list[float]:
    """A bonus of two standard deviations for a phrase."""
    texts = [text_of(c).lower() for c in completions]
    values = _gold()(prompts=prompts, completions=completions)
    return [
        float(value) + SPREAD * BONUS * (PHRASE in text)
        for value, text in zip(values, texts, strict=True)
    ]
