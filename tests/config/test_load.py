"""Names in a configuration: each unknown one lists the known ones, with the nearest."""

import pytest

from infalign import ConfigError, parse_procedure, parse_transform
from infalign.config import parse_config
from infalign.errors import ArgumentError

CONFIG = {"model": "m", "reward": "r", "prompts": {"file": "p.jsonl"}, "procedure": "sampling"} | {
    "kl": 0.5
}


@pytest.mark.parametrize(
    ("changed", "lists", "nearest"),
    [
        ({"train": {"method": "ppo"}}, "must be one of rloo, grpo, ", None),
        ({"train": {"method": "rlo"}}, "must be one of rloo, grpo, ", "rloo"),
        ({"train": {"method": "GRPO"}}, "must be one of rloo, grpo, ", "grpo"),
        ({"procedure": "bset-of-n:4"}, "must be sampling, best-of-n:N, ", "best-of-n:N"),
        ({"procedure": "best-of-n:x"}, "must be sampling, best-of-n:N, ", ""),
        ({"transform": "expnential:4"}, "must be identity, log, ", "exponential:T"),
        ({"calibration": {"calibrator": "poled"}}, "must be auto, ecdf, tail, ", "pooled"),
        ({"engine": "rai"}, "must be local or ray", "ray"),
        ({"engine": "kubernetes"}, "must be local or ray", ""),
        ({"sampling": {"answer": "hole"}}, "must be whole or after-thinking", "whole"),
    ],
)
def test_an_unknown_name_lists_the_known_ones_with_the_nearest(changed, lists, nearest):
    with pytest.raises(ConfigError) as caught:
        parse_config(CONFIG | changed)
    message = str(caught.value)
    assert lists in message
    if nearest is not None:
        assert message.endswith(f" Did you mean {nearest}?") if nearest else "Did" not in message


@pytest.mark.parametrize(
    ("parse", "text", "nearest"),
    [
        (parse_procedure, "worst-off-n:4", "worst-of-n:N"),
        (parse_procedure, "Sampling", "sampling"),
        (parse_transform, "idntity", "identity"),
        (parse_transform, "zzz", None),
    ],
)
def test_parsers_name_the_nearest_form(parse, text, nearest):
    with pytest.raises(ArgumentError) as caught:
        parse(text)
    message = str(caught.value)
    assert message.endswith(f" Did you mean {nearest}?" if nearest else f"got {text!r}.")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"evaluate": {"gold": "x"}}, "from names to values; got 'x'. Write gold: {NAME: x}."),
        ({"evaluate": {"gold": ["x"]}}, "a map from names to values; got ['x']."),
        ({"evaluate": {"gold": {"a": 1}}}, "`evaluate.gold.a` in the configuration: must be a "),
        ({"evaluate": {"procedures": "sampling"}}, "got 'sampling'. Write procedures: [sampling]."),
        ({"train": {"steps": 1.5}}, "must be a whole number; got 1.5."),
        ({"train": {"steps": "x"}}, "must be a whole number; got 'x'."),
        ({"kl": [1]}, "must be a number; got [1]."),
        ({"kl": "x"}, "must be a number; got 'x'."),
        ({"kl": -1}, "must be greater than or equal to 0.000001; got -1."),
        ({"evidence": "x"}, "must be true or false; got 'x'."),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_form_is_refused_with_the_right_one(changed, told):
    with pytest.raises(ConfigError) as caught:
        parse_config(CONFIG | changed)
    assert told in str(caught.value) and "Input" not in str(caught.value)
