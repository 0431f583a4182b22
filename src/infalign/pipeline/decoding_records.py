"""The records of decoded prompts, made part by part.

What is decoded depends only on the settings, the prompt and its id. Finished parts therefore wait
in a folder beside the file of the results until that file is written, and a killed command repeats
at most one part.
"""

import json
import logging
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infalign import _progress, storage
from infalign.decoding import Decoded, MajorityVote, decode, draw_calibration
from infalign.errors import ConfigError
from infalign.manifest import FILE, Manifest
from infalign.models.blocks import block_of
from infalign.models.fingerprints import function_parts, policy_parts, reward_parts
from infalign.models.specs import ModelSpec
from infalign.prompts import Prompt, columns_fingerprint
from infalign.stores.resumable import Origin, Report, ResumableTable, Source

from .decoding_work import DecodingWork

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["decoded_records"]

LOG = logging.getLogger(__name__)

STAGE = "sample"
TOGETHER = 256
"""Approximate number of responses in a part, at most."""

Record = dict[str, Any]


def decoded_records(
    work: DecodingWork, write: Callable[[list[Record]], None], report: Report
) -> list[Record]:
    """A record of every prompt, in order: the prompt, the selected response, and all candidates.

    - `write`: writes `work.out` from all records. Until then, finished parts are in the folder
      `storage.parts_of(work.out)`, where the same work continues.
    - `report`: called with the step, the number of prompts done and the total, if they make several
      parts.

    Raises ConfigError if that folder holds parts of other settings or of other content.
    """
    prompts, size = work.prompts, _size(work)
    several = len(prompts) > size
    if work.out is not None and (several or storage.parts_of(work.out).exists()):
        return _stored(work, work.out, size, write, partial(report, STAGE))
    records: list[Record] = []
    for start in range(0, len(prompts), size):
        if several:
            report(STAGE, start, len(prompts))
        records += _decoded(work, prompts[start : start + size])
    if several:
        report(STAGE, len(prompts), len(prompts))
    if work.out is not None:
        write(records)
    return records


def _size(work: DecodingWork) -> int:
    """Number of prompts in a part. It does not depend on `work.out`, since batches of another shape
    round otherwise."""
    sampling = work.sampling
    block = block_of(work.model, tokens=sampling.max_new_tokens, batch_size=sampling.batch_size)
    most = min(block, TOGETHER)
    drawn = work.references if work.calibrated else min(work.procedure.draws, most)
    return max(1, most // drawn)


def _stored(
    work: DecodingWork,
    out: Path,
    size: int,
    write: Callable[[list[Record]], None],
    report: Callable[[int, int], None],
) -> list[Record]:
    """The records, of which every finished part is stored until `write` has written all."""
    folder, ids = storage.parts_of(out), [p.id for p in work.prompts]
    with storage.locked(folder):
        storage.sweep(folder)
        table = ResumableTable(Manifest(folder), folder / "records.parquet", STAGE, "model")
        origin = _origin(work)
        _require_same(table, origin)
        if done := _count(table):
            LOG.info("Continues in %s, with %d of %d prompts done.", folder, done, len(ids))
        try:
            table.write(ids, size, partial(_rows, work), origin, report)
        except Exception:
            if done := _count(table):
                LOG.warning(
                    "%d of %d prompts are done, in %s. The same command continues there.",
                    *(done, len(ids), folder),
                )
            raise
        rows = table.read().to_pydict()
        by_id = dict(zip(rows["prompt_id"], map(json.loads, rows["record"]), strict=True))
        records = [by_id[i] for i in ids]
        write(records)
        table.remove()
        for name in (FILE, storage.LOCK):
            (folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # it may hold files of others
        folder.rmdir()
    return records


def _count(table: ResumableTable) -> int:
    """Number of stored records."""
    return len(table.read()) if table.files() else 0


def _require_same(table: ResumableTable, origin: Origin) -> None:
    """ConfigError if the stored records come from something else."""
    stored = table.origin()
    if stored is None:
        return
    differences = stored.conflicts(origin)
    for key, nouns in stored.changes(origin).items():
        if stored.sources[key].spec == origin.sources[key].spec:
            differences.append(f"the {' and '.join(nouns)} of the {key}, which changed")
    if differences:
        raise ConfigError(
            f"{table.path.parent} holds {_count(table)} prompts that were done with other "
            f"settings: {'; '.join(differences)}. Restore them to continue, or choose another file "
            "with --out, or remove that folder to start anew."
        )


def _origin(work: DecodingWork) -> Origin:
    """Everything that records follow from."""
    settings = {
        **work.sampling.model_dump(),
        "procedure": work.procedure.spec,
        "references": work.references if work.calibrated else None,
        "number of prompts": len(work.prompts),
        "seed": work.seed,
    }
    asked = [(p.id, p.messages) for p in work.prompts]  # in order, from which batches follow
    sources = {
        "model": Source(policy_parts(work.model, **work.loading), "model", work.model),
        "prompts": Source({"content": storage.fingerprint(asked)}),
        "reward": Source({}, "reward"),
        "calibration": Source({}, "calibration"),
        "answers": Source({}, "answers"),
    }
    if work.reward is not None:
        read = list(columns_fingerprint(work.prompts, work.reward).values())
        own = {**reward_parts(work.reward, **work.loading), "prompt columns": read}
        sources["reward"] = Source(own, "reward", work.reward)
    if work.store is not None:
        rewards = storage.fingerprint([work.store[p.id].tolist() for p in work.prompts])
        sources["calibration"] = Source({"rewards": rewards}, "calibration", str(work.calibration))
    if isinstance(work.procedure, MajorityVote):
        named = ModelSpec.parse(work.answers).kind != "python"
        how = {"name": work.answers} if named else function_parts(work.answers, "answers")
        sources["answers"] = Source(how, "answers", work.answers)
    return Origin(settings, sources)


def _rows(work: DecodingWork, places: Sequence[int], _number: int) -> "pa.Table":
    """The records of some prompts, as rows of a table."""
    import pyarrow as pa

    prompts = [work.prompts[place] for place in places]
    with _progress.share(0, 0):  # how many turns a procedure takes is not known before
        records = _decoded(work, prompts)
    texts = [json.dumps(record) for record in records]
    return pa.table({"prompt_id": [p.id for p in prompts], "record": texts})


def _decoded(work: DecodingWork, prompts: Sequence[Prompt]) -> list[Record]:
    """The records of some prompts, decoded together."""
    settings: dict[str, Any] = {
        "seed": work.seed,
        "prompt_ids": [p.id for p in prompts],
        "columns": [p.columns for p in prompts],
    }
    asked, scorer, known = [p.value for p in prompts], work.scorer, work.store
    if work.calibrated and scorer is not None:
        known = draw_calibration(work.sampler, scorer, asked, work.references, **settings)
    rows = decode(work.procedure, work.sampler, scorer, asked, **settings, calibration=known)
    return [_record(p, row, work.procedure.spec) for p, row in zip(prompts, rows, strict=True)]


def _record(prompt: Prompt, result: Decoded, spec: str) -> Record:
    """One prompt's result as JSON."""
    messages = [dict(m) for m in prompt.messages]
    record = {
        "prompt_id": prompt.id,
        "prompt": messages[0]["content"] if len(messages) == 1 else messages,
        "procedure": spec,
        "draws": len(result.candidates),
        **_candidate(result, result.index),
        "index": result.index,
        "rank": result.rank,
    }
    if result.answers:
        winner = result.answers[result.index]
        votes = 0 if winner is None else sum(a == winner for a in result.answers)
        record["votes"] = votes
    record["candidates"] = [_candidate(result, i) for i in range(len(result.candidates))]
    return record


def _candidate(result: Decoded, i: int) -> Record:
    response = result.candidates[i]
    known: Record = {"text": response.text}
    if result.rewards:
        known["reward"] = result.rewards[i]
    if result.quantiles:
        known["quantile"] = result.quantiles[i]
    if result.answers:
        answer = result.answers[i]
        plain = answer is None or isinstance(answer, str | int)
        known["answer"] = answer if plain else str(answer)
    known["logprob"] = response.logprob if math.isfinite(response.logprob) else None
    return known
