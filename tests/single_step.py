"""One step of size 0 of a trainer of TRL on an enumerable model, and what it scored."""

import warnings
from contextlib import contextmanager
from pathlib import Path

from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback

LONGEST = 3
"""Tokens of a completion."""


def count_b(prompts, completions, **columns):
    """The reward of the steps."""
    return [float(c.count("b")) for c in completions]


class Caught(TrainerCallback):
    """The gradient of the step."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradient = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}


def tokenizer_of(path: Path):
    """The tokenizer of an enumerable model, which pads with its end token."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@contextmanager
def single_step(trainer_type, arguments_type, path, folder, prompts, group, **more):
    """A trainer that has not begun, and a dict that gets what its step scores.

    - `path`: the reference, which is trained unless `model` makes another model.
    - `more`: `model`, `reward_funcs` and `callbacks` of the trainer; the rest are options of its
      arguments.
    """
    own = {name: more.pop(name) for name in ("reward_funcs", "callbacks") if name in more}
    model = more.pop("model", lambda: str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TRL's own, of transformers' old names
        options = {"learning_rate": 0.0, "max_grad_norm": 0.0, "temperature": 0.8} | more
        trainer = trainer_type(
            model=model(),
            **{"reward_funcs": count_b} | own,
            args=arguments_type(
                str(folder / "out"),
                max_steps=1,
                per_device_train_batch_size=group * len(prompts),
                num_generations=group,
                max_completion_length=LONGEST,
                save_strategy="no",
                report_to="none",
                use_cpu=True,
                bf16=False,
                disable_tqdm=True,
                **options,
            ),
            train_dataset=Dataset.from_list([{"prompt": word} for word in prompts]),
            processing_class=tokenizer_of(path),
        )
        seen, score = {}, trainer._generate_and_score_completions

        def watched(inputs):
            seen["prompts"] = [row["prompt"] for row in inputs]
            output = score(inputs)
            seen.update(output)
            return output

        trainer._generate_and_score_completions = watched
        yield trainer, seen
