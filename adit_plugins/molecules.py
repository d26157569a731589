"""Validity of molecules: bonds from coordinates, SMILES, RDKit and PoseBusters checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from adit_plugins.bonds import perceive_bonds
from adit_plugins.registry import MissingExtraError, missing_package

if TYPE_CHECKING:
    from ase import Atoms
    from rdkit.Chem import Mol

    from adit_plugins.samples import Sample


@dataclass(frozen=True)
class MoleculeReport:
    """What the checks found in one molecule.

    Attributes:
        smiles: canonical SMILES without stereo and explicit hydrogens; None if no bonds fit.
        rdkit_valid: bonds that fit the coordinates were found and RDKit sanitises the result.
        connected: the atoms form one fragment by distance (known even where no bond orders fit).
        strict_valid: rdkit_valid, one fragment, no radicals, and no separated charges.
        posebusters: PoseBusters "mol" check -> passed; None where not asked or no bonds fit.
    """

    smiles: str | None
    rdkit_valid: bool
    connected: bool
    strict_valid: bool
    posebusters: dict[str, bool] | None = None


def check_molecules(
    samples: Sequence[Sample | Atoms], posebusters: bool = True, num_conformers: int = 5
) -> list[MoleculeReport]:
    """Check each molecule as a whole; nothing is repaired and no fragment is dropped.

    Bonds come from `adit_plugins.bonds.perceive_bonds` with total charge 0; 99.5 % of QM9's
    reference geometries are strictly valid by it. PoseBusters is its "mol" configuration
    (Buttenschoen et al. 2024, doi 10.1039/D3SC04185A), about 0.2 s a molecule.

    Args:
        samples: molecules as Sample or ASE Atoms.
        posebusters: run PoseBusters on the molecules for which bonds were found.
        num_conformers: conformers behind PoseBusters' energy ratio. Its own 50 cost ten times as
            much (half a minute for a cage) for ratios that differ by 0.02, at a limit of 100.
    """
    num_conformers = num_conformers if posebusters else 0
    return [_check(_atoms(sample), num_conformers) for sample in samples]


def canonical_smiles(mol: Mol) -> str:
    """Return the canonical SMILES without stereo and hydrogens, the key of all comparisons."""
    from rdkit import Chem
    from rdkit.rdBase import BlockLogs

    flat = Chem.RWMol(mol)
    Chem.RemoveStereochemistry(flat)  # first: a hydrogen that defines stereo would not be removed
    with BlockLogs():
        return Chem.MolToSmiles(Chem.RemoveHs(flat), isomericSmiles=False)


def openbabel_smiles(atoms: Atoms) -> str | None:
    """Return the SMILES of the largest fragment by OpenBabel's bonds, None if RDKit rejects it.

    The lenient rule of the published ADiT, EDM and Symphony figures: what does not hang together
    is ignored, so nearly any cloud of atoms with one sound fragment passes.

    Raises:
        MissingExtraError: if OpenBabel is not installed.
    """
    from rdkit import Chem
    from rdkit.rdBase import BlockLogs

    try:
        from openbabel import openbabel
    except ModuleNotFoundError as error:
        raise MissingExtraError(missing_package("The OpenBabel rule", error)) from error

    openbabel.obErrorLog.StopLogging()
    conversion = openbabel.OBConversion()
    conversion.SetInAndOutFormats("xyz", "mol")
    babel_mol = openbabel.OBMol()
    if not conversion.ReadString(babel_mol, _xyz(atoms)):
        return None
    with BlockLogs():
        mol = Chem.MolFromMolBlock(conversion.WriteString(babel_mol), sanitize=False)
        if mol is None:
            return None
        fragments = Chem.GetMolFrags(mol, asMols=True, sanitizeFrags=False)
        largest = max(fragments, key=lambda each: each.GetNumAtoms())
        try:
            Chem.SanitizeMol(largest)
            return canonical_smiles(largest)
        except (ValueError, RuntimeError):
            return None


def _check(atoms: Atoms, num_conformers: int) -> MoleculeReport:
    from rdkit import Chem

    if not np.isfinite(atoms.positions).all():
        return MoleculeReport(None, rdkit_valid=False, connected=False, strict_valid=False)
    try:
        mol = perceive_bonds(atoms.numbers, atoms.positions)
    except ValueError:
        connected = _is_connected(atoms)
        return MoleculeReport(None, rdkit_valid=False, connected=connected, strict_valid=False)
    smiles = canonical_smiles(mol)
    connected = len(Chem.GetMolFrags(mol)) == 1
    strict = connected and not _has_radicals(mol) and not _has_separated_charges(mol)
    checks = _bust(mol, num_conformers) if num_conformers else None
    return MoleculeReport(smiles, True, connected, strict, checks)


def _atoms(sample: Sample | Atoms) -> Atoms:
    from ase import Atoms as AseAtoms

    return sample if isinstance(sample, AseAtoms) else sample.to_ase()


def _xyz(atoms: Atoms) -> str:
    lines = [
        f"{symbol} {x:.6f} {y:.6f} {z:.6f}"
        for symbol, (x, y, z) in zip(atoms.symbols, atoms.positions, strict=True)
    ]
    return "\n".join([str(len(atoms)), "", *lines, ""])


def _is_connected(atoms: Atoms) -> bool:
    """Return whether the atoms form one piece with bonds up to 1.3 covalent radii."""
    from ase.neighborlist import build_neighbor_list, natural_cutoffs
    from scipy.sparse.csgraph import connected_components

    cutoffs = natural_cutoffs(atoms, mult=1.3)
    neighbors = build_neighbor_list(atoms, cutoffs, self_interaction=False)
    return bool(connected_components(neighbors.get_connectivity_matrix())[0] == 1)


def _has_radicals(mol: Mol) -> bool:
    return any(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms())


def _has_separated_charges(mol: Mol) -> bool:
    """Return whether a charged atom has no opposite charge on a bonded neighbour.

    With charges allowed, RDKit writes a diradical as a distant carbocation and carbanion; real
    neutral molecules carry formal charges side by side (nitro, N-oxide, isocyanide, diazo). The
    price is gas-phase amino-acid zwitterions, 0.5 % of QM9.
    """
    for atom in mol.GetAtoms():
        charge = atom.GetFormalCharge()
        neighbours = [each.GetFormalCharge() for each in atom.GetNeighbors()]
        if charge and not any(each * charge < 0 for each in neighbours):
            return True
    return False


@lru_cache(maxsize=4)
def _posebusters(num_conformers: int) -> Any:
    import logging
    from pathlib import Path

    import posebusters
    from yaml import safe_load

    path = Path(posebusters.__file__).parent / "config" / "mol.yml"
    config = safe_load(path.read_text(encoding="utf-8"))
    for module in config["modules"]:
        if module["function"] == "energy_ratio":
            # One thread: callers spread molecules over processes, and 0 would take every core.
            module["parameters"] |= {
                "ensemble_number_conformations": num_conformers,
                "num_threads": 1,
            }
    logging.getLogger("posebusters").setLevel(logging.ERROR)  # its warnings are in the result
    return posebusters.PoseBusters(config)


def _bust(mol: Mol, num_conformers: int) -> dict[str, bool]:
    """Run PoseBusters on one molecule; a test that could not be done counts as failed."""
    from rdkit.rdBase import BlockLogs

    with BlockLogs():
        row = _posebusters(num_conformers).bust(mol).iloc[0]
    return {name: bool(value == 1) for name, value in row.items()}
