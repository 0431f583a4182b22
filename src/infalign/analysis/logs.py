"""Logs of evaluation harnesses as rows: one a sample, with its prompt, number and scores.

Read only, as their authors document them: inspect_ai (`.eval` and `.json`), the per-instance
statistics of HELM, and annotations of alpaca_eval. The sample files of lm-evaluation-harness, the
completions of TRL and the rollouts of verl and OpenRLHF are tables already.
"""

import json
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from infalign import _check, disk
from infalign.errors import DataError
from infalign.json_lines import read_text, value_of, why_not

from .log_fields import LIST, NULL, NUMBER, OBJECT, TEXT, Malformed, field

__all__ = ["LOGS", "NOT_RECORDED", "inspect_archive"]

Place = tuple[str, Mapping[str, Any]]

ZSTANDARD = 93
"""Number of the compression method in a ZIP archive."""

UTF_8 = 0x800
"""Flag of a member of a ZIP archive whose name is in UTF-8."""

LOCAL_HEADER = struct.Struct("<4s5H3I2H")
"""What stands before a member of a ZIP archive; its last numbers are the lengths of the name and of
the extra field behind it."""

DIRECTORY_ENTRY = b"PK\x01\x02"
"""How the entry of a member begins in the directory of a ZIP archive."""

DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError),
    *(ValueError, KeyError, RuntimeError),
)
"""What reading a damaged archive raises. RuntimeError is for a method of compression, or a
password, that a damaged entry seems to ask for."""

COPY = "Copy the file again; if its evaluation has not ended, run that again."
"""What to do about a damaged log."""

NO_SAMPLES = (
    "holds no samples, so it is not a finished log of inspect_ai. Name the log of an evaluation "
    "that has ended."
)
"""What is wrong with a log without samples, and what to do about it."""

NOT_RECORDED = "not recorded"
"""The model of a log that does not name it."""

GRADES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
"""Letters of inspect_ai: correct, incorrect, partial, no answer."""


def inspect_archive(path: Path) -> Iterator[Place]:
    """The samples of a `.eval` file of inspect_ai, a ZIP archive with a JSON file for each.

    Raises DataError with the file and the remedy for an archive without samples, or a damaged one.
    """
    try:
        with disk.reading(path), zipfile.ZipFile(path) as archive:
            _require_whole(archive)
            names = set(archive.namelist())
            head = next((n for n in ("header.json", "_journal/start.json") if n in names), None)
            about = json.loads(_unpacked(archive, archive.getinfo(head))) if head else {}
            members = [m for m in archive.infolist() if m.filename.startswith("samples/")]
            if not members:
                raise DataError(f"{path} {NO_SAMPLES}")
            for member in sorted(members, key=lambda m: m.filename):
                sample = json.loads(_unpacked(archive, member))
                yield _inspect_sample(sample, member.filename, about, path)
    except DataError:
        raise
    except DAMAGED as error:
        raise DataError(f"{path} is not a readable log of inspect_ai ({error}). {COPY}") from None


def _require_whole(archive: zipfile.ZipFile) -> None:
    """Raise BadZipFile if the directory of an archive has lost a member: its checksums are of the
    members only, so that a damaged name or length in it hides samples without an error."""
    for member in archive.infolist():
        encoding = "utf-8" if member.flag_bits & UTF_8 else "cp437"
        named = _name(archive, member) == member.orig_filename.encode(encoding)
        if not named or DIRECTORY_ENTRY in member.extra + member.comment:
            raise zipfile.BadZipFile(f"its directory is damaged at {_check.short(member.filename)}")


def _name(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The name that stands before a member. The file is at the member's bytes afterwards."""
    file = archive.fp
    assert file is not None
    file.seek(member.header_offset)
    name, extra = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))[-2:]
    own = file.read(name)
    file.seek(extra, os.SEEK_CUR)
    return own


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The bytes of a member. inspect_ai packs them with Zstandard, which Python's `zipfile` reads
    from version 3.14 on, and pyarrow always does."""
    if member.compress_type != ZSTANDARD:
        return archive.read(member)
    import pyarrow as pa

    _name(archive, member)
    assert archive.fp is not None
    packed = archive.fp.read(member.compress_size)
    unpacked = pa.decompress(packed, member.file_size, codec="zstd", asbytes=True)
    if zlib.crc32(unpacked) != member.CRC:
        raise zipfile.BadZipFile(f"bad checksum of {member.filename}")
    return unpacked


def _row(
    place: str, read: Callable[[Any], dict[str, Any]], sample: Any, path: Path, tool: str
) -> Place:
    """The row of a sample. Raises DataError with file, place and remedy for one of another form."""
    try:
        return place, read(sample)
    except (Malformed, OverflowError) as error:
        raise DataError(
            f"{path}, {place}: not a readable sample of {tool} ({error}). {COPY}"
        ) from None


def _is_inspect(value: Any) -> bool:
    """A log whose evaluation has failed may lack its samples; it has a status then."""
    if not isinstance(value, dict) or "eval" not in value:
        return False
    return "samples" in value or (isinstance(value["eval"], dict) and "status" in value)


def _inspect(value: Mapping[str, Any], path: Path) -> Iterator[Place]:
    samples = value.get("samples")
    if not samples:
        raise DataError(f"{path} {NO_SAMPLES}")
    if not isinstance(samples, list):
        raise DataError(
            f"{path} is not a readable log of inspect_ai (`samples` must be a list; got "
            f"{_check.short(samples)}). {COPY}"
        )
    for number, sample in enumerate(samples, 1):
        yield _inspect_sample(sample, f"sample {number}", value, path)


def _inspect_sample(sample: Any, place: str, log: Any, path: Path) -> Place:
    """One epoch of one sample of a log."""
    return _row(place, lambda own: _inspect_row(own, log), sample, path, "inspect_ai")


def _inspect_row(sample: Any, log: Any) -> dict[str, Any]:
    """A sample as a row. A sample that ended with an error has no scores."""
    row: dict[str, Any] = {
        "prompt_id": str(field(sample, "id", TEXT + NUMBER)),
        "sample": field(sample, "epoch", NUMBER, 1),
    }
    about = field(log, "eval", OBJECT + NULL, None) or {}
    row["model"] = _inspect_model(about)
    if (task := field(about, "task", TEXT + NULL, None)) is not None:
        row["task"] = task
    if "input" in sample:
        row["input"] = _conversation(field(sample, "input", TEXT + LIST + NULL))
    output = field(sample, "output", OBJECT + NULL, None) or {}
    if (completion := field(output, "completion", TEXT + NULL, None)) is not None:
        row["response"] = completion
    scores = field(sample, "scores", OBJECT + NULL, None) or {}
    for scorer in scores:
        score = field(scores, scorer, OBJECT)
        value = score.get("value")
        parts = value if isinstance(value, dict) else {None: value}
        for part, own in parts.items():
            name = scorer if part is None else f"{scorer}.{part}"
            row[name] = GRADES.get(own, own) if isinstance(own, str) else own
        if score.get("answer") is not None:
            row.setdefault("answer", score["answer"])
    return row


def _inspect_model(about: Any) -> str:
    """The model of a log. Local weights have one name, such as `hf/local`, and their folder is an
    argument."""
    model = field(about, "model", TEXT + NULL, None)
    folder = (field(about, "model_args", OBJECT + NULL, None) or {}).get("model_path")
    return ":".join(str(own) for own in (model, folder) if own) or NOT_RECORDED


def _conversation(value: Any) -> Any:
    """A text, or messages without their ids, which differ in every log."""
    if not isinstance(value, list):
        return value
    parts = ("role", "content")
    kinds = TEXT + LIST + NULL
    return [{part: field(own, part, kinds, None) for part in parts} for own in value]


def _is_helm(value: Any) -> bool:
    """Any instance tells, since another one may be damaged."""
    known = ("instance_id", "train_trial_index")
    return isinstance(value, list) and any(
        isinstance(own, dict) and "stats" in own and any(name in own for name in known)
        for own in value
    )


def _helm(value: list, path: Path) -> Iterator[Place]:
    """Instances are numbered within a run, whose folder has the name of its scenario."""
    about = {"model": _helm_model(path)}
    if (scenario := _scenario(path.absolute().parent.name)) is not None:
        about["task"] = scenario
    for number, instance in enumerate(value, 1):
        yield _row(f"instance {number}", lambda own: _helm_row(own, about), instance, path, "HELM")


def _helm_row(instance: Any, about: Mapping[str, Any]) -> dict[str, Any]:
    """The statistics of an instance as a row; one that counts nothing has no value."""
    row: dict[str, Any] = {
        "prompt_id": _perturbed(
            field(instance, "instance_id", TEXT + NUMBER),
            field(instance, "perturbation", OBJECT + NULL, None),
        ),
        "sample": field(instance, "train_trial_index", NUMBER, 0),
    } | dict(about)
    for stat in field(instance, "stats", LIST):
        name = field(field(stat, "name", OBJECT), "name", TEXT)
        if count := field(stat, "count", NUMBER):
            if count < 0:
                raise Malformed(f"`count` must be at least 0; got {_check.short(count)}")
            row[name] = field(stat, "sum", NUMBER) / count
    return row


def _scenario(run: str) -> str | None:
    """A run's name without its model, such as `mmlu:subject=anatomy`; None for other folders."""
    scenario, colon, settings = run.partition(":")
    if not colon:
        return None
    own = [part for part in settings.split(",") if not part.startswith(("model=", "model_"))]
    return f"{scenario}:{','.join(own)}"


def _helm_model(path: Path) -> str:
    """The model of a run by the file `run_spec.json` beside its statistics, or by the name of its
    folder, in which `/` is `_`."""
    folder = path.absolute().parent
    specification = folder / "run_spec.json"
    if str(path) != "-" and specification.is_file():
        try:
            value = value_of(read_text(specification))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{specification}: {why_not(error)}. {COPY}") from None
        adapter = value.get("adapter_spec") if isinstance(value, dict) else None
        model = adapter.get("model") if isinstance(adapter, dict) else None
        if isinstance(model, str) and model:
            return model.replace("/", "_")
    settings = folder.name.partition(":")[2].split(",")
    named = (own.removeprefix("model=") for own in settings if own.startswith("model="))
    return next(named, NOT_RECORDED)


def _perturbed(instance: Any, perturbation: Mapping[str, Any] | None) -> str:
    if perturbation is None:
        return str(instance)
    return f"{instance} ({field(perturbation, 'name', TEXT)})"


def _is_alpaca(value: Any) -> bool:
    """Any annotation tells, since another one may be damaged."""
    needed = {"instruction", "preference", "output_1", "output_2"}
    return isinstance(value, list) and any(
        isinstance(own, dict) and needed <= own.keys() for own in value
    )


def _alpaca(value: list, path: Path) -> Iterator[Place]:
    for number, annotation in enumerate(value, 1):
        yield _row(f"row {number}", _alpaca_row, annotation, path, "alpaca_eval")


def _alpaca_row(annotation: Any) -> dict[str, Any]:
    """The chance that `output_2` is preferred: a preference of 1 is the first output, 2 the
    second, and 1.5 a tie. An invalid annotation has none."""
    preference = field(annotation, "preference", NUMBER + NULL)
    if preference == 0:  # how some annotators write a tie
        preference = 1.5
    if preference is not None and not 1 <= preference <= 2:
        raise Malformed(f"`preference` must lie between 1 and 2; got {_check.short(preference)}")
    instruction = field(annotation, "instruction", TEXT)
    names = {
        name: field(annotation, name, TEXT + NULL, None)
        for name in ("generator_1", "generator_2", "annotator")
    }
    return {
        "prompt_id": instruction,
        "instruction": instruction,
        "preferred": None if preference is None else preference - 1,
        "response": field(annotation, "output_2", TEXT + NULL),
        "reference_response": field(annotation, "output_1", TEXT + NULL),
        "policy": names["generator_2"] or "output_2",
        "reference": names["generator_1"] or "output_1",
        "annotator": names["annotator"] or "judge",
    }


LOGS: tuple[tuple[Callable[[Any], bool], Callable[[Any, Path], Iterator[Place]]], ...] = (
    (_is_inspect, _inspect),
    (_is_helm, _helm),
    (_is_alpaca, _alpaca),
)
"""For each format of JSON logs: whether a value is one, and the rows of a value and its file."""
