"""Train the bundled tokenizer and language model; about an hour on two cores.

    python bundled_models/train_lm.py --data DATA --out work/lm      # or --hub for the full HH set

Two stages of next-token prediction with the transformers `Trainer`: whole dialogues and prose for
fluency, then single exchanges whose replies are cut to whole sentences of at most `REPLY` tokens,
so that the model answers in a few words and stops. An interrupted run continues where it was.
"""

import json
import math
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from corpus import bucket, exchanges, load_dialogues, load_prose, whole_sentences
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

VOCABULARY, BLOCK, REPLY = 2048, 256, 32
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE: any text can be written, none needs an unknown token."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        chat_template=TEMPLATE,
        model_max_length=512,
        padding_side="left",
    )


def transcript(turns: tuple[str, ...]) -> str:
    """The turns as the chat template writes them."""
    roles = ("user", "assistant")
    return "".join(f"<|{roles[i % 2]}|>{text}<|end|>" for i, text in enumerate(turns))


def blocks(texts: list[str], tokenizer, seed: int) -> Dataset:
    """The texts shuffled, joined and cut into blocks of `BLOCK` tokens."""
    order = np.random.default_rng(seed).permutation(len(texts))
    tokens = np.concatenate(tokenizer([texts[i] for i in order])["input_ids"])
    rows = tokens[: len(tokens) // BLOCK * BLOCK].reshape(-1, BLOCK).astype(np.int64)
    return Dataset.from_dict({"input_ids": rows, "labels": rows})


def fit(model, train: Dataset, test: Dataset, out: Path, *, steps: int, learning_rate: float):
    """`steps` AdamW steps of 8,192 tokens, warmed up and decayed; returns the trained model."""
    arguments = TrainingArguments(
        str(out),
        max_steps=steps,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.05},
        warmup_steps=steps // 25,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=32,
        weight_decay=0.05,
        adam_beta2=0.98,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="steps",
        eval_steps=200,
        logging_steps=50,
        save_steps=200,
        save_total_limit=1,
        report_to="none",
        seed=0,
    )
    trainer = Trainer(model, arguments, default_data_collator, train, test)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(out)) if out.exists() else None)
    return trainer.model, trainer.evaluate()["eval_loss"]


def bits_per_byte(loss: float, data: Dataset, tokenizer) -> float:
    """Cross-entropy per byte of text: comparable between tokenizers."""
    tokens = np.array(data["input_ids"])
    text = tokenizer.batch_decode(tokens)
    return loss * tokens.size / math.log(2) / sum(len(t.encode()) for t in text)


def main(
    out: Annotated[Path, typer.Option(help="Folder of the finished model and the checkpoints.")],
    data: Annotated[Path | None, typer.Option(help="Folder with the preference data.")] = None,
    hub: Annotated[bool, typer.Option(help="Download Anthropic/hh-rlhf instead.")] = False,
    steps: Annotated[int, typer.Option(help="Steps of the first stage.")] = 2400,
    reply_steps: Annotated[int, typer.Option(help="Steps of the second stage.")] = 700,
):
    """Train tokenizer and model; write them to OUT/model with OUT/scores.json."""
    if (data is None) != hub:
        raise typer.BadParameter("give either --data FOLDER or --hub")
    set_seed(0)
    dialogues, prose = load_dialogues(data), load_prose(data)
    trained = [d for d in dialogues if bucket(d[0]) != 0]
    held_out = [d for d in dialogues if bucket(d[0]) == 0]

    tokenizer = train_tokenizer([text for d in trained for text in d] + prose)
    train = blocks([transcript(d) for d in trained] + [p + "<|end|>" for p in prose], tokenizer, 0)
    # Sixteen answers to one question from the same model would swamp the human dialogues.
    test = blocks([transcript(d) for d in dict.fromkeys(held_out)][:1500], tokenizer, 0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,  # grouped queries: sampling on a CPU is bound by the cache
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    model, loss = fit(
        LlamaForCausalLM(config), train, test, out / "dialogues", steps=steps, learning_rate=2e-3
    )
    scores = {
        "parameters": model.num_parameters(),
        "dialogue_perplexity": math.exp(loss),
        "dialogue_bits_per_byte": bits_per_byte(loss, test, tokenizer),
    }

    def fits(text):
        return len(tokenizer(text)["input_ids"]) < REPLY

    def short(part):
        cut = ((message, whole_sentences(reply, fits)) for message, reply in exchanges(part))
        return [transcript(pair) for pair in cut if pair[1] and len(pair[0]) < 400]

    replies, held_replies = short(trained), short(held_out)
    model, loss = fit(
        model,
        blocks(replies, tokenizer, 1),
        test := blocks(held_replies, tokenizer, 1),
        out / "replies",
        steps=reply_steps,
        learning_rate=8e-4,
    )
    scores |= {
        "reply_perplexity": math.exp(loss),
        "reply_bits_per_byte": bits_per_byte(loss, test, tokenizer),
        "dialogues": len(trained),
        "exchanges": len(replies),
        "held_out_exchanges": len(held_replies),
    }
    model.generation_config.update(do_sample=True, temperature=1.0, top_k=0, top_p=1.0)
    model.half().save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")
    (out / "scores.json").write_text(json.dumps(scores, indent=2) + "\n")
    print(json.dumps(scores, indent=2))


if __name__ == "__main__":
    typer.run(main)
