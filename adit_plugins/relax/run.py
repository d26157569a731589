"""Relax structures with any potential, in processes, losing none.

A relaxer is found by name in the entry-point group `adit.relaxers`: a factory that returns a
`Relaxer`. Every worker process calls it once. Whatever happens to one structure (an exception, an
explosion, a worker that dies or hangs) is written into its own result.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from ase import Atoms

from adit_plugins import processes, registry
from adit_plugins.processes import TIME_LIMIT, At, End, Part, WorkerStartError, available_cores
from adit_plugins.relax.limits import FMAX, MAX_STEPS, TIME_LIMIT_SECONDS, check_limits
from adit_plugins.relax.results import RelaxResult, raised, without_constraints

if TYPE_CHECKING:
    from adit_plugins.structures.samples import Convertible

__all__ = ["RelaxResult", "Relaxer", "RelaxerError", "find_relaxer", "relax"]

Chunk = list[tuple[int, Atoms]]  # structures relaxed together, with their places in the input


class Relaxer(Protocol):
    """What a relaxer offers: a name, and a verb that answers for every structure of a batch.

    A factory with an attribute `chunk_atoms` wants batches of up to so many atoms; without it
    structures come one by one. One with an attribute `check`, a function of what stands after its
    name, may refuse that before any work. A relaxer with a true attribute `keeps_constraints`
    obeys those of the structures that it is given; the others are never given any.
    """

    name: str

    def relax(self, batch: Sequence[Atoms], fmax: float, max_steps: int) -> list[RelaxResult]:
        """Relax each structure to `fmax` (eV/angstrom) within `max_steps`, in input order."""
        ...


RelaxerFactory = Callable[[], Relaxer]


class RelaxerError(RuntimeError):
    """The relaxer itself cannot be made or run; no structure is to blame."""


Said = str | RelaxerError | RelaxResult  # by a worker: its name first


def relax(
    atoms: Sequence[Convertible],
    relaxer: str | RelaxerFactory = "chgnet",
    fmax: float = FMAX,
    max_steps: int = MAX_STEPS,
    workers: int | None = None,
    on_result: Callable[[int, RelaxResult], None] | None = None,
    time_limit: float = TIME_LIMIT_SECONDS,
    chunk_atoms: int | None = None,
    keep_constraints: bool = False,
) -> list[RelaxResult]:
    """Relax positions (and the cell, for crystals) of each structure.

    Args:
        atoms: structures: ASE's, pymatgen's, RDKit's or samples; three periodic directions make a
            crystal.
        relaxer: a name for `find_relaxer`, or a factory (importable, for the processes).
        fmax: force limit, eV/angstrom.
        max_steps: optimiser steps a structure.
        workers: processes; None for one a core, 0 for none (everything in this process). A script
            that uses processes needs `if __name__ == "__main__":` around its work.
        on_result: called with the index and the result as soon as a structure is done.
        time_limit: seconds after which the process of a structure (times their number, in a
            batch) is ended, whatever it does. Relaxers have limits of their own between steps.
        chunk_atoms: atoms in a batch; None for what the relaxer wants, often one structure.
        keep_constraints: obey the constraints that structures carry (fixed atoms, symmetry). They
            are dropped otherwise, as a structure that is held has no energy to compare; the
            result says which.

    Returns:
        One result a structure, in the order of the input.

    Raises:
        UnknownPluginError: if no relaxer of that name is installed.
        RelaxerError: if the potential cannot be loaded, no worker can start, or constraints are to
            be kept and the relaxer knows none.
        ValueError: if fmax, max_steps, workers or time_limit is out of range.
        TypeError: an item is no structure, or the list is one structure.
    """
    check_limits(fmax, max_steps, workers)
    if not time_limit > 0:
        raise ValueError(f"{time_limit=} must be above 0")
    from adit_plugins.structures.given import as_atoms

    given = as_atoms(atoms, "relax")
    factory = find_relaxer(relaxer) if isinstance(relaxer, str) else relaxer
    budget = chunk_atoms or wanted_atoms(factory)
    held = [bool(each.constraints) for each in given]
    if not keep_constraints:
        given = [without_constraints(each) for each in given]
    results: dict[int, RelaxResult] = {}

    def keep(index: int, result: RelaxResult) -> None:
        if held[index]:
            result = replace(result, constraints="kept" if keep_constraints else "dropped")
        results[index] = result
        if on_result is not None:
            on_result(index, result)

    in_input_order = workers == 0 and budget is None
    jobs = [[each] for each in enumerate(given)] if in_input_order else list(batches(given, budget))
    if workers == 0:
        instance = _make(factory)
        for job in jobs:
            _check_constraints(instance, job)
            for index, result in _relax_job(instance, job, fmax, max_steps):
                keep(index, result)
    elif jobs:
        if budget is not None:  # enough batches for every worker to have one
            share = -(-sum(map(len, given)) // (workers or available_cores()))
            jobs = list(batches(given, min(budget, share)))
        work, prepare = partial(_work, fmax, max_steps), partial(_prepare, factory)
        groups = [[index for index, _ in job] for job in jobs]
        _in_processes(work, prepare, given, groups, workers, time_limit, keep)
    return [results[index] for index in range(len(given))]


def find_relaxer(spec: str) -> RelaxerFactory:
    """Return the factory behind a name.

    Args:
        spec: a name in `adit.relaxers` (`chgnet`); a name and what it takes (`mace:PATH`,
            `env:NAME_OR_PATH:module:function` for a Python of its own); or `module:function` of
            your own, which returns an ASE calculator or a `Relaxer`.

    Raises:
        UnknownPluginError: there is none of that name.
        MissingExtraError: its package is not installed.
        ValueError: what stands after the name cannot be had, as far as a factory can say at once.
    """
    name, _, argument = spec.partition(":")
    if not argument or name in registry.names("adit.relaxers"):
        factory: Callable[..., Relaxer] = registry.load("adit.relaxers", name)
        if (check := getattr(factory, "check", None)) is not None:
            check(argument)
        return partial(factory, argument) if argument else factory
    try:
        found = getattr(import_module(name), argument)
    except ModuleNotFoundError as error:
        known = ", ".join(registry.names("adit.relaxers"))
        raise registry.UnknownPluginError(
            f"No relaxer '{spec}': there is no module '{error.name}'. Known: {known}, "
            "and module:function of your own on the Python path."
        ) from error
    except AttributeError as error:
        raise registry.UnknownPluginError(f"No relaxer '{spec}': {error}.") from error
    if not callable(found):
        raise registry.UnknownPluginError(f"No relaxer '{spec}': it is not callable.")
    return _Custom(spec, found)


def wanted_atoms(factory: RelaxerFactory) -> int | None:
    """Return how many atoms a relaxer wants in a batch; None if it takes structures one by one."""
    wanted: int | None = getattr(getattr(factory, "func", factory), "chunk_atoms", None)
    return wanted


@lru_cache(maxsize=8)
def atoms_wanted_by(spec: str) -> int | None:
    """What `wanted_atoms` is of a relaxer's name, which is looked up once.

    It may be in the list of any package that is installed, and to read all of these takes longer
    than to check a structure.
    """
    return wanted_atoms(find_relaxer(spec))


def load_relaxer(spec: str) -> Relaxer:
    """Find a potential by its name and load it.

    Raises:
        UnknownPluginError, MissingExtraError: as for `find_relaxer`.
        RelaxerError: it cannot be loaded.
    """
    return _make(find_relaxer(spec))


@dataclass(frozen=True)
class _Custom:
    """A factory of a calculator as a factory of relaxers."""

    name: str
    factory: Callable[[], Any]

    def __call__(self) -> Relaxer:
        from adit_plugins.relax.ase_relaxer import AseRelaxer

        made = self.factory()
        if hasattr(made, "relax") and hasattr(made, "name"):
            return cast(Relaxer, made)
        if not hasattr(made, "get_potential_energy"):
            raise TypeError(f"{self.name} gives no ASE calculator but a {type(made).__name__}")
        # On what scale its energies are, only their maker can say.
        return AseRelaxer(self.name, made, convention="")


def batches(atoms: Sequence[Atoms], budget: int | None) -> Iterator[Chunk]:
    """Cut structures into batches, large ones first so that no worker ends long after the others.

    Structures of similar size share a batch, which then wastes least.
    """
    job: Chunk = []
    for index in sorted(range(len(atoms)), key=lambda index: -len(atoms[index])):
        total = sum(len(each) for _, each in job) + len(atoms[index])
        if job and (budget is None or total > budget):
            yield job
            job = []
        job.append((index, atoms[index]))
    if job:
        yield job


def _in_processes(
    work: Callable[[Sequence[Atoms]], Iterator[At | Part]],
    prepare: Callable[[], None],
    atoms: Sequence[Atoms],
    groups: Sequence[Sequence[int]],
    workers: int | None,
    time_limit: float,
    keep: Callable[[int, RelaxResult], None],
) -> None:
    """Work through the batches; what dies or hangs is tried again as `processes` says."""
    name = ""
    done: set[int] = set()
    try:
        for index, said in processes.stream(work, atoms, time_limit, workers, prepare, groups):
            if isinstance(said, RelaxerError):
                raise said
            if isinstance(said, str):
                name = said
            elif isinstance(said, RelaxResult) and index not in done:
                done.add(index)
                keep(index, said)
            elif isinstance(said, End) and said.problem and index not in done:
                problem = f"{TIME_LIMIT}: no answer" if said.problem == TIME_LIMIT else said.problem
                keep(index, RelaxResult.failure(atoms[index].copy(), problem, name))
    except WorkerStartError as error:
        raise RelaxerError(str(error)) from error


_relaxer: Relaxer | RelaxerError | None = None  # of a worker process


def _prepare(factory: RelaxerFactory) -> None:
    """In a worker: load the potential, or the reason why not, before the first structure."""
    global _relaxer
    try:
        _relaxer = _make(factory)
    except (RelaxerError, registry.MissingExtraError) as error:
        _relaxer = RelaxerError(str(error))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _work(fmax: float, max_steps: int, batch: Sequence[Atoms]) -> Iterator[At | Part]:
    if _relaxer is None or isinstance(_relaxer, RelaxerError):
        yield Part(0, _relaxer or RelaxerError("no relaxer was made"))
        return
    yield At(tuple(range(len(batch))))
    job = list(enumerate(batch))
    try:
        _check_constraints(_relaxer, job)
    except RelaxerError as error:
        yield Part(0, error)
        return
    yield Part(0, _relaxer.name)
    for place, result in _relax_job(_relaxer, job, fmax, max_steps):
        yield Part(place, result)
        yield Part(place, End())


def _make(factory: RelaxerFactory) -> Relaxer:
    try:
        return factory()
    except ModuleNotFoundError as error:
        raise registry.MissingExtraError(registry.missing_package("Relaxer", error)) from error
    except Exception as error:
        raise RelaxerError(f"The relaxer cannot be loaded: {error}") from error


def _check_constraints(relaxer: Relaxer, job: Chunk) -> None:
    """Refuse what would be ignored in silence.

    Raises:
        RelaxerError: the structures carry constraints, and the relaxer knows none.
    """
    held = any(each.constraints for _, each in job)
    if held and not getattr(relaxer, "keeps_constraints", False):
        raise RelaxerError(
            f"{relaxer.name} cannot keep constraints. Take chgnet, mace:MODEL or an ASE calculator "
            "(module:function), or let them be dropped."
        )


def _relax_job(
    relaxer: Relaxer, job: Chunk, fmax: float, max_steps: int
) -> Iterator[tuple[int, RelaxResult]]:
    """Relax a batch; if it fails as a whole, each of its structures alone."""
    try:
        results = relaxer.relax([atoms for _, atoms in job], fmax, max_steps)
        if len(results) != len(job):
            raise ValueError(f"{len(results)} results for {len(job)} structures")
    except Exception as error:  # noqa: BLE001 - a stranger's relaxer may raise anything
        if len(job) > 1:
            for each in job:
                yield from _relax_job(relaxer, [each], fmax, max_steps)
            return
        results = [RelaxResult.failure(job[0][1].copy(), raised(error), relaxer.name)]
    yield from zip((index for index, _ in job), results, strict=True)
