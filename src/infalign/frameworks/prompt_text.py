"""Text in place of ids: finds prompts by their text, and extracts responses from a query."""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

from infalign import _check
from infalign.errors import DataError
from infalign.models.reward_server import conversation_text
from infalign.prompts import Prompt

Read = Callable[[Sequence[dict]], str]
"""A conversation as text."""


class PromptNames:
    """Prompts by id, by their text (`conversation_text`), or by their text in a chat template.

    - `template`: renders a conversation as the policy reads it. Called once for every prompt, at
      the first key that is neither an id nor a prompt's text.
    """

    def __init__(self, prompts: Sequence[Prompt], template: Read | None = None):
        self.prompts = {p.id: p for p in prompts}
        self._template = template

    def find(self, key: str | None) -> Prompt:
        """The prompt named by `key`.

        Raises DataError for unknown prompts, and for text that two prompts share.
        """
        if isinstance(key, str):
            if key in self.prompts:
                return self.prompts[key]
            text = key.strip()
            matches = self._by_text.get(text) or self._by_template.get(text) or []
            if len(matches) > 1:
                raise DataError(
                    f"{len(matches)} prompts have the text {_check.short(key)}, first "
                    f"{matches[0].id!r} and {matches[1].id!r}. Name prompts by id."
                )
            if matches:
                return matches[0]
        raise DataError(
            f"prompt_id {_check.short(key)} is not one of the {len(self.prompts)} prompts of the "
            "run, by id or by text. Train on the prompts that were calibrated: `infalign "
            "export-prompts` writes them."
        )

    @cached_property
    def _by_text(self) -> dict[str, list[Prompt]]:
        return _by(conversation_text, self.prompts.values())

    @cached_property
    def _by_template(self) -> dict[str, list[Prompt]]:
        return _by(self._template, self.prompts.values()) if self._template else {}


def _by(read: Read, prompts: Iterable[Prompt]) -> dict[str, list[Prompt]]:
    matches: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        matches.setdefault(read(prompt.messages).strip(), []).append(prompt)
    return matches


class PolicyText:
    """A policy's chat template and special tokens. Its tokenizer is loaded on first use.

    - `path`: folder or hub id of the policy.
    """

    def __init__(self, path: str, trust_remote_code: bool = False):
        self.path, self.trust_remote_code = path, trust_remote_code

    @cached_property
    def tokenizer(self):
        """The tokenizer; DataError if the policy has none."""
        from infalign.models.loading import load_tokenizer

        return load_tokenizer(self.path, self.trust_remote_code)

    def prompt(self, messages: Sequence[dict]) -> str:
        """A conversation as text that ends where the response begins."""
        from infalign.models.loading import prompt_text

        return prompt_text(self.tokenizer, messages)

    def response(self, query: str, prompt: str) -> str:
        """The response in `query`, the decoded tokens of prompt and response.

        Special tokens and outer white space are removed, as in a run's own samples. Raises
        DataError when `query` does not contain `prompt`.
        """
        start = query.find(prompt)  # not always 0: a special token may come first
        if start < 0:
            ids = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
            prompt = str(self.tokenizer.decode(ids))  # decoding may not return the encoded text
            start = query.find(prompt)
        if not prompt or start < 0:
            raise DataError(
                f"The query {query[:80]!r} does not contain its prompt, {prompt[:80]!r}, so its "
                "response cannot be read. Was the prompt truncated to the maximum length? Allow "
                "more tokens, or leave long prompts out."
            )
        text = query[start + len(prompt) :]
        for token in self.tokenizer.all_special_tokens:
            text = text.replace(token, "")
        return text.strip()
