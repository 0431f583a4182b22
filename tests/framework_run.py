"""A run folder, calibrated and designed, made in a moment; and a reward that counts its calls."""

import asyncio
import importlib.util
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from infalign import CalibrationStore, Exponential, ShapedReward
from infalign.demo import bundled
from infalign.frameworks import Asked, verl
from infalign.manifest import Manifest
from infalign.models.fingerprints import reward_fingerprint
from infalign.prompts import Prompt, fingerprint
from infalign.stores.exchange import import_rewards

REWARD = f"python:{__name__}:length"
TRANSFORM, BETA, KL = Exponential(3.0), 0.21, 0.5
TURNS = [
    {"role": "user", "content": "Name a color."},
    {"role": "assistant", "content": "Red."},
    {"role": "user", "content": "Another."},
]
PROMPTS = {"a": "Name a color.", "b": "Name a number.", "c": TURNS, "d": "Twice?", "e": "Twice?"}
CALLS: list[int] = []
"""How many completions each call of `length` was given."""


def length(prompts, completions, *, prompt_id, **columns):
    """Letters of the reply, and of all that was said before."""
    CALLS.append(len(completions))
    assert len({type(text) for text in (*prompts, *completions)}) <= 1  # all texts or all messages

    def letters(part):
        return len(part) if isinstance(part, str) else sum(len(m["content"]) for m in part)

    return [float(letters(p) + letters(c)) for p, c in zip(prompts, completions, strict=True)]


def messages(prompt_id: str) -> list[dict]:
    prompt = PROMPTS[prompt_id]
    return prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]


def raw(prompt_id: str, reply: str) -> float:
    """What `length` gives, for one."""
    return float(len(reply) + sum(len(m["content"]) for m in messages(prompt_id)))


def reference(made_with=None) -> CalibrationStore:
    """Replies of 0 to 30 letters, 16 of each prompt."""
    rng = np.random.default_rng(0)
    rows = [raw(i, "") + rng.integers(0, 31, 16) for i in PROMPTS]
    return CalibrationStore.from_rewards(list(PROMPTS), rows, made_with)


def expected(prompt_id: str, reply: str) -> dict:
    """What a reply is worth, by TRL's road: one `ShapedReward`, called once."""
    value, store = raw(prompt_id, reply), reference()
    shaped = ShapedReward(lambda **_: [value], store, TRANSFORM)
    own = store.rewards[prompt_id]
    return {
        "score": shaped(prompts=[""], completions=[reply], prompt_id=[prompt_id])[0],
        "raw_reward": value,
        "quantile": float((own < value).mean() + (own == value).mean() / 2),
    }


def make_run(folder: Path, **made_with) -> Path:
    """A run of `PROMPTS` with the reward `length`, as `infalign run --until design` leaves it.

    - `made_with`: more of the store's provenance.
    """
    folder.mkdir()
    lines = [json.dumps({"prompt_id": i, "prompt": p}) for i, p in PROMPTS.items()]
    (folder / "prompts.jsonl").write_text("\n".join(lines))
    config = {
        "model": "bundled:language-model",
        "reward": REWARD,
        "prompts": {"file": str(folder / "prompts.jsonl")},
        "evaluate": {"prompts": {"file": "bundled:helpful"}},
        "kl": KL,
        "sampling": {"temperature": 0.7, "max_new_tokens": 32},
        "calibration": {"samples": 16, "calibrator": "ecdf"},
        "train": {"validation": 0.2, "group": 8},
    }
    manifest = Manifest(folder)
    with manifest.recording(folder / "config.yaml", stage="run"):
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    prompts = [Prompt(i, tuple(messages(i))) for i in PROMPTS]
    made_with |= {"reward": reward_fingerprint(REWARD), "prompts": fingerprint(prompts)}
    pq.write_table(reference(made_with).to_table(), folder / "rewards.parquet")
    import_rewards(folder / "rewards.parquet", folder / "calibration")
    design = {
        "calibrator": {"name": "ecdf", "reason": "as configured"},
        "transform": TRANSFORM.to_json(),
        "beta": BETA,
        "kl": KL,
        "win_rate": 0.7,
    }
    with manifest.recording(folder / "design.json", stage="design"):
        (folder / "design.json").write_text(json.dumps(design))
    return folder


def model_folder() -> str:
    """The bundled policy."""
    return str(bundled("bundled:language-model", "model"))


REPLIES = [("a", "red"), ("b", "twenty-seven"), ("c", "Green, I think."), ("a", "x" * 40)]
"""Prompt ids, and a reply to each."""


def scores_of(scorer, replies=REPLIES) -> list[dict]:
    """The scores of replies, in one call."""
    return scorer([scorer.resolve(Asked(i, reply)) for i, reply in replies])


def assert_scores(scores, expected) -> None:
    """The same keys in the same order, with the same values."""
    assert [list(s) for s in scores] == [list(e) for e in expected]
    for own, other in zip(scores, expected, strict=True):
        assert own == pytest.approx(other, abs=1e-12)


def verl_samples(replies, **options) -> list[dict]:
    """Scores of replies, awaited in one event loop as verl does."""

    async def batch():
        return await asyncio.gather(
            *(
                verl.compute_score(
                    data_source="infalign",
                    solution_str=reply,
                    ground_truth="",
                    extra_info={"prompt_id": i, "index": 0, "num_turns": None},
                    **options,
                )
                for i, reply in replies
            )
        )

    return asyncio.run(batch())


def openrlhf_file(path):
    """A file's `reward_func`, loaded as OpenRLHF does."""
    spec = importlib.util.spec_from_file_location("reward_func", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.reward_func
