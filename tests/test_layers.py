"""Imports go down only and in no circle; the core runs without the training libraries."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from imported import imports

import infalign
from infalign import _moved

ROOT = Path(infalign.__file__).parent
LEVELS = [
    {"errors", "_moved"},
    {"_check", "_launched", "_progress", "_thinking", "disk"},
    {"storage", "seeds", "text", "json_lines", "_look", "_pages"},
    {"manifest"},
    {"core"},
    {"stores"},
    {"calibration"},
    {"shaping", "evaluation", "demo"},
    {"models", "methods", "__init__"},
    {"config"},
    {"prompts"},
    {"training", "reports", "explorer", "decoding"},
    {"comparison", "collection", "red_team", "analysis"},
    {"pipeline"},
    {"frameworks", "study"},
    {"cli"},
    {"__main__"},
]
"""Units from the bottom up. A unit imports from lower levels only, never from a sibling."""

CORE = [
    {"_shapes"},
    {"_inputs", "_order_statistics", "_quadrature", "_registry", "_roots", "_quantiles"},
    {"_interface", "_procedures", "_soft_procedures", "_transforms", "_specs"},
    {"_policies", "_raw_rewards", "_utilities", "_group_gradient"},
    {"_cell_integrals", "_random_cells"},
    {"_few_samples"},
    {"_solvers", "_certificates", "verifiable", "finite"},
    {"_design", "_compare"},
    {"__init__"},
]
"""The order inside the core: laws, policies, solvers, design. Units of one level may import each
other, but not in circles."""

LEVEL = {unit: level for level, units in enumerate(LEVELS) for unit in units}
CORE_LEVEL = {unit: level for level, units in enumerate(CORE) for unit in units}
TORCH_FROM = LEVEL["models"]
"""The lowest level that may import the training libraries."""

TORCH_NAMES = (
    "checkpoints",
    "classifier",
    "hf",
    "kl",
    "loading",
    "logits",
    "padding",
    "shared_prompts",
)
WITH_TORCH = {ROOT / "models" / f"{name}.py" for name in TORCH_NAMES}
"""Modules that are imported only where models of the transformers library run."""

HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "accelerate"}
MODULES = sorted(ROOT.rglob("*.py"))
every_module = pytest.mark.parametrize("file", MODULES, ids=lambda f: str(f.relative_to(ROOT)))


def unit(file):
    """The module or package right below the root that `file` belongs to."""
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


@cache
def imports_of(file):
    package = ["infalign", *file.relative_to(ROOT).parts[:-1]]
    return list(imports(ast.parse(file.read_text(encoding="utf-8")), package))


def module_file(name):
    """The file that importing `infalign.x.y` or the name `y` from `infalign.x` reads."""
    parts = name.split(".")[1:]
    while parts:
        path = ROOT.joinpath(*parts)
        if path.with_suffix(".py").exists():
            return path.with_suffix(".py")
        if (path / "__init__.py").exists():
            return path / "__init__.py"
        parts.pop()
    return ROOT / "__init__.py"


@cache
def own_imports(file):
    """Files of the package that `file` imports, also inside functions."""
    names = [name for name, _ in imports_of(file) if name.split(".")[0] == "infalign"]
    return sorted({module_file(name) for name in names} - {file})


def circles(graph):
    """Groups of nodes that reach each other: strongly connected components of more than one."""
    reach = {node: set(targets) for node, targets in graph.items()}
    for middle in graph:  # Warshall's algorithm
        for targets in reach.values():
            if middle in targets:
                targets |= reach[middle]
    groups = {frozenset(a for a in reach[b] if b in reach[a]) | {b} for b in graph}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def test_no_file_imports_itself_through_others():
    assert circles({file: own_imports(file) for file in MODULES}) == []


def test_circles_are_found():
    graph = {"a": ["b"], "b": ["c"], "c": ["a", "d"], "d": [], "e": ["f"], "f": ["e"]}
    assert circles(graph) == [["a", "b", "c"], ["e", "f"]]


@every_module
def test_every_module_has_its_place(file):
    assert unit(file) in LEVEL, (
        f"`{unit(file)}` is on no level: put it into LEVELS of {Path(__file__).name} and into the "
        "layers of CONTRIBUTING.md, as low as its imports allow."
    )
    if unit(file) == "core":
        assert core_unit(file) in CORE_LEVEL, "put it into CORE, as low as its imports allow"


@every_module
def test_imports_go_down(file):
    own = unit(file)
    above = [
        str(other.relative_to(ROOT))
        for other in own_imports(file)
        if unit(other) != own and not LEVEL[unit(other)] < LEVEL[own]
    ]
    assert above == [], f"level {LEVEL[own]} may import from lower levels only"


def core_unit(file):
    """The module or package of the core that `file` belongs to."""
    return file.relative_to(ROOT / "core").parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", [f for f in MODULES if unit(f) == "core"], ids=lambda f: f.name)
def test_the_core_is_ordered(file):
    level = CORE_LEVEL[core_unit(file)]
    inside = [f for f in own_imports(file) if unit(f) == "core"]
    assert [f.name for f in inside if CORE_LEVEL[core_unit(f)] > level] == []


@every_module
def test_others_use_the_core_by_its_public_face(file):
    if unit(file) == "core":
        return
    deep = [n for n, _ in imports_of(file) if n.startswith("infalign.core._")]
    assert deep == [], "import the name from `infalign.core`"


@every_module
def test_the_core_knows_numpy_and_scipy_only(file):
    if unit(file) != "core":
        return
    allowed = {"infalign", "numpy", "scipy", *sys.stdlib_module_names}
    assert {name.split(".")[0] for name, _ in imports_of(file)} <= allowed


@every_module
def test_training_libraries_are_imported_where_they_are_needed(file):
    heavy = {(n, deep) for n, deep in imports_of(file) if n.split(".")[0] in HEAVY}
    if LEVEL[unit(file)] < TORCH_FROM:
        assert heavy == set(), "lower levels run without them"
    elif unit(file) != "training" and file not in WITH_TORCH:
        at_the_top = sorted(name for name, deep in heavy if not deep)
        assert at_the_top == [], "import them inside the function that needs them"


def test_only_public_names_are_listed():
    assert dir(infalign) == sorted(infalign.__all__)
    modules = {name for name in dir(infalign) if isinstance(getattr(infalign, name), type(sys))}
    assert modules == {"finite", "verifiable"}


def test_importing_a_module_never_replaces_a_public_function():
    with pytest.raises(ModuleNotFoundError):
        __import__("infalign.design")
    assert callable(infalign.design) and callable(infalign.fixed_point)


FORMER = """
import infalign.finite, infalign.verifiable
from infalign.calibration.calibrators import Counting, Pooled, choose
from infalign.calibration.calibrators.expected import expected
from infalign.calibration.calibrators.judge import Truth
from infalign.calibration.store import CalibrationStore, StoreWriter
from infalign.certificates import objective, stationary_points
from infalign.few_samples import FewSamples
from infalign.frameworks.server import make_app
from infalign.models.seeds import request_seed, uniforms
import infalign as ia
assert infalign.finite is ia.finite and CalibrationStore is ia.CalibrationStore
assert ia.finite.__spec__.name == "infalign.core.finite"
"""


def test_former_module_paths_still_work():
    subprocess.run([sys.executable, "-c", FORMER], check=True)


def test_every_former_path_leads_to_a_module_that_exists():
    moved = {former: module_file(present) for former, present in _moved.MOVED.items()}
    roots = [former for former, file in moved.items() if file == ROOT / "__init__.py"]
    assert roots == []  # `module_file` falls back to the package where there is no such file
    taken = [former for former in moved if module_file(former).stem == former.split(".")[-1]]
    assert taken == []  # a file of that name would hide the entry


def test_importing_infalign_loads_nothing_slow():
    slow = HEAVY | {"pyarrow", "pydantic", "yaml", "matplotlib", "jinja2", "typer", "rich"}
    slow |= {"scipy.optimize", "scipy.interpolate", "scipy.stats", "scipy.linalg"}
    # Newer releases of scipy load scipy.linalg with scipy.special, which the core needs.
    code = "import sys, scipy.special; before = set(sys.modules); import infalign; "
    code += f"print(sorted({slow!r} & (set(sys.modules) - before)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
