"""TRL's trainers, which process each prompt once for the whole group of responses to it.

TRL repeats a prompt for each response: when it generates, when it scores the responses under the
policy and the reference, and in the step itself. A prompt is often longer than the responses, so
most of a step's time goes there. Here the prompt's keys and values are computed once and shared;
gradients flow through them, so the step is the same up to rounding.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from accelerate.utils import DistributedType
from transformers import GenerationConfig, PreTrainedModel
from trl import GRPOTrainer, RLOOTrainer
from trl.models.utils import unwrap_model_for_generation

from infalign.models.hf import generation_settings
from infalign.models.logits import collate, positions
from infalign.models.shared_prompts import prompt_cache, shared_inputs, sharing

__all__ = ["GroupGRPO", "GroupRLOO"]

if TYPE_CHECKING:  # what both trainers have
    _Trainer = RLOOTrainer
else:
    _Trainer = object


class _SharedPrompts(_Trainer):
    """Scores and generates with shared prompts, where the model's cache can be repeated.

    Otherwise TRL's own way is taken: in distributed training, where models can only be called as a
    whole, with gradient checkpointing, which has no cache, and with images. TRL leaves positions to
    the model, and many models count them from the padding; texts without images get them from the
    mask.
    """

    _known: dict[int, PreTrainedModel | None]

    def _sharing(self, model) -> PreTrainedModel | None:
        """The language model in `model` if it can share prompts."""
        if not hasattr(self, "_known"):
            self._known = {}
        if id(model) not in self._known:
            self._known[id(model)] = self._language(model)
        return self._known[id(model)]

    def _language(self, model) -> PreTrainedModel | None:
        alone = self.accelerator.distributed_type == DistributedType.NO
        return sharing(model) if alone and not self.args.gradient_checkpointing else None

    def _get_per_token_logps_and_entropies(
        self,
        model,
        input_ids,
        attention_mask,
        logits_to_keep,
        batch_size=None,
        compute_entropy=False,
        compute_aux_loss=False,
        **images,
    ):
        width = logits_to_keep
        prompts, owners = _distinct(_unpadded(input_ids[:, :-width], attention_mask[:, :-width]))
        language = self._sharing(model)
        pictured = any(x is not None for x in images.values())
        if language is None or compute_aux_loss or pictured:
            return super()._get_per_token_logps_and_entropies(
                model if pictured else self._placed(model),
                input_ids,
                attention_mask,
                logits_to_keep,
                batch_size,
                compute_entropy,
                compute_aux_loss,
                **images,
            )
        responses = _unpadded(input_ids[:, -width:], attention_mask[:, -width:])
        batch_size, parts = batch_size or len(owners), []
        for start in range(0, len(owners), batch_size):
            rows = slice(start, start + batch_size)
            parts.append(self._scored(language, prompts, responses[rows], owners[rows], width))
        logprobs, entropies = (
            None if x[0] is None else torch.cat(x) for x in zip(*parts, strict=True)
        )
        return logprobs, entropies if compute_entropy else None, None

    def _placed(self, model) -> Callable:
        """`model` with the positions of the tokens as they are without padding."""
        inner = self.accelerator.unwrap_model(model)
        inner = getattr(inner, "get_base_model", lambda: inner)()
        # TRL's fused head hands the inputs to the part below the head.
        below = getattr(inner, "base_model", inner)

        def placed(*, attention_mask, **inputs):
            places = positions(below, attention_mask)
            return model(attention_mask=attention_mask, **places, **inputs)

        return placed

    def _scored(self, language, prompts, responses, owners, width: int):
        """Log-probabilities and entropies, shape (responses, width), 0 at padding; the entropies
        are None where TRL's model does not compute them."""
        asked = sorted(set(owners))
        owners = [asked.index(i) for i in owners]
        with self.accelerator.autocast():
            ids, mask, inputs = shared_inputs(
                language, [prompts[i] for i in asked], responses, owners, self._pad
            )
            labels = ids.masked_fill(mask == 0, -100)
            output = language(**inputs, shift_labels=labels, fused_lm_head=True)
        missing = (0, width - ids.shape[1])
        return [
            None if x is None else torch.nn.functional.pad(x, missing)
            for x in (output.log_probs, output.entropy)
        ]

    @property
    def _pad(self) -> int:
        return self._tokenizer.pad_token_id

    @contextmanager
    def _sampling(self) -> Iterator[None]:
        """Inside, the policy samples with the trainer's options alone.

        Calibration, KL and evaluation do not read the model's own generation configuration either.
        """
        with generation_settings(self.accelerator.unwrap_model(self.model), GenerationConfig()):
            yield

    def _shared_completions(self, prompt_ids) -> list[list[int]] | None:
        """Token ids of one response to each row, up to its end token; None where TRL must
        generate."""
        ways = (self.use_vllm, self.use_transformers_continuous_batching)
        prompts, owners = _distinct([tuple(ids) for ids in prompt_ids])
        language = self._sharing(self.model)
        if (
            language is None
            or any(ways)
            or self.args.cache_implementation is not None  # type: ignore[attr-defined]
            or len(prompts) == len(owners)
            or max(map(len, prompts)) < 2
        ):
            return None
        ids, mask, _ = collate(prompts, [()] * len(prompts), self._pad)
        ids, mask = ids.to(language.device), mask.to(language.device)
        rows = torch.tensor(owners, device=ids.device)
        with (
            unwrap_model_for_generation(
                self.model_wrapped, self.accelerator, generation_kwargs=self.generation_kwargs
            ) as model,
            torch.no_grad(),
            self.accelerator.autocast(),
        ):
            cache = prompt_cache(language, ids, mask)
            cache.batch_select_indices(rows)
            output = model.generate(
                input_ids=ids[rows],
                attention_mask=mask[rows],
                past_key_values=cache,
                generation_config=self.generation_config,
            )
        return [_to_end(row, self.eos_token_ids) for row in output[:, ids.shape[1] :].tolist()]


class GroupRLOO(_SharedPrompts, RLOOTrainer):
    """`RLOOTrainer` with shared prompts."""

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields):
        with self._sampling():
            drawn = None if images or multimodal_fields else self._shared_completions(prompt_ids)
            if drawn is None:
                return super()._generate_single_turn(prompt_ids, images, multimodal_fields)
            return drawn


class GroupGRPO(_SharedPrompts, GRPOTrainer):
    """`GRPOTrainer` with shared prompts."""

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, *more, **options):
        with self._sampling():
            drawn = None if images or multimodal_fields else self._shared_completions(prompt_ids)
            if drawn is None:
                return super()._generate_single_turn(
                    prompt_ids, images, multimodal_fields, *more, **options
                )
            return drawn, None


def _unpadded(ids: torch.Tensor, mask: torch.Tensor) -> list[tuple[int, ...]]:
    """The tokens of each row that the mask keeps."""
    return [
        tuple(token for token, on in zip(row, keep, strict=True) if on)
        for row, keep in zip(ids.tolist(), mask.tolist(), strict=True)
    ]


def _distinct(rows: Sequence[tuple[int, ...]]) -> tuple[list[tuple[int, ...]], list[int]]:
    """The distinct rows, and for each row the index of its equal among them."""
    places: dict[tuple[int, ...], int] = {}
    owners = [places.setdefault(row, len(places)) for row in rows]
    return list(places), owners


def _to_end(tokens: list[int], ends: Sequence[int]) -> list[int]:
    """The tokens up to the first end token, with it."""
    end = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[: end + 1]
