"""The speed and memory of a run's models on this machine, measured on a few prompts."""

import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from infalign._look import Shown
from infalign.collection.answers import scored
from infalign.config import SamplingSettings
from infalign.models.interfaces import Response, Sampler
from infalign.models.precision import Dtype
from infalign.prompts import Prompt

from .stages import load_both

if TYPE_CHECKING:
    from infalign.models.hf import LanguageModel

    from .folder import Run

__all__ = ["Speed", "Trial", "measure"]

LOG = logging.getLogger(__name__)

FIRST_TOKENS = 8
"""Length of the first responses, in tokens. Each further measurement is twice as long or as
large."""

FIRST_RESPONSES = 2

SHARE = 0.6
"""Share of the time that goes to generation; the rest is for scoring, reading and training."""

LEARNED = 64
"""Largest number of responses in the trial of a training step."""

Clock = Callable[[], float]


@dataclass(frozen=True)
class Trial(Shown):
    """The models that are measured, and what they are measured on."""

    model: str
    reward: str | None
    sampling: SamplingSettings
    prompts: Sequence[Prompt]
    copies: int
    """Responses to a prompt."""

    seed: int
    trained: bool
    trust_remote_code: bool = False
    dtype: Dtype = "auto"
    folder: Path | None = None
    """Where a Python reward is looked for first."""

    @classmethod
    def of(cls, run: "Run", trained: bool) -> "Trial":
        """The models of a run, on its training prompts."""
        config = run.config
        return cls(
            config.model,
            config.reward,
            config.sampling,
            run.prompts,
            config.calibration.samples,
            run.seed("measure"),
            trained,
            config.trust_remote_code,
            config.dtype,
            config.folder,
        )

    @property
    def batch(self) -> int:
        """Responses that are drawn at once."""
        return min(self.sampling.batch_size, len(self.prompts) * self.copies)


@dataclass(frozen=True)
class Speed:
    """What one response costs, in seconds, and what was measured."""

    device: str
    responses: int
    """Responses in the largest measured batch."""

    batch: int
    """Responses in a batch of the run."""

    length: int
    """Largest length of a measured response, in tokens."""

    longest: int
    """Largest length of a response of the run, `sampling.max_new_tokens`."""

    tokens: float | None
    """Mean length of a response; None if the measured ones were shorter than those of the run, or
    if a server does not report tokens."""

    text: float
    """Mean length of a response's text, in bytes."""

    loading: float
    """Seconds to load policy and reward."""

    generating: float
    scoring: float
    reading: float | None
    """Seconds for log-probabilities; None for a policy without logits."""

    learning: float | None
    """Seconds for a forward and a backward pass; None for a policy that is not trained."""

    memory: int
    """Bytes in use at the most while responses are drawn and scored: on a GPU those of tensors,
    else those of this process."""

    activations: int | None
    """Bytes per response of a training step beyond weights, gradients and optimizer; None where
    they cannot be told apart, as on a CPU."""

    share: float | None = None
    """Processor seconds of this process in a second of its generation: below 1, other programs had
    the cores; None where the generation is elsewhere, as on a GPU."""


def measure(trial: Trial, seconds: float, clock: Clock = time.monotonic) -> Speed | None:
    """Measure policy and reward for about `seconds` after they are loaded.

    Batches grow up to those of the run, first in their responses and then in their length, as long
    as the next is expected to end in time. The first batch warms up and is not counted: None, with
    a warning, if no further one would end in time.
    """
    from infalign.models.hf import LanguageModel
    from infalign.models.kl import sequence_kl

    start = clock()
    sampler, scorer = load_both(
        trial.model,
        trial.reward,
        trial.sampling,
        trial.trust_remote_code,
        dtype=trial.dtype,
        folder=trial.folder,
    )
    loading, begun = clock() - start, clock()
    policy = sampler if isinstance(sampler, LanguageModel) else None
    _forget_peak()
    used = time.process_time()
    generated = _generated(trial, sampler, begun + SHARE * seconds, clock)
    if generated is None:
        LOG.warning(
            "Nothing was measured, so times are not known: the first short batch took %.3g s of "
            "%.3g s. Allow more (--measure SECONDS), or use a machine that is not busy.",
            clock() - begun,
            seconds,
        )
        return None
    asked, drawn, generating, length = generated
    local = policy is not None and _device(True).startswith("the CPU")
    share = (time.process_time() - used) / max(clock() - begun, 1e-9) if local else None
    flat = [response for row in drawn for response in row]
    longest = trial.sampling.max_new_tokens
    deadline = begun + seconds
    scoring = 0.0
    if scorer is not None:
        scoring = _warm(lambda: scored(asked, drawn, scorer), deadline, clock)
    reading = learning = activations = None
    memory = _peak()
    if policy is not None:
        read = partial(sequence_kl, policy, policy, [p.messages for p in asked], drawn)
        reading = _warm(read, deadline, clock) / 2 / len(flat)  # by the policy and the reference
    if policy is not None and trial.trained:
        learning, activations = _learned(policy, asked, drawn, deadline, clock)
    longer = 1.0 if policy is None else _longer(policy, asked, flat, longest / length)
    counts = [len(r.tokens) for r in flat]
    return Speed(
        device=_device(policy is not None),
        responses=len(flat),
        batch=trial.batch,
        length=length,
        longest=longest,
        tokens=sum(counts) / len(counts) if all(counts) and length == longest else None,
        text=sum(len(r.text.encode()) for r in flat) / len(flat),
        loading=loading,
        generating=generating,
        scoring=longer * scoring / len(flat),
        reading=reading and longer * reading,
        learning=learning and longer * learning,
        memory=memory,
        activations=activations and round(longer * activations),
        share=share,
    )


def _generated(
    trial: Trial, sampler: Sampler, deadline: float, clock: Clock
) -> tuple[Sequence[Prompt], list[list[Response]], float, int] | None:
    """The prompts and responses of the largest batch that ended in time, the seconds of one
    response of the run, and the largest length of the batch; None if none ended in time."""
    from infalign.models.hf import LanguageModel

    longest, batch = trial.sampling.max_new_tokens, trial.batch
    # The length of other samplers' responses cannot be changed once they are loaded.
    known = isinstance(sampler, LanguageModel)
    length = min(FIRST_TOKENS, longest) if known else longest
    responses = min(FIRST_RESPONSES, batch)

    def draw() -> tuple[Sequence[Prompt], list[list[Response]], float]:
        prompts = trial.prompts[: max(1, responses // trial.copies)]
        each = max(1, responses // len(prompts))
        if isinstance(sampler, LanguageModel):
            sampler.max_new_tokens = length
        conversations, keys = [p.messages for p in prompts], [p.id for p in prompts]
        at = clock()
        drawn = sampler.sample(conversations, each, seed=trial.seed, keys=keys)
        return prompts, drawn, clock() - at

    _, _, took = draw()
    if clock() + took > deadline:
        return None
    times: dict[int, float] = {}
    while True:
        prompts, drawn, took = draw()
        if length in times:  # the batch has grown: what other lengths take has grown alike
            times = {at: took * t / times[length] for at, t in times.items()}
        times[length] = took
        if clock() + 2 * took > deadline or (length == longest and responses == batch):
            break
        if length < longest and (len(times) == 1 or responses == batch):
            length = min(2 * length, longest)
        else:
            responses = min(2 * responses, batch)
    number = sum(map(len, drawn))
    return prompts, drawn, took / number * _growth(times, length, longest), length


def _growth(times: dict[int, float], length: int, longest: int) -> float:
    """How many times as long the longest responses take as those that are `length` tokens long.

    Time grows linearly with the length, from what the prompt takes. With one length, or where noise
    hides the growth, the prompt counts as nothing, which is too long.

    - `times`: seconds of equal batches by length.
    """
    shorter = max((at for at in times if at < length), default=None)
    if shorter is None or times[length] <= times[shorter]:
        return longest / length
    step = (times[length] - times[shorter]) / (length - shorter)
    return min(longest / length, 1 + step * (longest - length) / times[length])


def _longer(
    policy: "LanguageModel", asked: Sequence[Prompt], drawn: Sequence[Response], times: float
) -> float:
    """How many times as many tokens a prompt and its response have if the response is `times` as
    long."""
    texts = policy.prompt_ids([p.messages for p in asked], [p.id for p in asked], 0)
    prompt = sum(map(len, texts)) / len(texts)
    response = sum(len(r.tokens) for r in drawn) / len(drawn)
    return (prompt + times * response) / (prompt + response)


def _warm(work: Callable[[], object], deadline: float, clock: Clock) -> float:
    """Seconds of the work: those of a second time if there is time, since the first one warms
    up."""
    took = 0.0
    for _ in range(2):
        at = clock()
        work()
        took = clock() - at
        if clock() + took > deadline:
            break
    return took


def _learned(
    policy: "LanguageModel", asked: Sequence[Prompt], drawn, deadline: float, clock: Clock
) -> tuple[float, int | None]:
    """Seconds per response for a forward and a backward pass, and bytes of its activations."""
    import torch

    from infalign.models.loading import device
    from infalign.models.logits import collate, raw_logits

    texts = policy.prompt_ids([p.messages for p in asked], [p.id for p in asked], 0)
    rows = [(ids, r.tokens) for ids, row in zip(texts, drawn, strict=True) for r in row]
    count = 1
    while True:
        prompts, responses = zip(*rows[:count], strict=True)
        ids, mask, _ = (
            x.to(device()) for x in collate(prompts, responses, policy.tokenizer.pad_token_id)
        )
        before = torch.cuda.memory_allocated() if device() == "cuda" else 0
        _forget_peak()
        at = clock()
        policy.model.train()
        logits = raw_logits(policy.model, ids, mask, max(map(len, responses)))
        logits.float().log_softmax(-1).mean().backward()
        policy.model.zero_grad(set_to_none=True)
        policy.model.eval()
        activations = None
        if device() == "cuda":
            torch.cuda.synchronize()
            weights = sum(p.numel() * p.element_size() for p in policy.model.parameters())
            used = torch.cuda.max_memory_allocated() - before - weights  # less its gradients
            activations = max(used, 0) // count
        took = clock() - at
        if count >= min(LEARNED, len(rows)) or clock() + 2 * took > deadline:
            return took / count, activations
        count = min(2 * count, LEARNED, len(rows))


def _forget_peak() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak() -> int:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else 1024 * used


def _device(here: bool) -> str:
    import torch

    if not here:
        return "the model's server or engine"
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"the CPU, with {threads} thread{'s' * (threads != 1)}"
