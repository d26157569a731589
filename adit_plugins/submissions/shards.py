"""A long relaxation in shards: resumable files of JSON lines, for any executor.

The first line of a shard says which structures it has and how they are relaxed, each other line is
a finished structure. A shard that was cut off goes on after its last whole line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from adit_model.outputs import replacing
from adit_plugins.outputs import without_nan
from adit_plugins.relax.files import append_durably
from adit_plugins.relax.limits import FMAX, MAX_STEPS, TIME_LIMIT_SECONDS
from adit_plugins.relax.results import RelaxResult, bare_structure
from adit_plugins.relax.run import relax

MATERIAL_ID = "material_id"


class ShardError(ValueError):
    """A shard is of another run, damaged, or not there."""


@dataclass(frozen=True)
class RelaxationSettings:
    """How structures are relaxed; the defaults are Matbench Discovery's.

    Attributes:
        relaxer: as for `adit_plugins.relax.relax`.
        fmax: eV/angstrom.
        max_steps: optimiser steps a structure.
        keep_constraints: as for `adit_plugins.relax.relax`.
    """

    relaxer: str = "chgnet"
    fmax: float = FMAX
    max_steps: int = MAX_STEPS
    keep_constraints: bool = False


@dataclass(frozen=True)
class ShardJob:
    """One shard, as a worker gets it.

    Attributes:
        path: of the shard's file.
        structures: by material id.
        settings: of the relaxation.
        workers: processes; 0 for none.
        time_limit: seconds a structure.
    """

    path: Path
    structures: Mapping[str, Atoms]
    settings: RelaxationSettings
    workers: int | None = 1
    time_limit: float = TIME_LIMIT_SECONDS


def make_jobs(
    structures: Mapping[str, Atoms],
    folder: Path,
    settings: RelaxationSettings,
    num_shards: int,
    **more: Any,
) -> list[ShardJob]:
    """Cut structures into shards of about equal numbers of atoms, always in the same way.

    Args:
        structures: by material id.
        folder: for the shards' files.
        settings: of the relaxation.
        num_shards: how many.
        more: fields of `Job`.

    Raises:
        ValueError: fewer structures than shards.
    """
    if not 1 <= num_shards <= len(structures):
        raise ValueError(f"{num_shards=} must be from 1 to the {len(structures)} structures")
    by_size = sorted(structures, key=lambda name: (-len(structures[name]), name))
    folder.mkdir(parents=True, exist_ok=True)
    return [
        ShardJob(
            folder / f"shard-{i}-of-{num_shards}.jsonl",
            {name: structures[name] for name in by_size[i::num_shards]},
            settings,
            **more,
        )
        for i in range(num_shards)
    ]


def run_jobs(
    jobs: Sequence[ShardJob],
    executor: Executor | None = None,
    on_result: Callable[[str], None] | None = None,
) -> None:
    """Finish the shards, here or by an executor (processes, Parsl, Dask, ...).

    Args:
        jobs: of `make_jobs`.
        executor: None does one shard after the other, each in `Job.workers` processes.
        on_result: called with the material id of each structure that this process has finished.

    Raises:
        ShardError: a file is of another run.
        RelaxerError: the potential cannot be loaded.
    """
    if executor is None:
        for job in jobs:
            run_job(job, on_result)
    else:
        for future in [executor.submit(run_job, job) for job in jobs]:
            future.result()


def run_job(job: ShardJob, on_result: Callable[[str], None] | None = None) -> Path:
    """Relax what a shard lacks; every structure is on disk as soon as it is finished.

    Raises:
        ShardError: the file is of another run.
        RelaxerError: the potential cannot be loaded.
    """
    done = {record[MATERIAL_ID] for record in _opened(job)}
    missing = [name for name in job.structures if name not in done]

    def keep(place: int, result: RelaxResult) -> None:
        append_durably(job.path, json.dumps(record_of(missing[place], result)) + "\n")
        if on_result is not None:
            on_result(missing[place])

    relax(
        [job.structures[name] for name in missing],
        **asdict(job.settings),
        workers=job.workers,
        time_limit=job.time_limit,
        on_result=keep,
    )
    return job.path


def read_jobs(jobs: Sequence[ShardJob]) -> dict[str, dict[str, Any]]:
    """Return the record of every structure by material id.

    Raises:
        ShardError: a shard or some of its structures are not there yet.
    """
    records: dict[str, dict[str, Any]] = {}
    for job in jobs:
        if not job.path.is_file():
            raise ShardError(f"{job.path} is not there yet. Run --shard for it, or all at once.")
        found = {record[MATERIAL_ID]: record for record in _opened(job)}
        if lacking := len(job.structures) - len(found):
            raise ShardError(f"{job.path} lacks {lacking} of {len(job.structures)} structures.")
        records |= found
    return records


def record_of(material_id: str, result: RelaxResult) -> dict[str, Any]:
    """Return the outcome of one structure as JSON; a failed one has its error, and no structure."""
    from adit_plugins.hull.energies import ConventionError, corrected_energy

    record: dict[str, Any] = {
        MATERIAL_ID: material_id,
        "structure": None,
        "energy": result.energy,
        "corrected_energy": None,
        "converged": result.converged,
        "n_steps": result.num_steps,
        "error": result.reason if result.failed else None,
        "potential": result.potential,
        "convention": result.convention,
        "max_force": result.max_force,
        "constraints": result.constraints,
    }
    if result.energy is None:
        return record
    if not result.atoms.pbc.all():
        return record | {"energy": None, "converged": False, "error": "it is no crystal"}
    record["structure"] = bare_structure(result.atoms).as_dict()
    try:
        record["corrected_energy"] = corrected_energy(
            result.atoms, result.energy, result.convention
        )
    except ConventionError as error:
        record["error"] = str(error)
    clean: dict[str, Any] = without_nan(record)
    return clean


def _opened(job: ShardJob) -> list[dict[str, Any]]:
    """Return what a shard holds, begun with its header if it was not there, cut after a crash."""
    header = _header(job)
    if not job.path.exists():
        with replacing(job.path) as temporary:
            temporary.write_text(json.dumps(header) + "\n", encoding="utf-8")
        return []
    lines = list(_whole_lines(job.path))
    if not lines or lines[0] != header:
        before = lines[0] if lines else "nothing"
        raise ShardError(f"{job.path} is of another run ({before}). Choose another --out.")
    return lines[1:]


def _header(job: ShardJob) -> dict[str, Any]:
    names = "\n".join(job.structures)
    return {
        "settings": asdict(job.settings),
        "structures": len(job.structures),
        "ids_sha256": hashlib.sha256(names.encode()).hexdigest(),
    }


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines; what a crash left of one is cut off.

    Raises:
        ShardError: a line before the last is damaged.
    """
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            message = f"{path}, line {number} is damaged: {error}. Delete the file to run it again."
            raise ShardError(message) from error
