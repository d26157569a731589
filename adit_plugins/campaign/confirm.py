"""A second opinion: another potential judges the candidates, from where the first one left them.

Two potentials that were trained apart are seldom wrong about the same crystal in the same way, so
where they agree a verdict is worth more, and where they do not a person should look. The verdict
of the first one stays what ranks; the second's stands beside it.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

from ase import Atoms

from adit_plugins.campaign import work
from adit_plugins.campaign.jobs import Job, Jobs, Killer
from adit_plugins.campaign.settings import Resources, Settings
from adit_plugins.campaign.store import Store
from adit_plugins.campaign.work import Confirmed, Placed
from adit_plugins.metrics.stability import METASTABLE, is_within
from adit_plugins.relax.results import RelaxResult, kind_of

CONFIRM = "confirm"
CONFIRMED = "candidates confirmed"
CHUNK = 2  # candidates; each costs seconds, and a chunk is written when it is finished
# What a row has by this stage; of another potential asked before nothing stays.
COLUMNS = (
    "confirm_potential", "confirm_outcome", "confirm_energy_above_hull",
    "confirm_raw_energy_above_hull", "confirm_start_energy_above_hull", "confirm_difference",
    "confirm_agrees",
)  # fmt: skip
Report = Callable[[str, int, int], None]


def confirm_candidates(
    store: Store,
    settings: Settings,
    resources: Resources,
    jobs: Jobs,
    report: Report,
    deadline: float = math.inf,
) -> int:
    """Ask the second potential about every candidate that it has not judged yet.

    Args:
        store: of a campaign whose relaxations are finished, and its duplicates marked.
        settings: which potential, how many steps, and up to which distance from the hull.
        resources: how many candidates go to a worker at once.
        jobs: of an executor; what else is at work there is left to itself.
        report: told (stage, done, total).
        deadline: of `time.monotonic`, after which no more is asked.

    Returns:
        How many candidates were left because of the deadline.

    Raises:
        RelaxerError: the potential cannot be loaded, or no worker can start.
        StoreError: the store cannot be written.
    """
    if settings.confirm is None:
        return 0
    left = [row_id for row_id in store.candidates() if _is_asked(store, row_id, settings)]
    if not left:
        return 0
    function = partial(
        work.confirm_and_place, settings.confirm, settings.fmax, settings.confirm_steps,
        hull=settings.hull,
    )  # fmt: skip
    chunks = _chunks(store, left, resources.chunk_size or CHUNK)
    window = 2 * (getattr(jobs.executor, "num_workers", None) or resources.workers or 1)
    done = running = 0
    report(CONFIRMED, done, len(left))
    while done < len(left) and time.monotonic() < deadline:
        for chunk in islice(chunks, max(0, window - running)):
            ids, structures = map(list, zip(*chunk, strict=True))
            jobs.submit(Job(CONFIRM, function, structures, ids))
            running += 1
        for job, answers in jobs.finished():
            if job.name != CONFIRM:
                continue
            for row_id, answer in zip(job.keys, answers, strict=True):
                store.annotate(row_id, *_annotation(store, row_id, answer, settings.confirm))
                done += 1
            running = len(jobs)
            report(CONFIRMED, done, len(left))
    return len(left) - done


def _is_asked(store: Store, row_id: int, settings: Settings) -> bool:
    row = store.row(row_id)
    near = is_within(row.get("energy_above_hull"), settings.confirm_limit)
    return near and row.data.get(CONFIRM, {}).get("relaxer") != settings.confirm


def _chunks(store: Store, ids: list[int], size: int) -> Iterator[list[tuple[int, Atoms]]]:
    for start in range(0, len(ids), size):
        part = [(row.id, row.toatoms()) for row in store.rows(ids=ids[start : start + size])]
        for _, atoms in part:
            atoms.info = {}  # ASE puts the columns there; workers need none of them
        yield part


def _annotation(
    store: Store, row_id: int, answer: Confirmed | Killer, name: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    row = store.row(row_id)
    if isinstance(answer, Killer):
        reason = f"quarantined: {answer.reason}"
        failed = Placed(RelaxResult.failure(row.toatoms(), reason, name))
        answer = Confirmed(failed, failed)
    end, start = answer.end, answer.start
    columns: dict[str, Any] = dict.fromkeys(COLUMNS) | {
        "confirm_potential": end.result.potential,
        "confirm_outcome": kind_of(end.result.reason),
    }
    if end.hull is not None:
        own, other = float(row["energy_above_hull"]), end.hull.energy_above_hull
        columns |= {
            "confirm_energy_above_hull": other,
            "confirm_raw_energy_above_hull": end.hull.raw_energy_above_hull,
            "confirm_start_energy_above_hull": start.hull and start.hull.energy_above_hull,
            "confirm_difference": other - own,
            "confirm_agrees": is_within(own, METASTABLE) == is_within(other, METASTABLE),
        }
    record = end.result.as_record() | {
        "relaxer": name,
        "hull": None if end.hull is None else dataclasses.asdict(end.hull),
        "hull_problem": end.hull_problem,
        "start_energy": start.result.energy,
        "positions": end.result.atoms.positions,
        "cell": end.result.atoms.cell.array,
    }
    return columns, {CONFIRM: record}
