"""Text in place of ids: finds prompts by their text, and extracts responses from a query."""

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise

from infalign import _check
from infalign.errors import DataError
from infalign.models.reward_server import conversation_text
from infalign.prompts import Prompt

__all__ = ["PolicyText", "PromptNames"]

Read = Callable[[Sequence[dict]], str]
"""A conversation as text."""


class PromptNames:
    """Prompts by id, by their text (`conversation_text`), or by their text in a chat template.

    Texts are compared as they are: two prompts that differ in white space only are two prompts.

    - `template`: renders a conversation as the policy reads it. Called once for every prompt, at
      the first look-up of a text.
    """

    def __init__(self, prompts: Sequence[Prompt], template: Read | None = None):
        self.prompts = {p.id: p for p in prompts}
        self._template = template

    def find(self, key: str | None, *, by_text: bool = False) -> Prompt:
        """The prompt named by `key`: by its id, or else by its text.

        - `by_text`: by its text only, since an id may be the text of another prompt.

        Raises DataError for unknown prompts, and for text that two prompts share.
        """
        if isinstance(key, str):
            if key in self.prompts and not by_text:
                return self.prompts[key]
            matches = self._by_text.get(key, [])
            if len(matches) > 1:
                raise DataError(
                    f"{len(matches)} prompts have the text {_check.short(key)}, first "
                    f"{matches[0].id!r} and {matches[1].id!r}. Name prompts by id."
                )
            if matches:
                return matches[0]
        raise DataError(
            f"prompt_id {_check.short(key)} is not one of the {len(self.prompts)} prompts of the "
            f"run, by {'' if by_text else 'id or by '}text. Train on the prompts that were "
            "calibrated: `infalign export-prompts` writes them."
        )

    @cached_property
    def _by_text(self) -> dict[str, list[Prompt]]:
        """The prompts of each text, plain or in the template: one may be the other of another
        prompt."""
        matches: dict[str, list[Prompt]] = {}
        for prompt in self.prompts.values():
            texts = {read(prompt.messages) for read in (conversation_text, self._template) if read}
            for text in texts:
                matches.setdefault(text, []).append(prompt)
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

        It is the text that `infalign.text.decoded` gives for the response's own tokens: up to the
        end token, without special tokens, with its white space. Raises DataError when `query` does
        not consist of `prompt` and a response, and when the text cannot be told, because a special
        token may split a character.
        """
        text = query[self._end(query, prompt) :]
        if self.tokenizer.eos_token:
            text = text.partition(self.tokenizer.eos_token)[0]
        parts = [part for part in self._special.split(text) if part]
        if any("\ufffd" in (a[-1], b[0]) for a, b in pairwise(parts)):
            raise DataError(
                f"The response {_check.short(text)} has a special token beside an unfinished "
                "character. Without the token they may be one character, but its bytes are not in "
                "the query. Let responses end at that token, or train with TRL or verl, which pass "
                "token ids."
            )
        text = "".join(parts)
        return text.removeprefix(" ") if self._drops_space else text

    def _end(self, query: str, prompt: str) -> int:
        """Where `prompt` ends in `query`; only special tokens and white space may come first."""
        texts = [prompt]
        if prompt not in query:
            ids = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
            texts = [str(self.tokenizer.decode(ids))]  # decoding may not return the encoded text
        for text in filter(None, texts):
            start = query.find(text)
            if start >= 0 and not self._special.sub("", query[:start]).strip():
                return start + len(text)
        raise DataError(
            f"The query {query[:80]!r} does not contain its prompt, {prompt[:80]!r}, so its "
            "response cannot be read. Was the prompt truncated to the maximum length? Allow "
            "more tokens, or leave long prompts out."
        )

    @cached_property
    def _special(self) -> re.Pattern:
        """Any special token: those with a role, and all others that decoding leaves out."""
        added = getattr(self.tokenizer, "added_tokens_decoder", {}).values()
        tokens = {*self.tokenizer.all_special_tokens, *(t.content for t in added if t.special)}
        longest_first = sorted(filter(None, tokens), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    @cached_property
    def _drops_space(self) -> bool:
        """Whether a response that is decoded alone loses a first space, as with SentencePiece."""
        ids = self.tokenizer("a a", add_special_tokens=False)["input_ids"]
        read = self.tokenizer.decode
        ends = [i for i in range(len(ids)) if read(ids[:i]) == "a"]
        return bool(ends) and read(ids) == "a a" and read(ids[ends[0] :]) == "a"
