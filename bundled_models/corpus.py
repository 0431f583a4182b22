"""Dialogues and preference pairs for the bundled models, from a folder or from the hub.

A hash of its first human message decides whether a conversation is held out, so that a question is
never on both sides, whichever file it came from.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

TURN = re.compile(r"\n\n(Human|Assistant): ?")


@dataclass(frozen=True)
class Pair:
    """One human comparison: the same conversation continued in two ways."""

    turns: tuple[str, ...]
    """The conversation so far, human and assistant in alternation, ending with the human."""

    chosen: str
    rejected: str


def split_turns(prompt: str) -> tuple[str, ...]:
    """The messages of a `\\n\\nHuman: … \\n\\nAssistant:` transcript, without the open last one."""
    parts = TURN.split(prompt)[1:]  # role, text, role, text, …, "Assistant", ""
    roles, texts = parts[::2], [text.strip() for text in parts[1::2]]
    expected = ["Human", "Assistant"] * (len(roles) // 2)
    return tuple(texts[:-1]) if roles == expected and all(texts[:-1]) else ()


def bucket(first_message: str) -> int:
    """A stable number from 0 to 9; 0 is held out of language modeling, 0 and 1 of rewards."""
    return int(hashlib.sha256(first_message.strip().lower().encode()).hexdigest(), 16) % 10


def load_pairs(kind: str, data: Path | None) -> list[Pair]:
    """HH pairs of one `kind` (`helpful` or `harmless`), from `data` or from the hub."""
    if data is None:
        from datasets import load_dataset

        rows = load_dataset("Anthropic/hh-rlhf", data_dir=f"{kind}-base", split="train")
        marker = "\n\nAssistant:"
        rows = [
            {
                "prompt": row["chosen"][: row["chosen"].rindex(marker) + len(marker)],
                "chosen": row["chosen"].rpartition(marker)[2],
                "rejected": row["rejected"].rpartition(marker)[2],
            }
            for row in rows
        ]
    else:
        rows = pq.read_table(data / f"preferences/hh_{kind}_base_test.parquet").to_pylist()
    pairs = (
        Pair(split_turns(row["prompt"]), row["chosen"].strip(), row["rejected"].strip())
        for row in rows
    )
    return [p for p in pairs if p.turns and p.chosen and p.rejected and p.chosen != p.rejected]


def load_dialogues(data: Path | None) -> list[tuple[str, ...]]:
    """Whole conversations: HH with each reply, and whatever else assistants wrote in `data`."""
    dialogues = [
        (*pair.turns, reply)
        for kind in ("helpful", "harmless")
        for pair in load_pairs(kind, data)
        for reply in (pair.chosen, pair.rejected)
    ]
    if data is None:
        return dialogues
    for row in _rows(data / "preferences/bonbon_hh_prompts.parquet"):
        dialogues.append(split_turns(row["Prompt"])[:-1])
    samples = data / "samples/rewardbench_bon16"
    questions = {r["prompt_id"]: r["instruction"] for r in _rows(samples / "prompts.parquet")}
    for row in _rows(samples / "samples.parquet"):
        dialogues.append((questions[row["prompt_id"]].strip(), row["output"].strip()))
    return [d for d in dialogues if len(d) >= 2 and all(d)]


def load_prose(data: Path | None) -> list[str]:
    """Plain text that teaches fluency before dialogue does; none from the hub."""
    if data is None:
        return []
    posts = _rows(data / "preferences/tldr_oai1b_judged.parquet")
    stories = _rows(data / "text/tinystories.parquet")
    return [r["prompt"].strip() for r in posts] + [r["text"].strip() for r in stories]


def exchanges(dialogues: list[tuple[str, ...]]) -> list[tuple[str, str]]:
    """Each distinct (message, reply) of the dialogues on its own, short openings left out."""
    seen = {}
    for turns in dialogues:
        for message, reply in zip(turns[::2], turns[1::2], strict=False):
            if len(message.split()) >= 3:
                seen[message, reply] = None
    return list(seen)


def whole_sentences(reply: str, fits) -> str:
    """The longest run of leading sentences of `reply` for which `fits(text)` holds, or ''."""
    ends = [m.end() for m in re.finditer(r"[.!?…][\"”’)]*(?=\s|$)", reply)]
    return next((reply[:end] for end in reversed(ends) if fits(reply[:end])), "")


def _rows(path: Path) -> list[dict]:
    return pq.read_table(path).to_pylist() if path.exists() else []
