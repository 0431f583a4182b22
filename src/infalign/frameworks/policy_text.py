"""What the policy's tokenizer makes of conversations, and responses read back out of its text."""

from functools import cached_property

from infalign.errors import DataError


class PolicyText:
    """A policy's chat template and special tokens; its tokenizer is loaded when it is needed.

    - `path`: folder or hub id of the policy.
    """

    def __init__(self, path: str, trust_remote_code: bool = False):
        self.path, self.trust_remote_code = path, trust_remote_code

    @cached_property
    def tokenizer(self):
        """The tokenizer; DataError where there is none."""
        from infalign.models.loading import load_tokenizer

        return load_tokenizer(self.path, self.trust_remote_code)

    def prompt(self, messages) -> str:
        """A conversation as text that ends where the response begins."""
        from infalign.models.loading import prompt_text

        return prompt_text(self.tokenizer, messages)

    def response(self, query: str, prompt: str) -> str:
        """The response in `query`, the decoded tokens of prompt and response: without special
        tokens and outer white space, as a run's own samples are.

        Raises DataError when `query` does not begin with `prompt`.
        """
        start = query.find(prompt)  # behind a token that begins texts, perhaps
        if start < 0:
            ids = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
            prompt = self.tokenizer.decode(ids)  # what it reads back is not always what it read
            start = query.find(prompt)
        if not prompt or start < 0:
            raise DataError(
                f"The query {query[:80]!r} does not hold its prompt, {prompt[:80]!r}, so the "
                "response cannot be told from it. Was the prompt cut to the longest that is "
                "allowed? Allow more tokens, or leave long prompts out."
            )
        text = query[start + len(prompt) :]
        for token in self.tokenizer.all_special_tokens:
            text = text.replace(token, "")
        return text.strip()
