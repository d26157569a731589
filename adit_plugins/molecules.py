"""Validity of molecules: bonds from coordinates, SMILES, RDKit and PoseBusters checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from adit_plugins.registry import MissingExtraError, missing_package

if TYPE_CHECKING:
    from ase import Atoms
    from rdkit.Chem import Mol

    from adit_plugins.samples import Sample

# Combinations of valences tried before giving up: QM9 needs a few, impossible geometries have
# billions, and RDKit's own default is no limit.
MAX_BOND_ORDER_ITERATIONS = 10_000


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

    Bonds come from `rdDetermineBonds` with its defaults and total charge 0 (Kim & Kim 2015), which
    accept 95 % of the reference geometries of QM9 as strictly valid. PoseBusters is its "mol"
    configuration (Buttenschoen et al. 2024), about 0.2 s a molecule.

    Args:
        samples: molecules as Sample or ASE Atoms.
        posebusters: run PoseBusters on the molecules for which bonds were found.
        num_conformers: conformers behind PoseBusters' energy ratio. Its own 50 cost ten times as
            much (half a minute for a cage) for ratios that differ by 0.02, at a limit of 100.
    """
    num_conformers = num_conformers if posebusters else 0
    return [_check(_atoms(sample), num_conformers) for sample in samples]


def perceive_bonds(atoms: Atoms) -> Mol:
    """Return an RDKit Mol with bonds found from the coordinates, sanitised.

    Raises:
        ValueError: if no bond orders fit the geometry with total charge 0.
    """
    from rdkit import Chem
    from rdkit.Chem import rdDetermineBonds
    from rdkit.rdBase import BlockLogs

    mol = _with_connectivity(atoms)
    with BlockLogs():
        try:
            rdDetermineBonds.DetermineBondOrders(
                mol, charge=0, maxIterations=MAX_BOND_ORDER_ITERATIONS
            )
            Chem.SanitizeMol(mol)
        except (ValueError, RuntimeError) as error:  # RDKit's own errors derive from both
            formula = atoms.get_chemical_formula()
            raise ValueError(f"No neutral bonds fit the geometry of {formula}: {error}") from error
    return mol.GetMol()


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
    connected = len(Chem.GetMolFrags(_with_connectivity(atoms))) == 1
    try:
        mol = perceive_bonds(atoms)
        smiles = canonical_smiles(mol)
    except ValueError:
        return MoleculeReport(None, rdkit_valid=False, connected=connected, strict_valid=False)
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


def _with_connectivity(atoms: Atoms) -> Any:
    """Return an RWMol with the positions [num_atoms, 3] and single bonds between close atoms."""
    from rdkit import Chem
    from rdkit.Chem import rdDetermineBonds
    from rdkit.rdBase import BlockLogs

    mol = Chem.RWMol()
    for number in atoms.numbers:
        atom = Chem.Atom(int(number))
        atom.SetNoImplicit(True)  # every hydrogen is in the coordinates; RDKit must add none
        mol.AddAtom(atom)
    conformer = Chem.Conformer(len(atoms))
    conformer.SetPositions(np.ascontiguousarray(atoms.positions, dtype=float))
    mol.AddConformer(conformer)
    with BlockLogs():
        rdDetermineBonds.DetermineConnectivity(mol)
    return mol


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
