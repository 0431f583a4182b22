"""Tokens per second of every stage on one model, before and after what makes a real model fast."""

import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

__all__ = ["lines", "measured"]

PROMPTS, EACH, TOKENS = 8, 4, 24
SETS, TRIES = 1.25, 2.5
"""Sets of responses and measurements of a usual search for the KL; before, both were 3 to 6."""


def measured(model: str) -> dict:
    """Processor seconds and tokens of each stage, in float32 and whole prompts, and with `auto`
    and prompts that are read once for their responses."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from infalign.config import Prompts
    from infalign.models.classifier import ClassifierReward
    from infalign.models.hf import LanguageModel
    from infalign.models.kl import sequence_kl
    from infalign.models.logits import collate, raw_logits
    from infalign.models.precision import trains_in
    from infalign.models.shared_prompts import shared_logits
    from infalign.prompts import load_prompts

    asked = load_prompts(Prompts(file="bundled:helpful", split="test", limit=PROMPTS))
    conversations = [p.messages for p in asked]
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        scored = Path(folder) / "reward"
        head = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1)
        head.save_pretrained(scored)
        LanguageModel(model).tokenizer.save_pretrained(scored)
        del head
        for name, dtype, shared in (("before", "float32", False), ("after", "auto", True)):
            policy = LanguageModel(model, max_new_tokens=TOKENS, dtype=dtype)
            took, responses = _timed(lambda p=policy: p.sample(conversations, EACH, seed=0))
            flat = [r for row in responses for r in row]
            new = sum(len(r.tokens) for r in flat)
            own = {"sampling": new / took, "dtype": str(policy.model.dtype).removeprefix("torch.")}
            reward = ClassifierReward(scored, dtype=dtype)
            texts = [r.text for r in flat]
            prompts = [p.messages for p in asked for _ in range(EACH)]
            took, _ = _timed(lambda r=reward, q=prompts, t=texts: r(q, t))
            own["reward"] = new / took
            policy.__dict__["repeats"] = shared
            took, _ = _timed(lambda p=policy, r=responses: sequence_kl(p, p, conversations, r))
            own["KL"] = new / took
            own["KL targeting"] = (
                1 / (3 / own["sampling"] + 3 / own["KL"])
                if name == "before"
                else 1 / (SETS / own["sampling"] + TRIES / own["KL"])
            )
            policy.model.float().train()
            ids = policy.prompt_ids(conversations, [p.id for p in asked], TOKENS)
            pad, owners = policy.tokenizer.pad_token_id, [i // EACH for i in range(len(flat))]
            half = dtype != "float32" and trains_in("auto") == "bfloat16"

            def step(model=policy.model, ids=ids, owners=owners, flat=flat, shared=shared, pad=pad):
                tokens = [r.tokens for r in flat]
                if shared:
                    _, _, logits = shared_logits(model, ids, tokens, owners, pad)
                else:
                    batch = collate([ids[i] for i in owners], tokens, pad)
                    logits = raw_logits(model, *batch[:2], batch[2].shape[1])
                logits.float().log_softmax(-1).mean().backward()

            with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
                took, _ = _timed(step)
            own["forward and backward"] = new / took
            own["on-policy step"] = _on_policy(model, conversations, shared, half)
            own["prompt"] = sum(map(len, ids)) / len(ids)
            found[name] = own
    return found


def _on_policy(model: str, conversations, shared: bool, half: bool) -> float:
    """Tokens per second of one step of RLOO with adapters: drawn, scored under policy and
    reference, and learned from."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import RLOOConfig, RLOOTrainer

    from infalign.training.groups import GroupRLOO
    from infalign.training.weights import lora

    def length(prompts, completions, **columns):
        return [float(len(c[0]["content"])) for c in completions]

    with tempfile.TemporaryDirectory() as folder:
        trainer = (GroupRLOO if shared else RLOOTrainer)(
            model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
            reward_funcs=length,
            args=RLOOConfig(
                folder,
                max_steps=1,
                per_device_train_batch_size=PROMPTS * EACH,
                num_generations=EACH,
                max_completion_length=TOKENS,
                gradient_checkpointing=False,
                save_strategy="no",
                report_to="none",
                use_cpu=True,
                bf16=half,
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list([{"prompt": list(c)} for c in conversations]),
            processing_class=AutoTokenizer.from_pretrained(model),
            peft_config=lora(16),
        )
        took, _ = _timed(trainer.train)
        row = next(r for r in trainer.state.log_history if "completions/mean_length" in r)
    return PROMPTS * EACH * row["completions/mean_length"] / took


def _timed(work: Callable[[], object]) -> tuple[float, object]:
    begun = time.process_time()
    value = work()
    return time.process_time() - begun, value


def lines(part: dict) -> list[str]:
    """The section of the page."""
    before, after = part["found"]["before"], part["found"]["after"]
    rows = [
        f"| {name} | {before[name]:.0f} | {after[name]:.0f} | {after[name] / before[name]:.1f}× |"
        for name in (
            "sampling",
            "reward",
            "KL",
            "forward and backward",
            "on-policy step",
            "KL targeting",
        )
    ]
    return [
        "",
        "## A real model",
        "",
        f"{part['model']}; tokens of responses per processor second on one thread. {PROMPTS} "
        f"prompts of {before['prompt']:.0f} tokens on average, each with {EACH} responses of at "
        f"most {TOKENS} tokens. *Before*: float32, every response with its whole prompt, and three "
        "draws and measurements for KL targeting. *After*: `dtype: auto`, here "
        f"{after['dtype']}; prompts are read once for their responses; KL targeting draws "
        f"{SETS} sets and measures {TRIES} times. The KL is computed in float32 in both. The "
        "reward is a classifier of the same size. The on-policy step is RLOO's with adapters of "
        "rank 16; before, TRL's own. With more responses to a prompt, or longer "
        "prompts, reading prompts once gains more.",
        "",
        "| stage | before | after | |",
        "| --- | ---: | ---: | ---: |",
        *rows,
    ]
