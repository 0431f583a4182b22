"""A run's training reward in a trainer of TRL: it gets what the reward got in calibration."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from infalign.text import Messages, decoded, finished, in_form_of, text_of

from .reward_function import reward_name
from .signature import Parameters

__all__ = ["AsCalibrated"]


class AsCalibrated:
    """A reward function that gets the prompts and texts that calibration gives to it.

    TRL passes the form that the policy's tokenizer needs: strings without a chat template, messages
    with one. It keeps white space that `sampling.strip` removes, may split a response into fields,
    and knows only the columns of its own data set. Here prompts and completions have the form in
    which the run's prompts are written, completions the text of `infalign.text`, and columns the
    values of the run's prompts.

    - `reward`: a TRL reward function with the column `prompt_id`.
    - `prompts`: prompt id → prompt, a text or messages. A prompt that is not in it stays as TRL
      passes it; the calibration store refuses it.
    - `columns`: prompt id → the prompt's other columns.
    - `strip`: the run's `sampling.strip`.
    - `tokenizer`: decodes `completion_ids`. Default: the text is taken from the completions.
    """

    def __init__(
        self,
        reward: Callable[..., Sequence[float]],
        prompts: Mapping[str, str | Messages],
        *,
        columns: Mapping[str, Mapping[str, Any]] | None = None,
        strip: bool,
        tokenizer=None,
    ):
        self.reward, self.prompts, self.strip = reward, prompts, strip
        self.columns = columns or {}
        self.tokenizer = tokenizer
        self.__name__ = reward_name(reward)

    def __call__(self, prompts, completions, **columns) -> Sequence[float]:
        """The rewards; arguments as TRL passes them."""
        if self.tokenizer is None:
            texts = [finished(text_of(c), strip=self.strip) for c in completions]
        else:
            texts = decoded(self.tokenizer, columns["completion_ids"], strip=self.strip)
        ids = columns.get("prompt_id") or [None] * len(prompts)  # `reward` refuses a missing column
        asked = [self.prompts.get(i, prompt) for i, prompt in zip(ids, prompts, strict=True)]
        arguments = {
            **columns,
            **self._own(ids, columns),
            "prompts": [p if isinstance(p, str) else [dict(m) for m in p] for p in asked],
            "completions": [in_form_of(p, text) for p, text in zip(asked, texts, strict=True)],
        }
        return self.reward(**Parameters.of(self.reward).taken(arguments))

    def _own(self, ids: Sequence, columns: Mapping[str, Any]) -> dict[str, list]:
        """The columns of the run's prompts; for other prompts those that TRL passes, or None."""
        rows = [self.columns.get(i) for i in ids]
        names = dict.fromkeys(name for row in rows for name in row or ())
        passed = {name: columns.get(name, [None] * len(ids)) for name in names}
        return {
            name: [
                row.get(name) if row is not None else value
                for row, value in zip(rows, passed[name], strict=True)
            ]
            for name in names
        }
