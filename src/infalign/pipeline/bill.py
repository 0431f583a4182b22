"""What a run or a comparison cost, for its report: responses, tokens and time."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from infalign import storage
from infalign.comparison.comparison import Comparison
from infalign.errors import DataError
from infalign.reports.origin import Cost, Origin
from infalign.stores import read_samples

from .costs import last_evaluation, spent
from .folder import Run
from .workload import FIRST_SET, training

__all__ = ["origin_of", "origin_of_comparison"]


def origin_of(run: Run, command: str) -> Origin:
    """The origin of an evaluated run.

    Responses and tokens of the calibration and the evaluation are those that are stored; those of
    the trainings follow from the settings and the mean length of the policy's responses.
    """
    seconds, results = spent(run.folder), storage.read_json(run.folder / "evaluation/results.json")
    lengths = {policy["method"]: policy["mean_tokens"] for policy in results["policies"]}
    costs = [_calibration(run, seconds)]
    for method in run.config.methods:
        landing = results["landing"][method]
        # Earlier searches drew all responses anew in every try; now a part of them comes first.
        sets = FIRST_SET + len(landing["drawn"]) if "drawn" in landing else len(landing["tried"])
        written = training(run, method, sets=sets).generated
        length = lengths[method]
        tokens = None if length is None else round(written * length)
        costs.append(Cost(f"train {method}", written, tokens, seconds.get(f"train {method}")))
    costs.append(_evaluation(run.folder, run.compared(), seconds))
    return Origin(command, last_evaluation(run.folder), costs)


def origin_of_comparison(folder: Path, comparison: Comparison, command: str) -> Origin:
    """The origin of a comparison in `folder`."""
    cost = _evaluation(folder, comparison, spent(folder))
    return Origin(command, last_evaluation(folder), [cost])


def _calibration(run: Run, seconds: Mapping[str, float]) -> Cost:
    """The cost of the calibration; nothing is counted of a store that another run made."""
    time = seconds.get("calibrate")
    if not run.store_path.absolute().is_relative_to(run.folder.absolute()):
        return Cost("calibrate, with stored samples", None, None, time)
    try:
        rows = read_samples(run.store_path, ["tokens"])
    except DataError:  # a store of rewards only
        return Cost("calibrate", None, None, time)
    return Cost("calibrate", len(rows), _tokens(rows), time)


def _evaluation(folder: Path, comparison: Comparison, seconds: Mapping[str, float]) -> Cost:
    tables = [
        storage.read_table(folder / "evaluation" / f"{name}.parquet").select(["tokens"])
        for name in comparison.models
    ]
    rows = pa.concat_tables(tables, promote_options="permissive")
    return Cost("evaluate", len(rows), _tokens(rows), seconds.get("evaluate"))


def _tokens(rows: pa.Table) -> int | None:
    """The tokens of the rows; None if some are not known."""
    values = rows["tokens"]
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        values = pc.list_value_length(values)
    return None if values.null_count else int(pc.sum(values).as_py() or 0)
