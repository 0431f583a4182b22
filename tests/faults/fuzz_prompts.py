"""Prompts files with odd bytes, rows and messages."""

import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

from .odd_values import damaged, scalar, text, value
from .outcomes import Verdict, judge
from .processes import infalign
from .world import World

SEPARATORS = ("\n", "\n", "\n", "\r\n", "\n\n", "\r", "\u2028", " ", "\n \n")


def prompts_file(world: World, rng: random.Random) -> Callable[[Path], Verdict]:
    """A prompts file of a few rows."""
    rows = [row(rng) for _ in range(rng.choice((1, 2, 3, 8)))]
    if rng.random() < 0.1:
        rows += rows[:1]
    lines = [line(own, rng) for own in rows]
    content = rng.choice(SEPARATORS).join(lines).encode(errors="surrogatepass")
    kind = rng.randrange(10)
    if kind < 3:
        content = damaged(content, rng)
    elif kind == 3:
        encoding = rng.choice(("utf-16", "utf-8-sig", "latin-1", "utf-32", "cp1252"))
        content = "\n".join(lines).encode(encoding, errors="replace")
    elif kind == 4:
        content = json.dumps(rows).encode()
    name = rng.choice(("p.jsonl",) * 6 + ("p.json", "p.jsonl.gz", "p.parquet", "p", "p.txt"))
    return partial(_try, world, content, name)


def row(rng: random.Random):
    """A row: mostly an object with a prompt, sometimes anything."""
    if rng.random() < 0.05:
        return value(rng)
    own = {"prompt": prompt(rng)}
    if rng.random() < 0.4:
        own["prompt_id"] = scalar(rng)
    if rng.random() < 0.2:
        own["split"] = rng.choice(("test", "train", *(scalar(rng),)))
    if rng.random() < 0.1:
        own[text(rng)] = value(rng)
    if rng.random() < 0.05:
        own["prompt_id"] = own.pop("prompt")
    return own


def prompt(rng: random.Random):
    """A text, messages, or nearly."""
    if (kind := rng.randrange(10)) < 4:
        return rng.choice(("ab", "cd", " ab ", "a\n", text(rng)))
    if kind < 8:
        return [message(rng) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
    return value(rng)


def message(rng: random.Random):
    """A chat message, or nearly."""
    own = {"role": rng.choice(("user", "user", "assistant", "system", "tool", scalar(rng)))}
    own["content"] = rng.choice(
        ("ab", "cd", text(rng), None, [{"type": "text", "text": "ab"}], value(rng))
    )
    if rng.random() < 0.1:
        own["tool_calls"] = value(rng)
    if rng.random() < 0.1:
        own.pop(rng.choice(sorted(own)))
    return own if rng.random() < 0.95 else value(rng)


def line(own, rng: random.Random) -> str:
    """A row as JSON; Python's writer gives NaN and lone surrogates too."""
    return json.dumps(own, ensure_ascii=rng.random() < 0.5)


def _try(world: World, content: bytes, name: str, scratch: Path) -> Verdict:
    path = scratch / name
    path.write_bytes(content)
    words = (
        *("sample", "--model", "model", "--procedure", "sampling", "--json", "--split", "test"),
        *("--max-new-tokens", "1", "--prompts", path),
    )
    ended = infalign(*words, setup=world.setup())
    return judge(ended, lambda: read_as_written(content, ended.stdout), names=names(path))


def names(path: Path) -> tuple[str, ...]:
    """What a message must name: the file, or the model that cannot read a prompt of it."""
    return (path.name, "model")


def read_as_written(content: bytes, printed: str) -> bool:
    """Whether the prompts of the output are those of the file, by an independent reading."""
    shown = [json.loads(own) for own in printed.split("\n") if own]
    try:
        rows = _rows(content.decode("utf-8-sig"))
    except ValueError:  # neither JSON nor JSON Lines
        return False
    rows = [own for own in rows if own.get("split", "test") in ("test", None)]
    if len(rows) != len(shown):
        return False
    return all(_same(own["prompt"], out["prompt"]) for own, out in zip(rows, shown, strict=True))


def _rows(text: str) -> list:
    """The rows of a JSON list, or of JSON Lines."""
    try:
        whole = json.loads(text)
    except ValueError:
        whole = None
    if isinstance(whole, list):
        return [{"prompt": own} if isinstance(own, str) else own for own in whole]
    return [json.loads(own) for own in text.split("\n") if own.strip()]


def _same(written, shown) -> bool:
    if isinstance(written, str):
        return written.strip() == str(shown).strip()
    # One message is printed as its text; the content of a part is the part's text.
    messages = [{"role": "user", "content": shown}] if isinstance(shown, str) else shown
    return len(messages) == len(written) and all(
        _text(m["content"]) == _text(own["content"])
        for m, own in zip(messages, written, strict=True)
    )


def _text(content) -> str:
    if isinstance(content, list):
        return "".join(part["text"] for part in content).strip()
    return "" if content is None else str(content).strip()
