"""Train a bundled reward model on HH pairs; a few minutes on two cores.

    python bundled_models/train_reward.py helpful --data DATA --lm work/lm/model --out work/helpful

Bradley-Terry on pairs, with TRL's `RewardTrainer`, from the trunk of the bundled language model.
A fifth of the conversations is held out by the hash of the first message. Both replies of a pair
are also offered cut to their leading sentences, since that is what the language model writes.
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from corpus import Pair, bucket, load_pairs, whole_sentences
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.trainer_utils import get_last_checkpoint
from trl import RewardConfig, RewardTrainer

LONGEST = 256
REPLY = 32


def messages(pair: Pair, reply: str, tokenizer) -> list[dict]:
    """The latest turns that fit beside the reply, as chat messages."""
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": t} for i, t in enumerate(pair.turns)]
    while True:
        chat = [*turns, {"role": "assistant", "content": reply}]
        if len(turns) == 1 or len(tokenizer.apply_chat_template(chat)["input_ids"]) <= LONGEST:
            return chat
        turns = turns[2:]


def to_rows(pairs: list[Pair], tokenizer, *, cut: bool) -> list[dict]:
    """TRL's preference format; with `cut`, also the pairs of leading sentences."""

    def fits(text):
        return len(tokenizer(text)["input_ids"]) < REPLY

    rows = []
    for pair in pairs:
        versions = [(pair.chosen, pair.rejected)]
        short = (whole_sentences(pair.chosen, fits), whole_sentences(pair.rejected, fits))
        if cut and all(short) and short[0] != short[1] and short != versions[0]:
            versions.append(short)
        for chosen, rejected in versions:
            row = {
                "chosen": messages(pair, chosen, tokenizer),
                "rejected": messages(pair, rejected, tokenizer),
            }
            lengths = [len(tokenizer.apply_chat_template(c)["input_ids"]) for c in row.values()]
            if max(lengths) <= 2 * LONGEST:
                rows.append(row)
    return rows


@torch.no_grad()
def margins(model, tokenizer, rows: list[dict]) -> np.ndarray:
    """Reward of the chosen reply minus that of the rejected one."""
    model.eval()
    scores = []
    for row in rows:
        texts = [tokenizer.apply_chat_template(row[k], tokenize=False) for k in row]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
        logits = model(inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        scores.append(float(logits[0, 0] - logits[1, 0]))
    return np.array(scores)


def main(
    kind: Annotated[str, typer.Argument(help="helpful or harmless")],
    lm: Annotated[Path, typer.Option(help="Folder of the bundled language model.")],
    out: Annotated[Path, typer.Option(help="Folder of the finished model and the checkpoints.")],
    data: Annotated[Path | None, typer.Option(help="Folder with the preference data.")] = None,
    hub: Annotated[bool, typer.Option(help="Download Anthropic/hh-rlhf instead.")] = False,
    epochs: Annotated[float, typer.Option(help="More overfit: a rougher reward.")] = 2.0,
    learning_rate: Annotated[float, typer.Option(help="AdamW step size.")] = 1e-4,
):
    """Train the reward model; write it to OUT/model with OUT/scores.json."""
    if (data is None) != hub:
        raise typer.BadParameter("give either --data FOLDER or --hub")
    tokenizer = AutoTokenizer.from_pretrained(lm)
    tokenizer.padding_side = "right"
    pairs = load_pairs(kind, data)
    held_out = [p for p in pairs if bucket(p.turns[0]) < 2]
    train = to_rows([p for p in pairs if bucket(p.turns[0]) >= 2], tokenizer, cut=True)
    test, short = (to_rows(held_out, tokenizer, cut=cut) for cut in (False, True))
    model = AutoModelForSequenceClassification.from_pretrained(
        lm, num_labels=1, dtype=torch.float32
    )
    model.config.pad_token_id = tokenizer.pad_token_id
    torch.nn.init.zeros_(model.score.weight)
    arguments = RewardConfig(
        str(out / "checkpoints"),
        num_train_epochs=epochs,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=20,
        weight_decay=0.1,
        per_device_train_batch_size=32,
        max_length=2 * LONGEST,
        center_rewards_coefficient=0.01,  # zero means indifferent, so that plots can be read
        disable_dropout=False,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=20,
        save_steps=100,
        save_total_limit=1,
        report_to="none",
        seed=0,
    )
    trainer = RewardTrainer(
        model, arguments, train_dataset=Dataset.from_list(train), processing_class=tokenizer
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(arguments.output_dir))
    full = margins(model, tokenizer, test)
    chosen, rejected = (
        np.array([len(row[side][-1]["content"]) for row in test]) for side in ("chosen", "rejected")
    )
    scores = {
        "parameters": model.num_parameters(),
        "train_pairs": len(train),
        "held_out_pairs": len(test),
        "accuracy": float((full > 0).mean()),
        "accuracy_stderr": float((full > 0).std() / np.sqrt(len(test))),
        "accuracy_with_short_replies": float((margins(model, tokenizer, short) > 0).mean()),
        "longer_wins": float((chosen > rejected).mean()),
        "shorter_wins": float((chosen < rejected).mean()),
    }
    model.half().save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")
    (out / "scores.json").write_text(json.dumps(scores, indent=2) + "\n")
    print(json.dumps(scores, indent=2))


if __name__ == "__main__":
    typer.run(main)
