"""KL targeting by weight interpolation: scale a policy's weight change to reach the target KL.

θ(α) = θ_ref + α (θ − θ_ref) leads from the reference (α = 0) through the trained policy (α = 1).
The sequence KL grows roughly like α², so a secant method in logarithms finds the target in few
measurements. WARP (Ramé et al., arXiv:2406.16768) also interpolates toward the initialization after
RLHF. Missing the target is an error, since the policy's results would be those at another KL.

A few responses at α = 1 tell about where the target is; there one large set is drawn. Policies
nearby are measured on the same responses, with importance weights, as long as enough of them count;
otherwise a new set is drawn. What is measured is written block by block, so that a killed search
repeats at most one block.
"""

import math
import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from infalign import _progress, disk, storage
from infalign.errors import DataError
from infalign.manifest import Stage, checksums
from infalign.models.blocks import block_of
from infalign.models.hf import LanguageModel
from infalign.models.interfaces import Response
from infalign.models.kl import token_values
from infalign.prompts import Prompt
from infalign.stores import PromptSamples, by_prompt
from infalign.stores.resumable import Origin, ResumableTable, Source

from .recipe import Recipe
from .reweighting import Along, Measured, expected_share, reweighted
from .weights import save_policy, saved_state

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["land", "nearest", "responses_per_prompt", "search"]

LANDING = "landing.json"
"""The last file of a method; a method that has it is trained."""

TRIES = "landing"
"""The folder of the measurements of an unfinished search."""

SAMPLES = 1024
"""Default number of responses, over all prompts, on which each KL is measured."""

FIRST = 4
"""The first KL is measured on this part of the responses: it only tells where to draw them all."""

COUNTING = 0.5
"""Least share of responses that must count, in effect, to be used at another α."""

FARTHEST = 4.0
"""Largest α; weights beyond a few times the trained change are meaningless."""

ACCEPTED = 0.1
"""Largest relative distance between the measured KL and the target."""

MOST_TRIES = 6
"""Number of measurements before the search gives up."""

_REMEDY = (
    "Train longer, or with other step sizes (`train.steps`, `train.warm_start`, "
    "`train.learning_rate`, `train.warm_start_learning_rate`), or ask for another `kl`."
)


def land(
    recipe: Recipe,
    trained: Path,
    prompts: Sequence[Prompt],
    target_kl: float,
    *,
    seed: int,
    out: Path,
    stage: Stage,
    report: Callable[[int, int], None],
) -> None:
    """Write the policy at the target KL to `out/model`, and the record of the search to
    `landing.json`.

    The KL is measured on `prompts`, of the policy in the precision in which it will be run. Every
    set is drawn with the same seed, so only α differs between them. Raises DataError if the target
    is out of reach.
    """
    path = _Path(recipe, trained)
    tries = _Tries(path, recipe, prompts, seed, out / TRIES, stage)
    with _progress.part(0, 1, MOST_TRIES + 1):
        first = tries.first()
    report(1, MOST_TRIES + 1)
    tried = search(
        tries.kl,
        target_kl,
        first=(1.0, first),
        progress=lambda done, total: report(done + 1, total + 1),
    )
    alpha, kl = nearest(tried, target_kl)
    measured = tries.measured[alpha]
    with stage.recording(out / "model"), disk.writing(out / "model"):
        save_policy(path.exact(alpha), out / "model")
        path.policy.tokenizer.save_pretrained(out / "model")
    with stage.recording(out / LANDING):
        storage.write_json(
            out / LANDING,
            {
                "alpha": alpha,
                "kl": kl,
                "stderr": measured.stderr if math.isfinite(measured.stderr) else None,
                "effective_share": measured.share,
                "target": target_kl,
                "first": first,
                "tried": [list(t) for t in tried],
                "drawn": tries.drawn,
            },
        )
    shutil.rmtree(out / TRIES, ignore_errors=True)
    stage.forget_removed(out)


class _Path:
    """The policies from the reference through the trained one."""

    def __init__(self, recipe: Recipe, trained: Path):
        self.reference, self.policy = (
            LanguageModel(
                recipe.model_path,
                temperature=recipe.sampling.temperature,
                max_new_tokens=recipe.sampling.max_new_tokens,
                batch_size=recipe.sampling.batch_size,
                dtype=recipe.dtype,
                trust_remote_code=recipe.trust_remote_code,
            )
            for _ in range(2)
        )
        self._recipe, self._end = recipe, saved_state(trained)
        self._at: float | None = None
        self.parts = {"weights": storage.fingerprint(checksums(trained))}

    @cached_property
    def _start(self) -> dict[str, torch.Tensor]:
        """The reference's weights in single precision."""
        state = self.reference.model.state_dict()
        if all(weight.dtype == self._end[name].dtype for name, weight in state.items()):
            return state
        return saved_state(self._recipe.model_path, self._recipe.trust_remote_code, "The model")

    def _weights(self, alpha: float) -> dict[str, torch.Tensor]:
        start = self._start
        return {k: torch.lerp(v, self._end[k].to(v), alpha) for k, v in start.items()}

    def at(self, alpha: float) -> LanguageModel:
        """The policy at α, in the precision in which it will be run."""
        if alpha != self._at:
            self.policy.model.load_state_dict(self._weights(alpha))
            self._at = alpha
        return self.policy

    def exact(self, alpha: float):
        """The model at α in single precision, to be saved; the policy is used no more."""
        self.policy.model.float().load_state_dict(self._weights(alpha))
        return self.policy.model


class _Tries:
    """Measurements of the KL, each kept in a table until the search has ended."""

    def __init__(
        self,
        path: _Path,
        recipe: Recipe,
        prompts: Sequence[Prompt],
        seed: int,
        folder: Path,
        stage: Stage,
    ):
        self._path, self._prompts, self._seed = path, prompts, seed
        self._folder, self._stage = folder, stage
        self._responses = recipe.train.kl_responses
        self._each = responses_per_prompt(len(prompts), self._responses)
        self._block = block_of(
            recipe.model_path,
            tokens=recipe.sampling.max_new_tokens,
            batch_size=recipe.sampling.batch_size,
        )
        self._sets: dict[float, tuple[PromptSamples, Along, float]] = {}
        self.measured: dict[float, Measured] = {}
        """By α."""

        self.drawn: list[float] = []
        """The α at which responses were drawn."""

    def first(self) -> float:
        """The KL of the trained policy, on a part of the responses."""
        part = (self._responses or SAMPLES) / FIRST
        some = max(1, min(len(self._prompts), int(part)))
        each = max(1, round(part / some))
        samples = self._table("first", 1.0, None, range(some), each)
        return self._measured(samples, None).kl

    def kl(self, alpha: float) -> float:
        """The KL at α: on responses that were drawn nearby, if enough of them count, or on new
        ones."""
        near = max(
            self._sets,
            key=lambda at: expected_share(alpha, at, self._sets[at][2]),
            default=None,
        )
        if near is not None and expected_share(alpha, near, self._sets[near][2]) >= COUNTING:
            samples, drawn, _ = self._sets[near]
            moved = self._table(f"{len(self.measured)}", alpha, samples, range(len(self._prompts)))
            estimate = self._measured(moved, drawn)
            if estimate.share >= COUNTING:
                self.measured[alpha] = estimate
                return estimate.kl
        samples = self._table(f"{len(self.measured)}-drawn", alpha, None, range(len(self._prompts)))
        estimate = self.measured[alpha] = self._measured(samples, None)
        self._sets[alpha] = samples, _along(samples), estimate.kl
        self.drawn.append(alpha)
        return estimate.kl

    def _measured(self, samples: PromptSamples, drawn: Along | None) -> Measured:
        moved = _along(samples)
        owners = np.repeat(np.arange(len(samples.counts)), samples.counts)
        return reweighted(moved, drawn or moved, owners)

    def _table(
        self,
        name: str,
        alpha: float,
        written: PromptSamples | None,
        places: Sequence[int],
        each: int | None = None,
    ) -> PromptSamples:
        """What the policy at α says along responses to the prompts at these places.

        - `written`: the responses. Default: the policy's own, `each` to a prompt.
        """
        each = each or self._each
        path = self._folder / f"{name}.parquet"
        table = ResumableTable(self._stage.manifest, path, self._stage.name, "policy")
        stated = {"alpha": alpha, "responses": each, "seed": self._seed}
        origin = Origin({}, {"policy": Source({**self._path.parts, **stated})})
        table.renew(origin)
        ids = [self._prompts[i].id for i in places]

        def make(some: list[int], part: int) -> "pa.Table":
            return self._rows(alpha, some, written, each)

        def silent(done: int, total: int) -> None:
            _progress.advance(done / total)

        with _progress.nested():
            table.write(ids, max(1, self._block // each), make, origin, silent)
        return by_prompt(storage.read_table(path), ids, source=str(path))

    def _rows(
        self, alpha: float, some: Sequence[int], written: PromptSamples | None, each: int
    ) -> "pa.Table":
        import pyarrow as pa

        policy, prompts = self._path.at(alpha), [self._prompts[i] for i in some]
        conversations = [p.messages for p in prompts]
        if written is None:
            keys = [str(i) for i in some]
            with _progress.share(0, _progress.DRAWING):
                responses = policy.sample(conversations, each, seed=self._seed, keys=keys)
        else:
            tokens = written.rows("tokens")
            responses = [[Response("", tuple(t)) for t in tokens[i]] for i in some]
        flat = [r for row in responses for r in row]
        values: list[list[list[float]]] = [[[0.0] * len(r.tokens) for r in flat] for _ in range(2)]
        with _progress.share(0 if written else _progress.DRAWING, 1):
            reference = self._path.reference
            for rows, at, of_tokens in token_values(policy, reference, conversations, responses):
                for row, place, value in zip(rows, at, of_tokens, strict=True):
                    values[0][row][place], values[1][row][place] = value[0], value[5]
        return pa.table(
            {
                "prompt_id": [p.id for p, row in zip(prompts, responses, strict=True) for _ in row],
                "tokens": pa.array([r.tokens for r in flat], pa.list_(pa.int32())),
                "exact": pa.array(values[0], pa.list_(pa.float64())),
                "logprob": pa.array(values[1], pa.list_(pa.float64())),
            }
        )


def _along(samples: PromptSamples) -> Along:
    """The values of a table, padded with 0."""
    columns = []
    for name in ("exact", "logprob"):
        rows = [values for row in samples.rows(name) for values in row]
        table = np.zeros((len(rows), max(map(len, rows))))
        for row, values in zip(table, rows, strict=True):
            row[: len(values)] = values
        columns.append(table)
    return Along(*columns)


def responses_per_prompt(prompts: int, responses: int | None = None) -> int:
    """Responses to each of `prompts` prompts on which a KL is measured.

    - `responses`: to all of them. Default: 1024.
    """
    return max(1, round((responses or SAMPLES) / prompts))


def search(
    measure: Callable[[float], float],
    target_kl: float,
    *,
    first: tuple[float, float] | None = None,
    tolerance: float = 0.01,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[tuple[float, float]]:
    """The (α, KL) pairs measured until a KL is within a relative `tolerance` of the target.

    - `first`: a rough measurement, which only says where to begin. Default: at α = 1.

    Raises DataError if no measurement comes within `ACCEPTED` of the target, of which there are at
    most `MOST_TRIES` and none beyond `FARTHEST`, or if a KL is not finite.
    """
    tried: list[tuple[float, float]] = []
    alpha = _next([first], target_kl) if first and np.isfinite(first[1]) else 1.0
    while len(tried) < MOST_TRIES:
        with _progress.part(len(tried) + 1, len(tried) + 2, MOST_TRIES + 1):
            kl = measure(alpha)
        tried.append((alpha, kl))
        progress(len(tried), MOST_TRIES)
        if not np.isfinite(kl):
            raise DataError(
                f"The policy's KL is {kl} at {alpha:.3g} times the trained change of weights: "
                "training diverged. Use smaller steps (`train.learning_rate`, "
                "`train.warm_start_learning_rate`)."
            )
        if abs(kl / target_kl - 1) <= tolerance:
            break
        if alpha == FARTHEST and kl < target_kl:
            break
        alpha = _next(tried, target_kl)
    last, kl_there = tried[-1]
    alpha, kl = nearest(tried, target_kl)
    if abs(kl / target_kl - 1) > ACCEPTED:
        if last == FARTHEST and kl_there < target_kl:
            raise DataError(
                f"Training moved the policy too little: {FARTHEST:g} times its change of weights "
                f"gives a KL of {kl_there:.2g} nats, less than the {target_kl:g} asked for. "
                f"Scaling further would leave the policy that was trained. {_REMEDY}"
            )
        raise DataError(
            f"No multiple of the trained change of weights has a KL of {target_kl:g} nats: the "
            f"nearest of {len(tried)} tries has {kl:.3g}, at {alpha:.3g} times the change. "
            f"{_REMEDY}"
        )
    progress(MOST_TRIES, MOST_TRIES)
    return tried


def nearest(tried: Sequence[tuple[float, float]], target_kl: float) -> tuple[float, float]:
    """The (α, KL) pair whose KL is relatively closest to the target."""
    return min(tried, key=lambda pair: abs(pair[1] / target_kl - 1))


def _next(tried: Sequence[tuple[float, float]], target_kl: float) -> float:
    """The α at which a power law through the last two measurements meets the target."""
    (before, kl_before), (alpha, kl) = tried[-2:] if len(tried) > 1 else [(0.0, 0.0), *tried]
    if kl <= 0:
        return FARTHEST
    power = 2.0
    if kl_before > 0 and alpha != before:
        # Noise must not reverse the secant, so the exponent of α is limited to between ½ and 4.
        slope = np.log(kl / kl_before) / np.log(alpha / before)
        power = float(np.clip(slope, 0.5, 4))
    # If the power law leads too far, a measurement at FARTHEST shows whether the target is in
    # reach.
    return min(float(alpha * (target_kl / kl) ** (1 / power)), FARTHEST)
