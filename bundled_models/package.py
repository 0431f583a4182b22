"""Put trained models into the package, each with a model card made from its own scores.

python bundled_models/package.py work
"""

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer

MODELS = Path(__file__).parents[1] / "src/infalign/demo/models"

SHARED = """
Demonstration model of the infalign package: it shows a method on a laptop. It is far too small to
be useful or safe for anything else, and having learned from red-team dialogues it can write
offensive and false things.
"""

LM_CARD = """---
license: apache-2.0
language: en
---
# language-model
{shared}
A causal language model with {parameters:,} parameters (Llama architecture, 4 layers, width 192,
6 heads of 32 sharing 2 key-value heads, context 512) and its own byte-level BPE tokenizer of 2,048
tokens. The chat template marks turns with `<|user|>`, `<|assistant|>` and `<|end|>`.

**Data.** {dialogues:,} dialogues: Anthropic HH conversations with both of their replies, questions
answered by Tulu 2; for fluency, Reddit posts of the TL;DR set and lower-cased TinyStories. Then
{exchanges:,} single exchanges with replies cut to whole sentences of at most 32 tokens. A tenth of
the conversations, by hash of the first message, is held out.

**Held-out scores.** Dialogues: perplexity {dialogue_perplexity:.1f} per token,
{dialogue_bits_per_byte:.2f} bits per byte. Short replies with their prompts: perplexity
{reply_perplexity:.1f}, {reply_bits_per_byte:.2f} bits per byte ({held_out_exchanges:,} exchanges).
"""

REWARD_CARD = """---
license: apache-2.0
language: en
---
# reward-{kind}
{shared}
A {kind}ness reward: a sequence classifier with one output and {parameters:,} parameters, trained
with the Bradley-Terry loss from the trunk of the bundled language model.

**Data.** Anthropic HH {kind}-base comparisons, each also with both replies cut to their leading
sentences: {train_pairs:,} training pairs. A fifth of the conversations, by hash of the first
message, is held out from this training. Half of that fifth was in the unlabeled text that the
language model, and so the trunk, was trained on: both replies of each pair, without the preference.

**Held-out pair accuracy** on {held_out_pairs} pairs: **{accuracy:.1%}** (standard error
{accuracy_stderr:.1%}). "The longer reply wins" gets {longer_wins:.1%}, "the shorter reply wins"
{shorter_wins:.1%} (equal lengths count for neither). With the cut replies added:
{accuracy_with_short_replies:.1%}.
"""


def install(source: Path, name: str, card: str) -> None:
    """Replace one model of the package."""
    target = MODELS / name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source / "model", target)
    for path in target.iterdir():
        path.chmod(0o644)
    scores = json.loads((source / "scores.json").read_text())
    (target / "README.md").write_text(card.format(shared=SHARED, **scores))


def main(work: Annotated[Path, typer.Argument(help="Folder with lm, helpful and harmless.")]):
    """Install all three models and print what they weigh."""
    install(work / "lm", "language-model", LM_CARD)
    for kind in ("helpful", "harmless"):
        install(work / kind, f"reward-{kind}", REWARD_CARD.replace("{kind}", kind))
    size = sum(p.stat().st_size for p in MODELS.rglob("*") if p.is_file())
    print(f"{size / 1e6:.1f} MB")


if __name__ == "__main__":
    typer.run(main)
