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
