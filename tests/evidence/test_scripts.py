"""Scripts of `evidence/` are imported by bare names, so no other module may have such a name."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def names(folder):
    return {
        path.stem
        for path in folder.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }


def test_no_script_has_the_name_of_another_module():
    scripts = names(ROOT / "evidence")
    for folder in ("tests", "bundled_models"):
        assert not scripts & names(ROOT / folder), folder
    assert not scripts & sys.stdlib_module_names
