"""Imports go down only, and the core runs without the training libraries."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import infalign

ROOT = Path(infalign.__file__).parent
LEVELS = {
    0: {"errors", "_check", "storage"},
    1: {
        "certificates",
        "collocation",
        "coupled",
        "coupled_samples",
        "design",
        "few_samples",
        "fixed_point",
        "finite",
        "groups",
        "policies",
        "procedures",
        "quadrature",
        "roots",
        "raw",
        "softened",
        "solve",
        "specs",
        "transforms",
        "verifiable",
    },
    2: {"calibration", "config"},
    3: {"shaping", "evaluation", "demo"},
    4: {"models", "prompts", "__init__"},
    5: {"training", "reports", "explorer", "decoding"},
    6: {"comparison", "collection"},
    7: {"pipeline"},
    8: {"frameworks"},
    9: {"cli", "__main__"},
}
LEVEL = {unit: level for level, units in LEVELS.items() for unit in units}
FLAT = {0, 1}
"""Levels whose units may import each other; elsewhere siblings do not know of one another."""

TORCH_NAMES = ("classifier", "hf", "kl", "loading", "logits", "shared_prompts")
WITH_TORCH = {ROOT / "models" / f"{name}.py" for name in TORCH_NAMES}
"""What is imported only where models of the transformers library run."""

HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "accelerate"}
MODULES = sorted(ROOT.rglob("*.py"))
every_module = pytest.mark.parametrize("file", MODULES, ids=lambda f: str(f.relative_to(ROOT)))


def unit(file):
    """The module or package right below the root that `file` belongs to."""
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(node, package):
    """Full names of all that the code below `node` imports, as (name, inside a function)."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, False) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            above = package[: len(package) - child.level + 1] if child.level else []
            base = ".".join([*above, *([child.module] if child.module else [])])
            yield from ((f"{base}.{alias.name}", False) for alias in child.names)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from ((name, deep or inside) for name, deep in imports(child, package))


def imports_of(file):
    package = ["infalign", *file.relative_to(ROOT).parts[:-1]]
    return list(imports(ast.parse(file.read_text(encoding="utf-8")), package))


def imported_unit(name):
    """Which unit `infalign.x.y` is; names like `infalign.BestOfN` come from `__init__`."""
    parts = name.split(".")
    known = len(parts) > 1 and (ROOT / parts[1]).with_suffix(".py").exists()
    known = known or (len(parts) > 1 and (ROOT / parts[1]).is_dir())
    return parts[1] if known else "__init__"


@every_module
def test_every_module_has_its_place(file):
    assert unit(file) in LEVEL, (
        f"`{unit(file)}` is on no level: put it into LEVELS of {Path(__file__).name} and into the "
        "layers of CONTRIBUTING.md, as low as its imports allow."
    )


@every_module
def test_imports_go_down(file):
    own, above = unit(file), []
    for name, _ in imports_of(file):
        if name.split(".")[0] != "infalign" or own not in LEVEL:
            continue
        other = imported_unit(name)
        down = LEVEL.get(other, 0) < LEVEL[own]
        if not down and other != own and not (LEVEL[other] == LEVEL[own] and LEVEL[own] in FLAT):
            above.append(name)
    assert above == [], f"level {LEVEL[own]} may import from lower levels only"


@every_module
def test_level_1_knows_numpy_and_scipy_only(file):
    if unit(file) not in LEVELS[1]:
        return
    allowed = {"infalign", "numpy", "scipy", *sys.stdlib_module_names}
    assert {name.split(".")[0] for name, _ in imports_of(file)} <= allowed


@every_module
def test_training_libraries_are_imported_where_they_are_needed(file):
    heavy = {(n, deep) for n, deep in imports_of(file) if n.split(".")[0] in HEAVY}
    if LEVEL.get(unit(file), 10) <= 3:
        assert heavy == set(), "levels 0 to 3 run without them"
    elif unit(file) != "training" and file not in WITH_TORCH:
        at_the_top = sorted(name for name, deep in heavy if not deep)
        assert at_the_top == [], "import them inside the function that needs them"


def test_importing_infalign_loads_nothing_slow():
    slow = HEAVY | {"pyarrow", "pydantic", "yaml", "matplotlib", "jinja2", "typer", "rich"}
    slow |= {"scipy.optimize", "scipy.interpolate", "scipy.stats", "scipy.linalg"}
    code = f"import infalign, sys; print(sorted({slow!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import torch.nn", [("torch.nn", False)]),
        ("from . import _check", [("infalign.models._check", False)]),
        (
            "from .. import _check, storage",
            [("infalign._check", False), ("infalign.storage", False)],
        ),
        ("from ..errors import DataError", [("infalign.errors.DataError", False)]),
        ("if True:\n import trl", [("trl", False)]),
        ("def f():\n if True:\n  import trl", [("trl", True)]),
        ("class A:\n async def f():\n  from trl import x", [("trl.x", True)]),
    ],
)
def test_the_walk_finds_every_import(code, expected):
    assert list(imports(ast.parse(code), ["infalign", "models"])) == expected
