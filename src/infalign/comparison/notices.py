"""What a comparison's results do not show: constant rewards, responses without an answer, and
prompts that repeat others."""

import json
from collections.abc import Iterator

from infalign._thinking import THOUGHTS, begins_thinking
from infalign.decoding.selection import MajorityVote
from infalign.shaping import constant

from .comparison import REFERENCE
from .measured import Measured

__all__ = ["notices"]


def notices(measured: Measured) -> Iterator[str]:
    """Warnings about the samples of a comparison, one sentence or two each."""
    comparison = measured.comparison
    asked = [json.dumps(prompt.messages) for prompt in comparison.prompts]
    if again := len(asked) - len(set(asked)):
        yield (
            f"{again} of {len(asked)} prompts repeat another one under another id. Intervals take "
            "them for different prompts, and are too narrow. Keep every prompt once, and draw more "
            "samples."
        )
    names = [REFERENCE, *comparison.policies]
    texts = [text for name in names for text in measured.texts(name).ravel()]
    for reward, spec in comparison.rewards.items():
        rewards = [value for name in names for value in measured.rewards(name, reward).ravel()]
        warning = constant(spec, rewards, texts)
        if warning is not None:
            yield warning
    if comparison.sampling.answer == "whole":
        for name in names:
            drawn = measured.texts(name).ravel()
            thoughts = sum(map(begins_thinking, drawn))
            if thoughts:
                count = f"{thoughts} of {len(drawn)} responses"
                yield f"{name}: {count} begin with a thought. {THOUGHTS}"
    votes = [p for pair in comparison.pairs.values() for p in pair if isinstance(p, MajorityVote)]
    if votes:
        for name in names:
            answers = measured.read_by(votes[0], name).ravel()
            silent = sum(answer is None or answer != answer for answer in answers)
            if silent:
                yield (
                    f"{name}: {silent} of {len(answers)} responses have no answer and do not vote "
                    f"({comparison.answers})."
                )
