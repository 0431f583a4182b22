"""Former module paths, each mapped to the module that has replaced it."""

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec

MOVED = {
    "infalign.calibration.calibrators": "infalign.calibration",
    "infalign.calibration.calibrators.expected": "infalign.calibration.outlook",
    "infalign.calibration.calibrators.judge": "infalign.calibration.assessment",
    "infalign.calibration.ranks": "infalign.core",
    "infalign.calibration.store": "infalign.stores",
    "infalign.certificates": "infalign.core",
    "infalign.comparison.plan": "infalign.comparison.comparison",
    "infalign.comparison.samples": "infalign.comparison.sampling",
    "infalign.coupled_samples": "infalign.core",
    "infalign.decoding.red_team": "infalign.red_team.attack",
    "infalign.evaluation.power_law": "infalign.red_team.power_law",
    "infalign.evaluation.majority": "infalign.evaluation.votes",
    "infalign.few_samples": "infalign.core",
    "infalign.finite": "infalign.core.finite",
    "infalign.models.server": "infalign.models.model_server",
    "infalign.models.seeds": "infalign.seeds",
    "infalign.frameworks.server": "infalign.frameworks.serving",
    "infalign.pipeline.fingerprints": "infalign.models.fingerprints",
    "infalign.policies": "infalign.core",
    "infalign.procedures": "infalign.core",
    "infalign.solve": "infalign.core",
    "infalign.specs": "infalign.core",
    "infalign.transforms": "infalign.core",
    "infalign.verifiable": "infalign.core.verifiable",
}
"""Former path → present one. `infalign.design` and `infalign.fixed_point` cannot be here: importing
a module sets an attribute of that name on the package, which would replace the function."""


class _Moved(MetaPathFinder, Loader):
    def find_spec(self, fullname, path=None, target=None):
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        # The import system returns what `sys.modules` holds once the loader is done.
        sys.modules[module.__name__] = import_module(MOVED[module.__name__])


def install() -> None:
    """Make the former paths importable, even where an old folder of that name is left over."""
    sys.meta_path.insert(0, _Moved())
