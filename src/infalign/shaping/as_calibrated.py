"""A run's training reward in a trainer of TRL: it gets what the reward got in calibration."""

from collections.abc import Callable, Mapping, Sequence

from infalign.text import (
    Messages,
    completion_of,
    conversation_of,
    decoded,
    finished,
    text_of,
)

from .reward_function import reward_name


class AsCalibrated:
    """A reward function that gets the prompts and texts that calibration gives to it.

    TRL passes strings if the policy has no chat template, keeps white space that
    `sampling.strip` removes, and may split a response into fields. Here prompts are always the
    run's conversations, and completions always one message of the assistant, with the text of
    `infalign.text`.

    - `reward`: a TRL reward function with the column `prompt_id`.
    - `prompts`: prompt id → conversation. A prompt that is not in it stays as TRL passes it, as
      messages; the calibration store refuses it.
    - `strip`: the run's `sampling.strip`.
    - `tokenizer`: decodes `completion_ids`. Default: the text is taken from the completions.
    """

    def __init__(
        self,
        reward: Callable[..., Sequence[float]],
        prompts: Mapping[str, Messages],
        *,
        strip: bool,
        tokenizer=None,
    ):
        self.reward, self.prompts, self.strip = reward, prompts, strip
        self.tokenizer = tokenizer
        self.__name__ = reward_name(reward)

    def __call__(self, prompts, completions, **columns) -> Sequence[float]:
        """The rewards; arguments as TRL passes them."""
        if self.tokenizer is None:
            texts = [finished(text_of(c), strip=self.strip) for c in completions]
        else:
            texts = decoded(self.tokenizer, columns["completion_ids"], strip=self.strip)
        ids = columns.get("prompt_id") or [None] * len(prompts)  # `reward` refuses a missing column
        return self.reward(
            prompts=[
                conversation_of(self.prompts.get(i, prompt))
                for i, prompt in zip(ids, prompts, strict=True)
            ],
            completions=[completion_of(text) for text in texts],
            **columns,
        )
