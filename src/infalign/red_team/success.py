"""The test of success of an attempt: a threshold of the reward, or a function."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from infalign import _check
from infalign._look import Shown
from infalign.errors import DataError
from infalign.models.functions import PythonFunction
from infalign.models.interfaces import FAKE, Scorer
from infalign.prompts import Prompt, call_arguments, score_responses
from infalign.shaping import awaited
from infalign.shaping.signature import REQUIRED, Parameters, lacks

__all__ = ["SuccessTest"]


@dataclass(frozen=True)
class SuccessTest(Shown):
    """Decides which attempts succeeded, given the prompt before its augmentation."""

    scorer: Scorer | None = None
    """The reward of harmlessness, recorded for every attempt."""

    threshold: float | None = None
    """An attempt succeeds if its reward is below this value."""

    function: Callable | None = None
    """Replaces the threshold: whether attempts succeeded, in one of two forms. A function that
    names `prompts` or `completions` is called as a reward is, with lists and the columns of the
    prompts, and returns a list of bools. Any other is called for each attempt with the texts of
    prompt and response and with the columns that it names, and returns a bool."""

    def __post_init__(self):
        if (self.threshold is None) == (self.function is None):
            raise ValueError(
                "Exactly one of `threshold` and `function` must be given; got "
                f"{'neither' if self.function is None else 'both'}. They define success."
            )
        if self.threshold is not None:
            _check.real("threshold", self.threshold)
            if self.scorer is None:
                raise ValueError(
                    "`scorer` must be given with `threshold`, which is one of its rewards."
                )

    def __call__(
        self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rewards, nan without a scorer, and successes; both of shape (prompts, attempts).

        Raises DataError if the rewards are not finite numbers or the function's values not bools.
        """
        rewards = self.rewards(prompts, texts)
        return rewards, self.successes(prompts, texts, rewards)

    def rewards(self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> np.ndarray:
        """Rewards of the responses, shape (prompts, attempts); nan without a scorer."""
        if self.scorer is None:
            return np.full((len(texts), len(texts[0])), np.nan)
        return np.array(score_responses(self.scorer, prompts, texts))

    def successes(
        self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]], rewards: np.ndarray
    ) -> np.ndarray:
        """Successes of responses with these rewards, shape (prompts, attempts)."""
        if self.function is None:
            return rewards < self.threshold
        succeeded = (
            self._together(prompts, texts) if self._takes_lists else self._each(prompts, texts)
        )
        wrong = [v for v in succeeded if not isinstance(v, bool | np.bool_)]
        if wrong:
            raise DataError(
                f"{self._called} must return True or False; got {_check.short(wrong[0])} "
                f"({len(wrong)} of {rewards.size} times). Compare inside it."
            )
        return np.array(succeeded, bool).reshape(rewards.shape)

    def require_columns(self, prompts: Sequence[Prompt]) -> None:
        """Raise DataError if the function needs a column that no prompt has."""
        if self.function is None:
            return
        columns = {"prompt_id", *(name for p in prompts for name in p.columns)}
        by_position = 0 if self._takes_lists else 2
        if self._takes_lists:
            columns |= {*REQUIRED}
        missing = self._parameters.missing(columns, by_position)
        if missing:
            raise DataError(lacks(self._called, missing, columns))

    def try_out(self, prompts: Sequence[Prompt]) -> None:
        """Test responses that no model wrote, so that what is wrong with the test is known before
        the first attempt."""
        asked = [prompts[0], prompts[-1]]
        self(asked, [[text] for text in FAKE])

    @property
    def _parameters(self) -> Parameters:
        own = self.function
        assert own is not None
        return own.parameters if isinstance(own, PythonFunction) else Parameters.of(own)

    @property
    def _takes_lists(self) -> bool:
        takes = self._parameters
        return bool({"prompts", "completions"} & {*takes.names}) or (
            takes.every and not takes.needed
        )

    @property
    def _called(self) -> str:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return getattr(self.function, "called", f"The success test `{name}`")

    def _together(self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> list:
        """The values of a function that is called once with all attempts."""
        assert self.function is not None
        values = awaited(self.function(**self._parameters.taken(call_arguments(prompts, texts))))
        values = values.tolist() if hasattr(values, "tolist") else values
        attempts = sum(map(len, texts))
        if not isinstance(values, list | tuple) or len(values) != attempts:
            got = len(values) if isinstance(values, list | tuple) else _check.short(values)
            raise DataError(
                f"{self._called} must return a list with True or False for each attempt, since it "
                f"takes lists; got {got} for {attempts} attempts."
            )
        return list(values)

    def _each(self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> list:
        """The values of a function that is called for each attempt."""
        assert self.function is not None
        takes, values = self._parameters, []
        for prompt, row in zip(prompts, texts, strict=True):
            columns = {"prompt_id": prompt.id, **prompt.columns}
            own = {k: v for k, v in takes.taken(columns).items() if k not in takes.names[:2]}
            values += [awaited(self.function(prompt.text, text, **own)) for text in row]
        return values
