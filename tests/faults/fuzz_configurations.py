"""Configurations with odd keys, values and bytes, given to `infalign run`."""

import copy
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import yaml

from .odd_values import damaged, scalar, text, value
from .outcomes import Verdict, judge
from .processes import infalign
from .world import CONFIG, World


def configuration(world: World, rng: random.Random) -> Callable[[Path], Verdict]:
    """A mutated configuration, as a file or through overrides."""
    overrides: list[str] = []
    if (kind := rng.randrange(10)) < 5:
        content = yaml.safe_dump(mutated(rng), allow_unicode=rng.random() < 0.5).encode(
            errors="surrogatepass"
        )
    elif kind < 7:
        content = damaged(yaml.safe_dump(CONFIG).encode(), rng)
    elif kind < 9:
        content = yaml.safe_dump(CONFIG).encode()
        overrides = [override(rng) for _ in range(rng.choice((1, 1, 2)))]
    else:
        content = tangled(rng).encode(errors="surrogatepass")
    return partial(_try, world, content, overrides)


def mutated(rng: random.Random) -> dict:
    """The configuration with a few keys set, removed, renamed or added."""
    config = copy.deepcopy(CONFIG)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        section = rng.choice(list(_sections(config)))
        key = rng.choice(sorted(section, key=str)) if section else "x"
        match rng.randrange(8):
            case 0:
                section.pop(key, None)
            case 1:
                section[text(rng)] = section.pop(key, 1)
            case 2:
                section[scalar(rng)] = value(rng)
            case 3:
                old = section.get(key)
                section[key] = old * rng.choice((0, -1, 2)) if isinstance(old, int | str) else [old]
            case _:
                section[key] = value(rng)
    return config


def _sections(config: dict) -> Iterator[dict]:
    yield config
    for own in config.values():
        if isinstance(own, dict):
            yield from _sections(own)


def _paths(config: dict, prefix: str = "") -> Iterator[str]:
    for key, own in config.items():
        yield f"{prefix}{key}"
        if isinstance(own, dict):
            yield from _paths(own, f"{prefix}{key}.")


def override(rng: random.Random) -> str:
    """`section.key=value`, or nearly."""
    key = rng.choice([*_paths(CONFIG), text(rng), "train.trl.beta", "evaluate.policies.x"])
    given = value(rng)
    shown = given if isinstance(given, str) else yaml.safe_dump(given, default_flow_style=True)
    return rng.choice((f"{key}={shown}",) * 8 + (f"{key}", f"={shown}", f"{key}.x={shown}"))


ODD_NUMBERS = ("1_0", "0x1", "0o7", "1:30", ".inf", ".nan", "2001-01-01", "1e-400", "+.5")


def tangled(rng: random.Random) -> str:
    """YAML with anchors, tags, several documents, or depth."""
    plain = yaml.safe_dump(CONFIG)
    levels = "\n".join(
        f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]" for i in range(1, rng.choice((2, 5, 9)))
    )
    return rng.choice(
        (
            f"x0: &x0 [lol, lol]\n{levels}\n{plain}",
            f"{plain}---\n{plain}",
            f"{plain}seed: &s [*s]\n",
            f"{plain}seed: !!python/object/apply:os.system ['true']\n",
            f"{plain}seed: !!binary aGk=\n",
            f"{plain}<<: {{seed: 1}}\n",
            f"{plain}{plain}",
            plain.replace("\n", "\r\n"),
            "\ufeff" + plain,
            "- " + plain.replace("\n", "\n  "),
            "[" * rng.choice((10, 500, 20000)),
            "{a: " * rng.choice((10, 500, 5000)),
            f"{plain}seed: {'9' * rng.choice((20, 400, 5000))}\n",
            f"{plain}kl: {rng.choice(ODD_NUMBERS)}\n",
            "",
            "%YAML 9.9\n---\n" + plain,
        )
    )


def _try(world: World, content: bytes, overrides: list[str], scratch: Path) -> Verdict:
    (scratch / "config.yaml").write_bytes(content)
    words = ("run", scratch / "config.yaml", *overrides, "--until", "design")
    setup = world.setup(before=only_begin)
    try:
        ended = infalign(*words, "--out", scratch / "run", setup=setup)
    except UnicodeEncodeError:  # the system has no such argument
        return judge(infalign("--version"))
    return judge(ended)


SMALL = 2_000
"""Number of tokens up to which a configuration's calibration is drawn."""


def only_begin() -> None:
    """A run ends before a calibration that asks for much work: an odd number may well be large."""
    from infalign.pipeline import stages

    draw = stages.calibrate

    def calibrate(run, report):
        config = run.config
        per_prompt = config.calibration.samples * config.sampling.max_new_tokens
        if per_prompt * len(run.prompts) > SMALL:
            raise SystemExit(0)
        draw(run, report)

    stages.calibrate = calibrate
