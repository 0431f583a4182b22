"""The configuration: what is inconsistent is refused by name, and every key explains itself."""

import pytest
from pydantic import BaseModel

from infalign import ConfigError
from infalign.config import (
    Config,
    EvaluationPrompts,
    describe,
    load_config,
    parse_config,
    read_section,
)
from infalign.core import PROCEDURES, TRANSFORMS, RankProcedure

BASE = {
    "model": "m",
    "reward": "r",
    "prompts": {"file": "f"},
    "procedure": "best-of-n:4",
    "kl": 0.5,
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kl": None}, "give exactly one of `kl` .* and `beta`"),
        ({"beta": 1.0}, "give exactly one of `kl` .* and `beta`"),
        (
            {"procedure": "best-of"},
            r"`procedure` must be sampling, .*; got 'best-of'\. Did you mean best-of-n:N\?$",
        ),
        (
            {"against": "best-of"},
            r"`against` must be sampling, .*; got 'best-of'\. Did you mean best-of-n:N\?$",
        ),
        ({"procedure": "rewind:0.9:8"}, "`procedure` rewind:0.9:8 reads calibrated rewards.*rank"),
        ({"against": "soft-best-of-n:4:0.1"}, "`against` soft-best-of-n:4:0.1 reads calibrated"),
        ({"transform": "cubic"}, "`transform` must be identity, .*; got 'cubic'"),
        (
            {"transform": "log", "calibration": {"calibrator": "pooled"}},
            "`transform` log is infinite .*`calibration.calibrator` pooled averages",
        ),
        (
            {"evaluate": {"samples": 3}},
            "`evaluate.samples` is 3, fewer than the 4 that best-of",
        ),
        (
            {"against": "best-of-n:40"},
            "`evaluate.samples` is 32, fewer than the 40 that best-of-n:40 draws",
        ),
        ({"sampling": {"top_p": 0.9}}, "`sampling.top_p` is 0.9, but .*`infalign evaluate"),
        ({"train": {"batch_size": 20}}, r"`train.batch_size` \(20\) .* multiple of `train.group`"),
        ({"train": {"method": "group", "group": 4}}, "group needs more responses per prompt"),
        ({"train": {"select": "gold"}}, "`train.select` .* must be objective or gold:NAME.*'gold'"),
        ({"train": {"select": "gold:"}}, "`train.select` .* must be objective or gold:NAME"),
        (
            {"train": {"select": "gold:a"}},
            "`train.select` names 'a', but `evaluate.gold` has no rewards; name",
        ),
        (
            {"train": {"select": "gold:humans"}, "evaluate": {"gold": {"human": "h"}}},
            r"`train.select` names 'humans', but .* has human; .* Did you mean human\?$",
        ),
        (
            {"train": {"select": "gold:a"}, "evaluate": {"gold": {"a": "r"}}},
            "`train.select` is gold:a, which is the `reward`",
        ),
        (
            {"train": {"select": "gold:a", "steps": 50}, "evaluate": {"gold": {"a": "h"}}},
            r"nothing to choose from: `train.steps` \(50\) must exceed `train.save_steps` \(50\)",
        ),
        (
            {"train": {"select": "gold:a", "validation": 0}, "evaluate": {"gold": {"a": "h"}}},
            r"`train.validation` \(0\) must be positive",
        ),
        (
            {"train": {"select": "gold:a", "group": 2}, "evaluate": {"gold": {"a": "h"}}},
            "needs the 4 responses per prompt that best-of-n:4 draws, and validation draws 2",
        ),
        ({"train": {"steps": 0, "warm_start": 0}}, "both 0: nothing is trained"),
        ({"prompts": {"limit": 3}}, "`prompts` needs a `file` or a `dataset`"),
        ({"prompts": {"file": "f", "dataset": "d"}}, "either `file` or `dataset`, not both"),
        ({"train": {"baselines": ["rlfh"]}}, r"`train.baselines.0` .* rlhf, .*; got 'rlfh'"),
        ({"evaluate": {"promts": {}}}, r"Unknown key `evaluate.promts`.*`prompts`"),
        ({"engine": "cloud"}, "`engine` in the configuration: must be local or ray; got 'cloud'"),
    ],
    ids=str,
)
def test_what_is_inconsistent_is_refused_by_name(changes, words):
    with pytest.raises(ConfigError, match=words):
        parse_config(BASE | changes)


def test_offline_methods_need_no_on_policy_steps():
    train = {"method": "likelihood", "baselines": [], "steps": 0, "warm_start": 0}
    assert parse_config(BASE | {"train": train}).methods == ("likelihood",)


def test_a_key_of_a_part_is_named_with_the_nearest_of_that_part():
    with pytest.raises(ConfigError, match=r"Unknown key `colum`.* Did you mean `column`"):
        read_section(EvaluationPrompts, {"colum": "x"})


def test_overrides_reach_into_sections(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("model: m\nreward: r\nprompts: {file: f}\n")
    config = load_config(path, ("kl=0.25", "train.steps=7", "train.baselines=[dpo]"))
    assert (config.kl, config.train.steps, config.train.baselines) == (0.25, 7, ("dpo",))
    with pytest.raises(ConfigError, match=r"'kl.x=1': `kl` is a value, not a section"):
        load_config(path, ("kl=0.25", "kl.x=1"))


def keys(section=Config, prefix=""):
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def test_help_has_a_sentence_for_every_key():
    lines = {line.split()[0].rstrip(":"): line for line in describe() if line[:4].strip()}
    for key, field in keys():
        assert field.description and field.description.strip()[-1] in ".:", key
        assert " ".join(field.description.split()) in lines[key]


def test_help_lists_every_procedure_that_a_run_takes_and_every_transform():
    lines = {line.split()[0]: line for line in describe()}
    for name, entry in PROCEDURES.items():
        by_rank = issubclass(entry.kind, RankProcedure)
        assert (f"{entry.form}," in lines["procedure"].replace(".", ",")) == by_rank, name
    for name, entry in TRANSFORMS.items():
        assert entry.form in lines["transform"], name
