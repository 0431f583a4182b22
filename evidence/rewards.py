"""Train one reward of a real model on half of a task's pairs.

    python evidence/rewards.py harmless minilm --models MODELS --data DATA --out work/rewards

Bradley-Terry with TRL's `RewardTrainer`, in bfloat16 autocast on float32 weights. MiniLM learns
from half a in its upper three layers, SmolLM2 from half b in its upper six: two families that share
neither trunk nor pairs, so that each can be the gold reward of a policy trained on the other. No
choice was made on the half that a reward does not learn from; `reward_table.py` measures its
accuracy there.
"""

import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from datasets import Dataset
from preferences import TASKS, Pair, half_of, load_task
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.trainer_utils import get_last_checkpoint
from trl import RewardConfig, RewardTrainer

LONGEST = 256
"""Older turns of a conversation are left out beyond this number of tokens."""
LIMIT = 512
"""Pairs with more tokens are left out: MiniLM has no more positions."""
BATCH = 16
"""Pairs of one step."""


@dataclass(frozen=True)
class Trunk:
    """A pretrained model to learn a reward from, and how."""

    folder: str
    half: str
    """The half of the pairs that it learns from."""
    learning_rate: float
    epochs: int
    frozen: tuple[str, ...]
    """Beginnings of the names of weights that are not trained."""
    template: str | None = None
    """A chat template for a model without one."""


TRUNKS = {
    "minilm": Trunk(
        "MiniLM-L6",
        "a",
        learning_rate=1e-4,
        epochs=2,
        frozen=("bert.embeddings.", *(f"bert.encoder.layer.{i}." for i in range(3))),
        template="[CLS]{% for message in messages %}{{ message['content'] }}[SEP]{% endfor %}",
    ),
    "smollm2": Trunk(
        "SmolLM2-135M-Instruct",
        "b",
        learning_rate=5e-5,
        epochs=1,
        frozen=("model.embed_tokens.", *(f"model.layers.{i}." for i in range(24))),
    ),
}


def messages(pair: Pair, reply: str, tokenizer) -> list[dict]:
    """The latest turns that fit beside the reply, as chat messages."""
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": t} for i, t in enumerate(pair.turns)]
    while True:
        chat = [*turns, {"role": "assistant", "content": reply}]
        if len(turns) == 1 or tokens(chat, tokenizer) <= LONGEST:
            return chat
        turns = turns[2:]


def tokens(chat: list[dict], tokenizer) -> int:
    """The number of tokens of a conversation."""
    return len(tokenizer.apply_chat_template(chat)["input_ids"])


def to_rows(pairs: list[Pair], tokenizer) -> list[dict]:
    """TRL's preference format, in batches of similar lengths, which need little padding."""
    rows = []
    for pair in pairs:
        chats = {s: messages(pair, getattr(pair, s), tokenizer) for s in ("chosen", "rejected")}
        length = max(tokens(chat, tokenizer) for chat in chats.values())
        if length <= LIMIT:
            rows.append((length, chats))
    rows.sort(key=lambda row: row[0])
    batches = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
    last = batches.pop()  # may be smaller than the others
    random.Random(0).shuffle(batches)
    batches.append(last)
    return [chats for batch in batches for _, chats in batch]


def main(
    task: Annotated[str, typer.Argument(help="helpful, harmless or tldr")],
    trunk: Annotated[str, typer.Argument(help="minilm or smollm2")],
    models: Annotated[Path, typer.Option(help="Folder that real_model.py wrote.")],
    out: Annotated[Path, typer.Option(help="Folder of the rewards.")],
    data: Annotated[Path | None, typer.Option(help="Folder with preferences/.")] = None,
    hub: Annotated[bool, typer.Option(help="Download the pairs instead.")] = False,
):
    """Write the reward to OUT/TASK-TRUNK; continue from its last checkpoint."""
    if (data is None) != hub:
        raise typer.BadParameter("give either --data FOLDER or --hub")
    if task not in TASKS or trunk not in TRUNKS:
        raise typer.BadParameter(f"tasks: {', '.join(TASKS)}; trunks: {', '.join(TRUNKS)}")
    recipe, target = TRUNKS[trunk], out / f"{task}-{trunk}"
    if (target / "model.safetensors").is_file():
        return print(f"{target} is complete")
    tokenizer = AutoTokenizer.from_pretrained(models / recipe.folder, padding_side="right")
    tokenizer.chat_template = tokenizer.chat_template or recipe.template
    pairs = [p for p in load_task(task, data) if half_of(p) == recipe.half]
    model = AutoModelForSequenceClassification.from_pretrained(
        models / recipe.folder, num_labels=1, dtype=torch.float32
    )
    model.config.pad_token_id = tokenizer.pad_token_id
    for name, weight in model.named_parameters():
        weight.requires_grad_(not name.startswith(recipe.frozen))
    arguments = RewardConfig(
        f"{target}.checkpoints",
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=20,
        weight_decay=0.05,
        per_device_train_batch_size=BATCH,
        train_sampling_strategy="sequential",
        max_length=None,
        center_rewards_coefficient=0.01,  # zero means indifferent, so that plots can be read
        gradient_checkpointing=False,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=10,
        save_steps=20,
        save_total_limit=1,
        report_to="none",
        seed=0,
    )
    rows = Dataset.from_list(to_rows(pairs, tokenizer))
    trainer = RewardTrainer(model, arguments, train_dataset=rows, processing_class=tokenizer)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(arguments.output_dir))
    model.half().save_pretrained(target)
    tokenizer.save_pretrained(target)
    shutil.rmtree(arguments.output_dir)
    print(f"{target}: {len(rows)} pairs")


if __name__ == "__main__":
    typer.run(main)
