"""Sampling with vLLM in this process: n responses to a prompt share one prefill."""

from collections.abc import Sequence

from infalign.errors import MissingExtraError, install
from infalign.seeds import prompt_keys, request_seed
from infalign.text import decoded

from .checkpoints import require_merged
from .interfaces import Conversation, Response
from .limits import prompt_ids
from .loading import load_tokenizer, outline

__all__ = ["VLLMModel"]


class VLLMModel:
    """A causal language model run by `vllm.LLM`, as a `Sampler`.

    Prompts and responses are tokenized as by `LanguageModel`, and the log-probability is that of
    the sampling distribution, so the two are interchangeable.

    - `path`: folder or hub id.
    - `strip`: remove white space at both ends of the responses' texts.
    - `options`: further arguments of `vllm.LLM`, such as `gpu_memory_utilization`.

    Raises MissingExtraError without `vllm`. vLLM starts processes, so a script that uses it needs
    `if __name__ == "__main__":`.
    """

    def __init__(
        self,
        path,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_new_tokens: int = 128,
        strip: bool = False,
        trust_remote_code: bool = False,
        **options,
    ):
        from transformers import AutoModelForCausalLM

        try:
            import vllm
        except ImportError:
            raise MissingExtraError(
                "Sampling with vLLM needs `vllm`. Install it with: "
                f"{install('vllm')} (docs.vllm.ai says which build a machine needs)"
            ) from None
        self._params = vllm.SamplingParams
        self.path, self.temperature, self.top_p = path, temperature, top_p
        self.max_new_tokens, self.strip = max_new_tokens, strip
        # The engine has no weights in this process: prompts are checked against the outline.
        self._who = f"The model {str(path)!r}"
        require_merged(path, self._who, "be run by vLLM")
        self._outline = outline(AutoModelForCausalLM, path, trust_remote_code, "The model")
        self.tokenizer = load_tokenizer(path, trust_remote_code)
        self.engine = vllm.LLM(
            model=str(path),
            trust_remote_code=trust_remote_code,
            logprobs_mode="processed_logprobs",  # after temperature and top-p
            **options,
        )

    def sample(
        self,
        conversations: Sequence[Conversation],
        n: int,
        *,
        seed: int,
        keys: Sequence[str] | None = None,
        first: int = 0,
    ) -> list[list[Response]]:
        """`n` responses to each conversation, reproducible for the same seed, key and engine.

        - `keys`: one name for each conversation, all different. Default: "0", "1", …
        - `first`: number of the first response to each, after those that were drawn before.
        """
        keys = prompt_keys(keys, conversations)
        new = self.max_new_tokens
        rows = prompt_ids(self._outline, self.tokenizer, conversations, keys, new, self._who)
        prompts = [{"prompt_token_ids": ids} for ids in rows]
        # The engine seeds the n draws of a prompt with consecutive numbers, starting at its seed.
        params = [
            self._params(
                n=n,
                temperature=self.temperature,
                top_p=self.top_p,
                max_tokens=self.max_new_tokens,
                # 62 bits leave room for these numbers below 2⁶³.
                seed=request_seed(seed, key, bits=62) + first,
                logprobs=0,
            )
            for key in keys
        ]
        outputs = self.engine.generate(prompts, params, use_tqdm=False)
        return [
            [self._response(o) for o in sorted(x.outputs, key=lambda o: o.index)] for x in outputs
        ]

    def _response(self, output) -> Response:
        ids = tuple(output.token_ids)
        (text,) = decoded(self.tokenizer, [ids], strip=self.strip)
        return Response(text, ids, float(output.cumulative_logprob))
