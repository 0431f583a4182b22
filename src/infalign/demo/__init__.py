"""Models, rewards, prompts and the configuration that ship with the package."""

from importlib.resources import files
from pathlib import Path

from infalign.errors import DataError

__all__ = [
    "bundled",
]

FOLDER = Path(str(files(__package__)))
KINDS = {
    "model": {"language-model": "models/language-model"},
    "reward": {"helpful": "models/reward-helpful", "harmless": "models/reward-harmless"},
    "prompts": {"helpful": "prompts/helpful.jsonl", "harmless": "prompts/harmless.jsonl"},
}


def bundled(spec: str, kind: str) -> Path | None:
    """Path of `bundled:NAME`, or None when `spec` names something else.

    Raises DataError if the package has nothing of that name and `kind`.
    """
    if not spec.startswith("bundled:"):
        return None
    name = spec.removeprefix("bundled:")
    if name not in KINDS[kind]:
        raise DataError(f"There is no bundled {kind} {name!r}; there is {', '.join(KINDS[kind])}.")
    return FOLDER / KINDS[kind][name]
