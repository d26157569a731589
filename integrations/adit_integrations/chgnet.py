"""The `chgnet` relaxer: CHGNet (Deng et al. 2023, doi 10.1038/s42256-023-00716-3).

Its wheel carries the weights, so nothing is downloaded; energies are on the scale of the
Materials Project (PBE with the 2020 corrections), which the shipped hull and references share.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import Any

import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from chgnet.model.dynamics import CHGNetCalculator
from chgnet.model.model import BatchedGraph
from pymatgen.io.ase import AseAtomsAdaptor

from adit_plugins.ase_relaxer import AseRelaxer

# eV/atom. The deepest solid of the Materials Project (tungsten) has -13; CHGNet was trained below
# +6. Outside lies extrapolation, such as atoms falling into each other.
ENERGY_BOUNDS = (-18.0, 10.0)
ELEMENTS = frozenset(range(1, 95))  # hydrogen to plutonium


class FastCHGNetCalculator(CHGNetCalculator):
    """CHGNet's calculator without magnetic moments, at two thirds of its time a step.

    The original differentiates the energy twice, for forces and for stress, and keeps the graph
    of both for training; one plain backward pass gives the same numbers.
    """

    implemented_properties = ("energy", "forces", "stress")  # type: ignore[assignment]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] | None = None,
        task: Any = None,
    ) -> None:
        """Set energy (eV), forces (eV/angstrom) and stress (eV/cubic angstrom)."""
        Calculator.calculate(self, atoms, properties, system_changes or all_changes)
        model = self.model
        graph = model.graph_converter(AseAtomsAdaptor.get_structure(self.atoms))
        batch = BatchedGraph.from_graphs(
            [graph.to(self.device)],
            bond_basis_expansion=model.bond_basis_expansion,
            angle_basis_expansion=model.angle_basis_expansion,
            compute_stress=True,
        )
        factor = len(self.atoms) if model.is_intensive else 1
        network_energy = model._compute(batch)["e"].sum() * factor
        inputs = [*batch.atom_positions, *batch.strains]
        gradient, virial = torch.autograd.grad(network_energy, inputs)
        energy = network_energy.item()
        if model.composition_model is not None:  # linear in the composition: no forces
            energy += model.composition_model([graph]).sum().item() * factor
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": -gradient.cpu().numpy(),
            "stress": (virial / batch.volumes[0]).detach().cpu().numpy(),
        }


def make_relaxer(max_seconds: float = 60.0, device: str | None = None) -> AseRelaxer:
    """Load CHGNet and return it as a relaxer of crystals.

    Args:
        max_seconds: wall-clock limit a structure.
        device: `"cpu"`, `"cuda"`; None lets CHGNet choose.
    """
    # Loading announces version and device on stdout and warns of its own pickled weights.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        calculator = FastCHGNetCalculator(use_device=device, on_isolated_atoms="error")
    # Each step makes a tensor of the volumes in a way that torch 2.13 complains about.
    warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad=True")
    for parameter in calculator.model.parameters():
        parameter.requires_grad_(False)
    return AseRelaxer(
        name=f"chgnet-{calculator.version}",
        calculator=calculator,
        max_seconds=max_seconds,
        energy_bounds=ENERGY_BOUNDS,
        crystals_only=True,
        elements=ELEMENTS,
    )
