"""`infalign store`: the contents of a calibration store."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from infalign._check import visible

from .terminal import console, print_json
from .usage import Command

app = typer.Typer(
    no_args_is_help=True,
    help="Show, check, merge, export and import calibration stores.\n\n"
    "Example: infalign store show runs/demo/calibration",
)

Folder = Annotated[Path, typer.Argument(help="Folder of the store, such as runs/mine/calibration.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
FIRST = ("model", "reward", "sampling", "samples", "seed", "tokenizer", "chat_template", "prompts")

DIGEST, SHOWN = re.compile(r"\b[0-9a-f]{24,}\b"), 12
"""Fingerprints, and the number of characters shown of each. --json shows all characters."""

HELP = (
    "Show a store's prompts, samples, size and provenance.\n\n"
    "Example: infalign store show runs/demo/calibration"
)


@app.command(cls=Command, help=HELP)
def show(folder: Folder, as_json: AsJson = False):
    from infalign.stores.manifest import held, read_manifest

    manifest = read_manifest(folder)
    shards = [*manifest["rewards"], *manifest["samples"]]
    facts = {
        "prompts": held(manifest),
        "of": manifest["prompts"],
        "rewards": sum(s["values"] for s in manifest["rewards"]),
        "with_texts": bool(manifest["samples"]),
        "bytes": sum(s["bytes"] for s in shards),
        "shards": len(shards),
        "packages": manifest["packages"],
        "provenance": manifest["provenance"],
    }
    if as_json:
        print_json(facts)
        return
    unfinished = facts["prompts"] < facts["of"]
    per_prompt = facts["bytes"] / max(facts["prompts"], 1)
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("holds", held_in(folder))
    table.add_row("state", f"unfinished, of {facts['of']:,} prompts" if unfinished else "finished")
    table.add_row(
        "on disk", f"{facts['bytes']:,} bytes, {per_prompt:,.0f} per prompt, {len(shards)} shards"
    )
    table.add_row("written by", ", ".join(f"{k} {v}" for k, v in manifest["packages"].items()))
    table.add_row("made with", "" if facts["provenance"] else "not stated")
    for name, value in sorted(_entries(facts["provenance"]), key=_interest):
        shown = DIGEST.sub(lambda m: m[0][:SHOWN] + "…", value)
        table.add_row(f"  {visible(name)}", visible(shown))
    console().print(table)


def _interest(entry: tuple[str, str]) -> int:
    """Sort key: the entries of `FIRST` first, then the others in order."""
    return next((i for i, name in enumerate(FIRST) if entry[0].startswith(name)), len(FIRST))


def held_in(folder: Path) -> str:
    """Numbers of prompts and samples that a store holds, in words."""
    from infalign.stores.manifest import held, read_manifest

    manifest = read_manifest(folder)
    prompts, rewards = held(manifest), sum(s["values"] for s in manifest["rewards"])
    texts = "with texts" if manifest["samples"] else "rewards only"
    return f"{prompts:,} prompts, {rewards / max(prompts, 1):.4g} samples each, {texts}"


def _entries(provenance: Mapping, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Name and text of every entry, including nested ones."""
    for name, value in provenance.items():
        if isinstance(value, Mapping) and value:
            yield from _entries(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{prefix}{name}", text
