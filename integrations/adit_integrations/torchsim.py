"""The `torch-sim` relaxer: batches of structures on one device (torch-sim, arXiv:2508.06628).

`torch-sim:chgnet` is CHGNet, `torch-sim:mace-adit` the shipped small MACE, `torch-sim:MODEL` a MACE
model by name or path. Chunks are cut before they get here, so one call is one batch with its whole
step budget; batching in flight counts the steps of all together in torch-sim 0.3 and gives
structures back unrelaxed.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch_sim as ts
import torch_sim.optimizers
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from adit_integrations import mace as mace_models
from adit_plugins.relax.results import (
    MP2020,
    RelaxResult,
    broken_energy,
    broken_geometry,
    collision,
    finished,
    right_handed,
)


def fire(cell: bool) -> dict[str, Any]:
    """Return the keywords that ask `ts.optimize` for FIRE, with the Frechet cell filter or not."""
    if hasattr(ts, "Optimizer"):  # from 0.4 on
        filters = {"cell_filter": ts.CellFilter.frechet} if cell else {}
        return {"optimizer": ts.Optimizer.fire, "init_kwargs": filters}
    return {"optimizer": getattr(ts.optimizers, "frechet_cell_fire" if cell else "fire")}


class TorchSimRelaxer:
    """Relax batches with FIRE (and the Frechet cell filter, for crystals) of torch-sim.

    Attributes:
        name: of the potential.
        chunk_atoms: atoms in a batch. On CPUs 32 were fastest (benchmarks/relax_speed.py); the
            larger number for GPUs is not measured.
    """

    chunk_atoms: ClassVar[int] = 1024 if torch.cuda.is_available() else 32

    def __init__(
        self, model: str = "chgnet", max_seconds: float = 60.0, device: str | None = None
    ) -> None:
        """Load a potential.

        Args:
            model: `chgnet`, `mace-adit`, or a MACE model as for the `mace` relaxer, name or path.
            max_seconds: wall-clock limit a structure, looked at between steps; of a batch, times
                its structures.
            device: `"cpu"`, `"cuda"`; None takes CUDA if there is one.
        """
        self.max_seconds = max_seconds
        self.review: Callable[[Sequence[Atoms], list[RelaxResult]], list[RelaxResult]]
        self.review = lambda _, results: results
        self.crystals_only = model in ("chgnet", "mace-adit")
        if model == "mace-adit":
            from adit_integrations.torchsim_models import MaceAditModel

            self.model: Any = MaceAditModel(device=device)
            self.name = self.model.name
            self.convention = self.model.small.config.convention
            self.elements = frozenset(self.model.small.config.known)
            self.review = self.model.small.review
            return
        if model == "chgnet":
            from adit_integrations import chgnet
            from adit_integrations.torchsim_models import ChgnetModel

            self.model = ChgnetModel(device)
            self.name, self.convention = self.model.name, MP2020
            self.elements = chgnet.ELEMENTS
            return
        network = mace_models.load_network(model, device)
        with mace_models.contained():
            from torch_sim.models.mace import MaceModel

            target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
            self.model = MaceModel(network, device=target, dtype=torch.float64)
        self.name = mace_models.relaxer_name(model)
        self.convention = mace_models.convention(model)
        self.elements = frozenset(map(int, self.model.z_table.zs))

    def relax(self, batch: Sequence[Atoms], fmax: float, max_steps: int) -> list[RelaxResult]:
        """Relax crystals together, and molecules together; see `adit_plugins.relax.Relaxer`."""
        results: dict[int, RelaxResult] = {}
        groups: dict[bool, list[int]] = {True: [], False: []}
        for i, atoms in enumerate(batch):
            problem = broken_geometry(atoms, self.name, self.crystals_only, self.elements)
            if problem:
                results[i] = RelaxResult.failure(atoms.copy(), problem, self.name)
            else:
                groups[bool(atoms.pbc.all())].append(i)
        for crystals, members in groups.items():
            if members:
                structures = [batch[i] for i in members]
                found = self._relax_alike(structures, crystals, fmax, max_steps)
                results.update(zip(members, found, strict=True))
        return self.review(batch, [results[i] for i in range(len(batch))])

    def _relax_alike(
        self, structures: list[Atoms], crystals: bool, fmax: float, max_steps: int
    ) -> list[RelaxResult]:
        try:
            return _Batch(self, structures, crystals, fmax).run(max_steps)
        except _NotFiniteError:
            return [_Batch(self, [atoms], crystals, fmax).run(max_steps)[0] for atoms in structures]


class _NotFiniteError(ArithmeticError):
    """Forces of a batch are not finite: in MACE those of one structure spoil all the others'."""


class _Batch:
    """One call of `ts.optimize`, and what has to be known of each structure beside its result."""

    def __init__(
        self, relaxer: TorchSimRelaxer, structures: list[Atoms], crystals: bool, fmax: float
    ) -> None:
        self.relaxer, self.structures, self.crystals = relaxer, structures, crystals
        self.converged: Callable[..., torch.Tensor] = ts.generate_force_convergence_fn(
            fmax, include_cell_forces=crystals
        )
        self.start = time.perf_counter()
        self.limit = relaxer.max_seconds * len(structures)
        self.running = list(range(len(structures)))  # those still in the batch, in its order
        self.steps = np.zeros(len(structures), int)
        self.reasons = ["step limit"] * len(structures)
        self.problems = [""] * len(structures)

    def run(self, max_steps: int) -> list[RelaxResult]:
        """Relax and return a result for each structure."""
        # torch-sim takes the determinant of the cell for its volume.
        inputs = [right_handed(atoms) for atoms in self.structures]
        state = ts.initialize_state(inputs, self.relaxer.model.device, torch.float64)
        ends = self._evaluate(state)
        if not all(end.is_finite for end in ends):
            ends = [self._evaluate(state[i])[0] for i in range(len(ends))]
        # Forces that are not finite would move the atoms there, and what lists neighbours stops at
        # such coordinates: broken structures leave before the first step.
        for i, end in enumerate(ends):
            self.problems[i] = self._broken(i, end)
        self.running = [i for i, problem in enumerate(self.problems) if not problem]
        moving = self.running
        if max_steps and moving:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Optimize has reached max steps")
                state = ts.optimize(
                    state[moving],
                    self.relaxer.model,
                    convergence_fn=self.is_done,
                    autobatcher=False,
                    max_steps=max_steps,
                    steps_between_swaps=1,
                    **fire(self.crystals),
                )
            for i, end in zip(moving, self._evaluate(state), strict=True):
                ends[i] = end
        seconds = (time.perf_counter() - self.start) / len(self.structures)
        return [self._result(i, end, seconds) for i, end in enumerate(ends)]

    def is_done(self, state: Any, last_energy: torch.Tensor | None = None) -> torch.Tensor:
        """Say after a step which structures leave the batch: converged, broken or out of time."""
        self.steps[self.running] += 1
        converged = self.converged(state, last_energy)
        late = time.perf_counter() - self.start > self.limit
        ends = _ends(state, state.energy, state.forces)
        if len(ends) > 1 and not all(end.is_finite for end in ends):
            raise _NotFiniteError
        done = [False] * len(self.running)
        for place, (i, end) in enumerate(zip(self.running, ends, strict=True)):
            self.problems[i] = self._broken(i, end)
            if converged[place]:
                self.reasons[i] = "converged"
            elif late:
                self.reasons[i] = "time limit"
            done[place] = bool(self.problems[i] or converged[place] or late)
        self.running = [i for i, left in zip(self.running, done, strict=True) if not left]
        return torch.tensor(done, device=converged.device)

    def _evaluate(self, state: Any) -> list[_End]:
        output = self.relaxer.model(state)
        return _ends(state, output["energy"], output["forces"], output["stress"])

    def _broken(self, i: int, end: _End) -> str:
        """Say what is wrong with a state, or nothing."""
        problem = broken_energy(
            end.energy / len(self.structures[i]), end.forces, mace_models.ENERGY_BOUNDS
        )
        return problem or broken_geometry(end.atoms, self.relaxer.name, False)

    def _result(self, i: int, end: _End, seconds: float) -> RelaxResult:
        """Order is all that ties a structure to its state: torch-sim drops `info`."""
        before, relaxed, name = self.structures[i], end.atoms, self.relaxer.name
        relaxed.pbc = before.pbc
        if not self.crystals:
            relaxed.cell = before.cell
        elif before.cell.handedness < 0:
            relaxed.cell = -relaxed.cell
        problem = self.problems[i] or self._broken(i, end) or collision(relaxed)
        if problem:
            return RelaxResult.failure(before.copy(), problem, name, int(self.steps[i]), seconds)
        return finished(
            before,
            relaxed,
            end.energy,
            end.forces,
            full_3x3_to_voigt_6_stress(end.stress) if self.crystals else None,
            reason=self.reasons[i],
            num_steps=int(self.steps[i]),
            potential=name,
            seconds=seconds,
            convention=self.relaxer.convention,
        )


@dataclass
class _End:
    """One structure of a state, off the device: eV, eV/angstrom and eV/cubic angstrom."""

    atoms: Atoms
    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64] | None = None

    @property
    def is_finite(self) -> bool:
        return bool(np.isfinite(self.energy) and np.isfinite(self.forces).all())


def _ends(
    state: Any, energy: torch.Tensor, forces: torch.Tensor, stress: torch.Tensor | None = None
) -> list[_End]:
    structures = state.to_atoms()
    places = np.cumsum([len(atoms) for atoms in structures])[:-1]
    split = np.split(forces.detach().cpu().numpy(), places)
    stresses = [None] * len(structures) if stress is None else stress.detach().cpu().numpy()
    return [
        _End(atoms, float(e), f, s)
        for atoms, e, f, s in zip(structures, energy.tolist(), split, stresses, strict=True)
    ]
