"""A run's prompts in the formats of other frameworks, with their ids."""

from pathlib import Path
from typing import Literal

from infalign import storage
from infalign.errors import DataError
from infalign.pipeline.folder import Run
from infalign.prompts import Prompt

from . import settings
from .opened import policy_text, require_prompts

__all__ = ["export_prompts"]

Framework = Literal["verl", "openrlhf", "trl"]

TRAIN, VALIDATION = "train", "kept-aside"
REWARD_FILE = """\
from infalign.frameworks.openrlhf import reward_function

reward_func = reward_function(run={folder!r}, directory={directory!r}{trusted})
"""


def export_prompts(run: Run, framework: Framework, out: Path) -> list[str]:
    """Write the training prompts of `run` into the folder `out`; returns the framework's arguments.

    `train` holds the prompts that the run would train on, and `kept-aside` its validation prompts.
    Both are calibrated. The evaluation's held-out prompts are not calibrated, so no framework can
    score them.

    Raises DataError if the prompts have changed since the run, and if the framework cannot read a
    prompt: OpenRLHF needs a chat template for prompts of more than one message.
    """
    require_prompts(run)
    out = Path(out).resolve()
    count = run.config.train.trained_prompts(len(run.prompts))
    parts = {TRAIN: run.prompts[:count], VALIDATION: run.prompts[count:]}
    text = None if framework == "verl" else policy_text(run)  # verl always takes messages
    template = text is not None and text.tokenizer.chat_template is not None
    paths = {}
    for part, prompts in parts.items():
        if framework == "verl":
            rows = [_verl_row(part, i, prompt) for i, prompt in enumerate(prompts)]
        else:
            rows = [_row(prompt, template) for prompt in prompts]
        if rows:
            paths[part] = _write(out / part, rows, framework)
    if framework == "verl":
        return settings.verl(run, paths[TRAIN], paths.get(VALIDATION))
    if framework == "trl":
        return settings.trl(run)
    file = out / "reward.py"
    written = REWARD_FILE.format(
        folder=str(run.folder.resolve()),
        directory=str(Path.cwd()),
        trusted=", trust_remote_code=True" if run.config.trust_remote_code else "",
    )
    storage.write_text(file, written)
    return settings.openrlhf(run, paths[TRAIN], file, template)


def _verl_row(part: str, i: int, prompt: Prompt) -> dict:
    return {
        "data_source": "infalign",
        "prompt": list(prompt.messages),
        "ability": "chat",
        "reward_model": {"style": "model", "ground_truth": ""},
        "extra_info": {"prompt_id": prompt.id, "index": i, "split": part},
    }


def _row(prompt: Prompt, template: bool) -> dict:
    if not template and len(prompt.messages) > 1:
        raise DataError(
            f"Prompt {prompt.id!r} has {len(prompt.messages)} messages, which the model cannot "
            "read without a chat template. Give its tokenizer one, or use prompts of one message."
        )
    return {
        "prompt": list(prompt.messages) if template else prompt.text,
        "prompt_id": prompt.id,
    }


def _write(path: Path, rows: list[dict], framework: Framework) -> Path:
    if framework == "openrlhf":  # some versions cannot read lists from Parquet
        path = path.with_suffix(".jsonl")
        storage.write_text(path, "".join(storage.json_line(row) for row in rows))
        return path
    import pyarrow as pa

    path = path.with_suffix(".parquet")
    storage.write_table(path, pa.Table.from_pylist(rows))
    return path
