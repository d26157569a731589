"""Relax structures with any potential, in processes, losing none.

A relaxer is found by name in the entry-point group `adit.relaxers`: a factory without arguments
that returns a `Relaxer`. Every worker process calls it once. Whatever happens to one structure
(an exception, an explosion, a worker that dies) is written into its own result.
"""

from __future__ import annotations

import math
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Protocol

from ase import Atoms

from adit_plugins import registry
from adit_plugins.workers import (
    available_cores,
    end_at_interruption,
    interruption_delayed,
    one_thread_a_child,
    stop,
)


@dataclass(frozen=True)
class RelaxResult:
    """The outcome for one structure.

    Attributes:
        atoms: the relaxed structure with energy, forces and stress attached; the input where the
            relaxation failed. `info` (with the provenance) is kept.
        converged: the largest force (and stress component, for crystals) fell below the limit.
        reason: `"converged"`, `"step limit"`, `"time limit"`, or what went wrong.
        num_steps: optimiser steps taken.
        energy: eV; None where the relaxation failed.
        energy_per_atom: eV/atom; None where the relaxation failed.
        max_force: eV/angstrom, the longest force vector at the end.
        potential: name of the relaxer.
        seconds: wall-clock time of this structure.
    """

    atoms: Atoms
    converged: bool
    reason: str
    num_steps: int
    energy: float | None
    energy_per_atom: float | None
    max_force: float | None
    potential: str
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether there is no usable energy; an unconverged result still has one."""
        return self.energy is None

    @classmethod
    def failure(
        cls, atoms: Atoms, reason: str, potential: str, num_steps: int = 0, seconds: float = 0.0
    ) -> RelaxResult:
        """Return the record of a structure whose relaxation gave no usable result."""
        return cls(atoms, False, reason, num_steps, None, None, None, potential, seconds)


class Relaxer(Protocol):
    """What a relaxer offers: a name, and a verb that answers for every structure of a batch."""

    name: str

    def relax(self, batch: Sequence[Atoms], fmax: float, max_steps: int) -> list[RelaxResult]:
        """Relax each structure to `fmax` (eV/angstrom) within `max_steps`, in input order."""
        ...


RelaxerFactory = Callable[[], Relaxer]


class RelaxerError(RuntimeError):
    """The relaxer itself cannot be made or run; no structure is to blame."""


def relax(
    atoms: Sequence[Atoms],
    relaxer: str | RelaxerFactory = "chgnet",
    fmax: float = 0.05,
    max_steps: int = 200,
    workers: int | None = None,
    on_result: Callable[[int, RelaxResult], None] | None = None,
) -> list[RelaxResult]:
    """Relax positions (and the cell, for crystals) of each structure.

    Args:
        atoms: structures; three periodic directions make a crystal.
        relaxer: a name from `adit.relaxers`, or a factory (importable, for the processes).
        fmax: force limit, eV/angstrom.
        max_steps: optimiser steps a structure.
        workers: processes; None for one a core, 0 for none (everything in this process). A script
            that uses processes needs `if __name__ == "__main__":` around its work.
        on_result: called with the index and the result as soon as a structure is done.

    Returns:
        One result a structure, in the order of the input.

    Raises:
        UnknownPluginError: if no relaxer of that name is installed.
        RelaxerError: if the potential cannot be loaded or no worker can start.
        ValueError: if fmax, max_steps or workers is out of range.
    """
    check_limits(fmax, max_steps, workers)
    if isinstance(atoms, Atoms):
        raise TypeError("relax takes a list of Atoms; put a single one into [ ]")
    factory = registry.load("adit.relaxers", relaxer) if isinstance(relaxer, str) else relaxer
    results: dict[int, RelaxResult] = {}

    def keep(index: int, result: RelaxResult) -> None:
        results[index] = result
        if on_result is not None:
            on_result(index, result)

    if workers == 0:
        instance = _make(factory)
        for index, each in enumerate(atoms):
            keep(index, _relax_one(instance, each, fmax, max_steps))
    elif len(atoms):
        count = min(workers or available_cores(), len(atoms))
        _Pool(factory, count, fmax, max_steps, keep).run(atoms)
    return [results[index] for index in range(len(atoms))]


def check_limits(fmax: float, max_steps: int, workers: int | None) -> None:
    """Refuse limits that mean nothing.

    Raises:
        ValueError: one is out of range.
    """
    if not 0 < fmax < math.inf or max_steps < 0 or (workers is not None and workers < 0):
        message = f"{fmax=} must be above 0, {max_steps=} and {workers=} at least 0"
        raise ValueError(message)


class _Pool:
    """Worker processes with never more structures out than workers.

    So a worker that dies leaves only a handful of suspects; each is tried again alone, which
    finds the one that killed it.
    """

    def __init__(
        self,
        factory: RelaxerFactory,
        workers: int,
        fmax: float,
        max_steps: int,
        keep: Callable[[int, RelaxResult], None],
    ) -> None:
        self.factory, self.workers, self.keep = factory, workers, keep
        self.limits = (fmax, max_steps)

    def run(self, atoms: Sequence[Atoms]) -> None:
        """Relax all, large structures first so that no worker ends long after the others."""
        queue = sorted(range(len(atoms)), key=lambda index: len(atoms[index]))
        with one_thread_a_child():
            while queue:
                for suspect in self._run_until_broken(atoms, queue):
                    self.keep(suspect, self._run_alone(atoms[suspect]))

    def _start(self, workers: int) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),  # fork breaks threaded torch
            initializer=_start_worker,
            initargs=(self.factory,),
        )

    def _run_until_broken(self, atoms: Sequence[Atoms], queue: list[int]) -> list[int]:
        """Work through the queue; return the structures that were out when a worker died."""
        pool = self._start(self.workers)
        running: dict[Future[RelaxResult], int] = {}
        try:
            while queue or running:
                while queue and len(running) < self.workers:
                    # Submitting to a pool that just broke raises, so the index is taken after.
                    with interruption_delayed():
                        future = pool.submit(_work, atoms[queue[-1]], *self.limits)
                    running[future] = queue[-1]
                    queue.pop()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    self.keep(running[future], future.result())
                    del running[future]
        except BrokenProcessPool:
            # With nothing out, a worker broke while idle; still take one, so that every round ends.
            return list(running.values()) or [queue.pop() for _ in queue[-1:]]
        finally:
            stop(pool)
        return []

    def _run_alone(self, atoms: Atoms) -> RelaxResult:
        pool = self._start(1)
        try:
            with interruption_delayed():
                starting = pool.submit(_worker_name)
            name = starting.result()
        except BrokenProcessPool as error:
            message = (
                "Worker processes die at the start. A script that relaxes in processes needs its "
                'work under `if __name__ == "__main__":`; or use workers=0.'
            )
            raise RelaxerError(message) from error
        else:
            try:
                return pool.submit(_work, atoms, *self.limits).result()
            except BrokenProcessPool:
                return RelaxResult.failure(atoms.copy(), "worker process died", name)
        finally:
            stop(pool)


_worker: Relaxer | None = None
_worker_factory: RelaxerFactory | None = None


def _start_worker(factory: RelaxerFactory) -> None:
    global _worker_factory
    _worker_factory = factory
    end_at_interruption()


def _worker_relaxer() -> Relaxer:
    global _worker
    if _worker is None:
        assert _worker_factory is not None
        _worker = _make(_worker_factory)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)
    return _worker


def _worker_name() -> str:
    return _worker_relaxer().name


def _work(atoms: Atoms, fmax: float, max_steps: int) -> RelaxResult:
    return _relax_one(_worker_relaxer(), atoms, fmax, max_steps)


def _make(factory: RelaxerFactory) -> Relaxer:
    try:
        return factory()
    except ModuleNotFoundError as error:
        raise registry.MissingExtraError(registry.missing_package("Relaxer", error)) from error
    except Exception as error:
        raise RelaxerError(f"The relaxer cannot be loaded: {error}") from error


def _relax_one(relaxer: Relaxer, atoms: Atoms, fmax: float, max_steps: int) -> RelaxResult:
    try:
        (result,) = relaxer.relax([atoms], fmax, max_steps)
    except Exception as error:  # noqa: BLE001 - a stranger's relaxer may raise anything
        reason = f"{type(error).__name__}: {error}"
        return RelaxResult.failure(atoms.copy(), reason, relaxer.name)
    return result
