"""The `chgnet` relaxer: CHGNet (Deng et al. 2023, doi 10.1038/s42256-023-00716-3).

Its wheel carries the weights, so nothing is downloaded; energies are on the scale of the
Materials Project (PBE with the 2020 corrections), which the shipped hull and references share.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from chgnet.model.dynamics import CHGNetCalculator
from chgnet.model.model import BatchedGraph, CHGNet
from pymatgen.core import Structure

from adit_plugins.relax.ase_relaxer import AseRelaxer
from adit_plugins.relax.results import bare_structure

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
        structure = bare_structure(self.atoms)
        ((energy, forces, stress),) = evaluate(self.model, [structure], self.device)
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": forces.cpu().numpy(),
            "stress": full_3x3_to_voigt_6_stress(stress.cpu().numpy()),
        }


def evaluate(
    model: CHGNet, structures: Sequence[Structure], device: str | torch.device
) -> list[tuple[float, torch.Tensor, torch.Tensor]]:
    """Return energy (eV), forces (eV/angstrom) and stress (eV/cubic angstrom) of each structure.

    Raises:
        ValueError: an atom has no neighbour within CHGNet's cutoff.
    """
    graphs = [model.graph_converter(structure).to(device) for structure in structures]
    batch = BatchedGraph.from_graphs(
        graphs,
        bond_basis_expansion=model.bond_basis_expansion,
        angle_basis_expansion=model.angle_basis_expansion,
        compute_stress=True,
    )
    factors = [len(structure) if model.is_intensive else 1 for structure in structures]
    network = model._compute(batch)["e"] * torch.tensor(factors, device=device)
    inputs = [*batch.atom_positions, *batch.strains]
    gradients = torch.autograd.grad(network.sum(), inputs)
    energies = network.detach()
    if model.composition_model is not None:  # linear in the composition: no forces
        own = model.composition_model(graphs).detach().view(-1)
        energies = energies + own * torch.tensor(factors, device=device)
    return [
        (
            float(energies[i]),
            -gradients[i],
            # CHGNet's volume is a triple product: negative where the cell is left-handed.
            (gradients[len(structures) + i] / batch.volumes[i].abs()).detach(),
        )
        for i in range(len(structures))
    ]


def load_calculator(device: str | None = None) -> FastCHGNetCalculator:
    """Load the weights, quietly, with nothing left to train.

    Args:
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
    return calculator


def make_relaxer(max_seconds: float = 60.0, device: str | None = None) -> AseRelaxer:
    """Load CHGNet and return it as a relaxer of crystals.

    Args:
        max_seconds: wall-clock limit a structure.
        device: `"cpu"`, `"cuda"`; None lets CHGNet choose.
    """
    calculator = load_calculator(device)
    return AseRelaxer(
        name=f"chgnet-{calculator.version}",
        calculator=calculator,
        max_seconds=max_seconds,
        energy_bounds=ENERGY_BOUNDS,
        crystals_only=True,
        elements=ELEMENTS,
    )
