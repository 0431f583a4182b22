"""Which prompt is meant: by its id, or by its text where a framework hands on no id."""

from collections.abc import Callable, Sequence
from functools import cached_property

from infalign.errors import DataError
from infalign.models.reward_server import conversation_text
from infalign.prompts import Prompt


class PromptNames:
    """Prompts by id; by their text, `conversation_text`; and by their text in a chat template.

    - `template`: a conversation as the policy reads it. Asked only for keys that are no id and no
      text, once for every prompt.
    """

    def __init__(
        self, prompts: Sequence[Prompt], template: Callable[[Sequence[dict]], str] | None = None
    ):
        self.prompts = {p.id: p for p in prompts}
        self._template = template

    def find(self, key: str) -> Prompt:
        """The prompt that `key` names.

        Raises DataError for one that is not there, and for a text that two prompts have.
        """
        if isinstance(key, str):
            if key in self.prompts:
                return self.prompts[key]
            text = key.strip()
            found = self._by_text.get(text) or self._by_template.get(text)
            if found and len(found) > 1:
                raise DataError(
                    f"{len(found)} prompts have the text {_short(key)}, first {found[0].id!r} and "
                    f"{found[1].id!r}. Name prompts by id."
                )
            if found:
                return found[0]
        raise DataError(
            f"prompt_id {_short(key)} is none of the {len(self.prompts)} prompts of the run, by id "
            "or by text. Train on the prompts that were calibrated: `infalign export-prompts` "
            "writes them."
        )

    @cached_property
    def _by_text(self) -> dict[str, list[Prompt]]:
        return _grouped(self.prompts.values(), conversation_text)

    @cached_property
    def _by_template(self) -> dict[str, list[Prompt]]:
        return _grouped(self.prompts.values(), self._template) if self._template else {}


def _grouped(prompts, read) -> dict[str, list[Prompt]]:
    groups: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        groups.setdefault(read(prompt.messages).strip(), []).append(prompt)
    return groups


def _short(key) -> str:
    shown = repr(key)
    return shown if len(shown) <= 120 else f"{shown[:117]}…'"
