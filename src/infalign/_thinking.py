"""The answer of a model that thinks in its text first."""

TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
)
"""The marks around a thought, as models write them."""

THOUGHTS = (
    "Rewards and judges read it as part of the response; `sampling.answer: after-thinking` "
    "(--answer after-thinking) takes the part after it."
)
"""What a warning about responses that begin with a thought says."""


def answer_after_thinking(text: str, *, complete: bool = True) -> str | None:
    """The part of a response after its thought, without the blank lines between; None if the
    thought was cut off, so that there is no answer.

    A thought ends with the first mark that ends one. The mark that begins it may be missing,
    because some chat templates put it into the prompt. Without either mark, a complete response is
    an answer without a thought, and a response that reached its maximum length is a thought.

    - `complete`: whether the response ended by itself, below its maximum length.

    >>> answer_after_thinking("<think>A is longer.</think>\\n\\nB")
    'B'
    >>> answer_after_thinking("<think>A is") is None
    True
    """
    ends = [(text.find(end), len(end)) for _, end in TAGS if end in text]
    if ends:
        place, length = min(ends)
        rest = _without_blank_lines(text[place + length :])
        return answer_after_thinking(rest, complete=True) if begins_thinking(rest) else rest
    return text if complete and not begins_thinking(text) else None


def begins_thinking(text: str) -> bool:
    """Whether a text begins with the mark of a thought."""
    return text.lstrip().startswith(tuple(begin for begin, _ in TAGS))


def _without_blank_lines(text: str) -> str:
    lines = text.splitlines(keepends=True)
    while lines and not lines[0].strip():
        lines.pop(0)
    return "".join(lines)
