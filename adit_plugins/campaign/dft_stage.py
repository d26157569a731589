"""The DFT queue: the elements first, then the best candidates, each result kept as it comes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ase import Atoms

from adit_model.outputs import replacing
from adit_plugins.campaign.executors import make_executor
from adit_plugins.campaign.jobs import Job, Jobs, Killer
from adit_plugins.campaign.store import Store
from adit_plugins.dft.engines import (
    DftEngine,
    DftError,
    DftVerdict,
    compute,
    find_engine,
    reference_structure,
    verdict,
    with_moments,
)
from adit_plugins.hull.loaders import DEFAULT, load_hull, reads_only_data
from adit_plugins.hull.table import Hull
from adit_plugins.outputs import without_nan
from adit_plugins.relax.limits import FMAX
from adit_plugins.relax.results import RelaxResult

REFERENCES = "dft_references.json"
Report = Callable[[str, int, int], None]
ELEMENTS, CRYSTALS = "elements by DFT", "crystals by DFT"


@dataclass(frozen=True)
class DftTask:
    """How the queue is worked on.

    Attributes:
        engine: name for `adit_plugins.dft.find_engine`.
        options: of the engine, such as cutoff.
        max_steps: of the relaxation; 0 for a single point.
        fmax: eV/angstrom.
        executor: name for `make_executor`.
        workers: processes; each computes one structure at a time.
        structures: of elements, by symbol, in the place of ASE's.
        keep_constraints: of the crystals; dropped otherwise.
    """

    engine: str = "gpaw"
    options: Mapping[str, Any] = field(default_factory=dict)
    max_steps: int = 0
    fmax: float = FMAX
    executor: str = "processes"
    workers: int | None = 1
    structures: Mapping[str, Atoms] = field(default_factory=dict)
    keep_constraints: bool = False

    @property
    def made(self) -> DftEngine:
        """The engine."""
        return find_engine(self.engine, self.options)


def compute_crystals(
    crystals: Sequence[Atoms],
    task: DftTask,
    references: Path,
    report: Report,
    on_verdict: Callable[[int, DftVerdict, RelaxResult], None],
    hull: Hull | None = None,
) -> None:
    """Compute the elements that are not known yet, then the crystals.

    Args:
        crystals: to compute; relaxed by a potential, as a rule.
        task: how.
        references: JSON file of elemental energies, continued if it is there.
        report: told (stage, done, total).
        on_verdict: called with the place of a crystal, its verdict and DFT's result.
        hull: None for the shipped one.

    Raises:
        UnknownPluginError: there is no such engine.
        MissingExtraError: its package is not installed.
    """
    engine = task.made
    known = Elements(references, engine, task)
    executor = make_executor(task.executor, task.workers, 24 * 3600.0)
    function = partial(
        compute, task.engine, dict(task.options), task.max_steps, task.fmax,
        keep_constraints=task.keep_constraints,
    )  # fmt: skip
    single_point = task.max_steps == 0
    try:
        jobs = Jobs(executor)
        symbols = sorted({symbol for atoms in crystals for symbol in atoms.symbols})
        known.add(jobs, function, symbols, report)
        report(CRYSTALS, 0, len(crystals))
        inputs = [with_moments(atoms) for atoms in crystals]
        for done, (place, result) in enumerate(_answers(jobs, function, inputs), start=1):
            found = verdict(result, engine, known.energies, single_point, hull)
            on_verdict(place, found, result)
            report(CRYSTALS, done, len(crystals))
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _answers(
    jobs: Jobs, function: Callable[[list[Any]], Any], inputs: Sequence[Atoms]
) -> Iterable[tuple[int, RelaxResult]]:
    """Compute one structure a job; yield each with its place as it is finished."""
    for place, atoms in enumerate(inputs):
        jobs.submit(Job(CRYSTALS, function, [atoms], [place]))
    while len(jobs):
        for job, (result,) in jobs.finished():
            place = job.keys[0]
            if isinstance(result, Killer):
                reason = f"killed its worker: {result.reason}"
                result = RelaxResult.failure(inputs[place].copy(), reason, "")
            yield place, result


class Elements:
    """Energies of the elements by one engine with one choice of settings, kept in a file."""

    def __init__(self, path: Path, engine: DftEngine, task: DftTask) -> None:
        self.path, self.task = path, task
        # What a relaxation changes is in the energies, too.
        steps = {"relaxed": task.max_steps > 0}
        self.key = json.dumps([engine.name, dict(engine.settings), steps], sort_keys=True)
        self.content: dict[str, dict[str, float]] = {}
        if path.is_file():
            self.content = json.loads(path.read_text(encoding="utf-8"))
        self.problems: dict[str, str] = {}

    @property
    def energies(self) -> dict[str, float]:
        """eV/atom by symbol."""
        return self.content.get(self.key, {})

    def add(
        self,
        jobs: Jobs,
        function: Callable[[list[Any]], Any],
        symbols: Iterable[str],
        report: Report,
    ) -> None:
        """Compute those that are missing; one that cannot be computed is a problem of its own."""
        structures: dict[str, Atoms] = {}
        for symbol in sorted(set(symbols) - set(self.energies)):
            try:
                given = self.task.structures.get(symbol)
                structures[symbol] = (
                    reference_structure(symbol) if given is None else with_moments(given)
                )
            except DftError as error:
                self.problems[symbol] = str(error)
        names = list(structures)
        report(ELEMENTS, 0, len(names))
        answers = _answers(jobs, function, list(structures.values()))
        for done, (place, result) in enumerate(answers, start=1):
            if result.energy_per_atom is None:
                self.problems[names[place]] = result.reason
            else:
                self.content.setdefault(self.key, {})[names[place]] = result.energy_per_atom
                with replacing(self.path) as temporary:
                    temporary.write_text(json.dumps(self.content, indent=1), encoding="utf-8")
            report(ELEMENTS, done, len(names))


def run_queue(store: Store, task: DftTask, top: int, report: Report) -> int:
    """Compute the `top` best candidates of a campaign that this engine has not computed yet.

    They are placed on the campaign's hull.

    Returns:
        How many were computed now.

    Raises:
        ValueError: reading that hull may run code; it cannot be read.
        UnknownPluginError: there is no such engine.
        MissingExtraError: its package is not installed.
        StoreError: the store cannot be written.
    """
    engine = task.made
    ids = store.candidates(top)
    left = []
    for row_id in ids:
        done = store.row(row_id).data.get("dft")
        same = done and [done["engine"], done["settings"], done["relaxed"]] == [
            engine.name, without_nan(dict(engine.settings)), task.max_steps > 0,
        ]  # fmt: skip
        if not same:
            left.append(row_id)
    crystals = [store.row(row_id).toatoms() for row_id in left]
    for atoms in crystals:
        atoms.info = {}

    def keep(place: int, found: DftVerdict, result: RelaxResult) -> None:
        store.annotate(left[place], *_annotation(found, result, task))

    if left:
        hull = hull_of(store)
        compute_crystals(crystals, task, store.folder / REFERENCES, report, keep, hull)
    return len(left)


def hull_of(store: Store) -> Hull:
    """Return the reference that a campaign is ranked by.

    Raises:
        ValueError: reading it may run code, and a store's word is not enough; it cannot be read.
    """
    spec = store.metadata["settings"].get("hull", DEFAULT)
    if not reads_only_data(spec):
        raise ValueError(
            f"{store.folder} is ranked by the hull {spec!r}, which may run any code that is there. "
            f"Compute its crystals against the shipped table: adit dft "
            f"{store.folder / 'relaxed.extxyz'}"
        )
    return load_hull(spec)


def _annotation(
    found: DftVerdict, result: RelaxResult, task: DftTask
) -> tuple[dict[str, Any], dict[str, Any]]:
    columns = {
        "dft_engine": found.engine,
        "dft_outcome": found.reason,
        "dft_energy_per_atom": found.energy_per_atom,
        "dft_formation_energy_per_atom": found.formation_energy_per_atom,
        "dft_energy_above_hull": found.energy_above_hull,
    }
    record = found.as_dict() | {"relaxed": task.max_steps > 0, "max_force": result.max_force}
    if task.max_steps:
        record |= {"positions": result.atoms.positions, "cell": result.atoms.cell.array}
    return columns, {"dft": record}
