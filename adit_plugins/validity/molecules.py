"""Validity of molecules: bonds from coordinates, SMILES, RDKit and PoseBusters checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from adit_plugins.processes import Each, End, stream
from adit_plugins.structures.bonds import (
    canonical_smiles,
    largest_fragment_smiles,
    openbabel_bonds,
    perceive_bonds,
)
from adit_plugins.structures.given import to_atoms
from adit_plugins.structures.resonance import (
    has_radicals,
    has_separated_charges,
    with_conventional_bonds,
)

if TYPE_CHECKING:
    from ase import Atoms
    from rdkit.Chem import Mol

    from adit_plugins.structures.samples import Convertible

TIME_LIMIT = 10.0  # seconds a molecule; half a second is usual, some cages never end
MAX_ATOMS = 1000  # all pairs are compared: memory grows with the square
MAX_EXTENT = 1000.0  # angstrom; PDB records of the OpenBabel rule have no more columns


@dataclass(frozen=True)
class MoleculeReport:
    """What the checks found in one molecule.

    Attributes:
        smiles: canonical SMILES without stereo and explicit hydrogens; None if no bonds fit.
        rdkit_valid: bonds that fit the coordinates were found and RDKit sanitises the result.
        connected: the atoms form one fragment by distance (known even where no bond orders fit).
        strict_valid: rdkit_valid, one fragment, no radicals, and no separated charges.
        posebusters: PoseBusters "mol" check -> passed; None where not asked or no bonds fit. A
            check that could not be done, or not within the time limit, counts as failed.
        reason: why the molecule is not strictly valid.
    """

    smiles: str | None
    rdkit_valid: bool
    connected: bool
    strict_valid: bool
    posebusters: dict[str, bool] | None = None
    reason: str = ""


def check_molecules(
    samples: Convertible | Sequence[Convertible],
    posebusters: bool = True,
    workers: int | None = None,
    time_limit: float = TIME_LIMIT,
    on_result: Callable[[int, MoleculeReport], None] | None = None,
) -> list[MoleculeReport]:
    """Check each molecule as a whole; nothing is repaired and no fragment is dropped.

    Bonds come from `adit_plugins.structures.perceive_bonds` with total charge 0; 99.5 % of QM9's
    reference geometries are strictly valid by it. PoseBusters is its "mol" configuration
    (Buttenschoen et al. 2024, doi 10.1039/D3SC04185A), about half a second a molecule.

    Args:
        samples: one molecule or a list of them: Sample, ASE Atoms, pymatgen, RDKit.
        posebusters: run PoseBusters on the molecules for which bonds were found.
        workers: processes for PoseBusters; None for one a core, 0 for none (then no time limit).
        time_limit: seconds a molecule; PoseBusters' conformers of a cage may take minutes.
        on_result: called with the index and the report as soon as a molecule is done.
    """
    several: list[Any] = list(samples) if isinstance(samples, list | tuple) else [samples]
    atoms = [to_atoms(each) for each in several]
    if not posebusters:  # bonds alone take milliseconds: no process is worth its start
        workers = 0
    work = parts_with_posebusters if posebusters else _parts
    reports: dict[int, MoleculeReport] = {}
    for index, part in stream(Each(work), atoms, time_limit, workers, prepare_worker):
        if not isinstance(part, End):
            reports[index] = part
            continue
        if part.problem:
            reports[index] = stopped(reports.get(index), part.problem)
        if on_result is not None:
            on_result(index, reports[index])
    return [reports[index] for index in range(len(atoms))]


def examine(atoms: Atoms) -> tuple[MoleculeReport, Mol | None]:
    """Apply the strict rule to one molecule; return the report and the molecule with bonds."""
    from rdkit import Chem

    problem = input_problem(atoms)
    if problem:
        return _invalid(problem), None
    try:
        mol = with_conventional_bonds(perceive_bonds(atoms.numbers, atoms.positions))
    except ValueError as error:
        connected = _is_connected(atoms)
        return replace(_invalid(str(error)), connected=connected), None
    fragments = len(Chem.GetMolFrags(mol))
    reason = ""
    if fragments > 1:
        reason = f"{fragments} fragments"
    elif has_radicals(mol):
        reason = "radicals"
    elif has_separated_charges(mol):
        reason = "separated charges"
    report = MoleculeReport(
        canonical_smiles(mol),
        rdkit_valid=True,
        connected=fragments == 1,
        strict_valid=not reason,
        reason=reason,
    )
    return report, mol


def input_problem(atoms: Atoms) -> str:
    """Say why this cannot be a molecule whatever its bonds, or nothing."""
    if not len(atoms):
        return "no atoms"
    if atoms.pbc.any():
        return "periodic: a crystal, not a molecule"
    if len(atoms) == 1:
        return "a single atom is no molecule"
    if len(atoms) > MAX_ATOMS:
        return f"{len(atoms)} atoms, more than the {MAX_ATOMS} that molecules are checked for"
    unknown = [int(z) for z in atoms.numbers if not 1 <= z <= 118]
    if unknown:
        return f"unknown element (atomic number {unknown[0]})"
    if not np.isfinite(atoms.positions).all():
        return "a coordinate is not finite"
    extent = float(np.ptp(atoms.positions, axis=0).max())
    if not extent <= MAX_EXTENT:
        return f"atoms are {extent:.3g} angstrom apart"
    return ""


def prepare_worker() -> None:
    """Import what checks need, so that the first molecule's time limit does not pay for it."""
    import logging
    from importlib import import_module

    from rdkit import rdBase

    import_module("posebusters")
    rdBase.DisableLog("rdApp.*")  # a worker's warnings are in its results;
    logging.getLogger("rdkit").setLevel(logging.CRITICAL + 1)  # PoseBusters reroutes them here


def openbabel_smiles(molecule: Convertible) -> str | None:
    """Return the SMILES of the largest fragment by OpenBabel's bonds, None if RDKit rejects them.

    The lenient rule of the published ADiT figures (`adit_plugins.structures.openbabel_bonds`): what
    does not hang together is ignored, so nearly any cloud of atoms with sound fragments passes.

    Raises:
        MissingExtraError: if OpenBabel is not installed.
    """
    atoms = to_atoms(molecule)
    if input_problem(atoms):
        return None
    try:
        return largest_fragment_smiles(openbabel_bonds(list(atoms.symbols), atoms.positions))
    except ValueError:
        return None


def _parts(atoms: Atoms) -> Iterator[MoleculeReport]:
    yield examine(atoms)[0]


def parts_with_posebusters(atoms: Atoms) -> Iterator[MoleculeReport]:
    """The report as it grows: bonds, then geometry, then the energy that may never come."""
    from adit_plugins.validity.posebusters_checks import bust_energy, bust_geometry

    report, mol = examine(atoms)
    yield report
    if mol is not None:
        report = replace(report, posebusters=bust_geometry(mol).verdicts)
        yield report
        energy = bust_energy(mol).verdicts
        yield replace(report, posebusters={**(report.posebusters or {}), **energy})


def parts_until_one_fails(atoms: Atoms) -> Iterator[MoleculeReport]:
    """As `parts_with_posebusters`, but the energy, which costs most, only where all else passes."""
    for report in parts_with_posebusters(atoms):
        yield report
        if not all((report.posebusters or {}).values()):
            return


def stopped(report: MoleculeReport | None, problem: str) -> MoleculeReport:
    """The report of a molecule whose checks have not come to their end."""
    from adit_plugins.validity.posebusters_checks import ENERGY_CHECK

    if report is None:
        return _invalid(problem)
    if not report.rdkit_valid:
        return report
    return replace(report, posebusters={**(report.posebusters or {}), ENERGY_CHECK: False})


def _invalid(reason: str) -> MoleculeReport:
    return MoleculeReport(
        None, rdkit_valid=False, connected=False, strict_valid=False, reason=reason
    )


def _is_connected(atoms: Atoms) -> bool:
    """Return whether the atoms form one piece with bonds up to 1.3 covalent radii."""
    from ase.neighborlist import build_neighbor_list, natural_cutoffs
    from scipy.sparse.csgraph import connected_components

    cutoffs = natural_cutoffs(atoms, mult=1.3)
    neighbors = build_neighbor_list(atoms, cutoffs, self_interaction=False)
    return bool(connected_components(neighbors.get_connectivity_matrix())[0] == 1)
