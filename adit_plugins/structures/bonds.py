"""Bond perception: the one place where a geometry becomes a molecule with bonds.

`perceive_bonds` (RDKit, strict) serves every check and conversion of the package,
`openbabel_bonds` the published figures. EDM's tables are in `adit_plugins.metrics.edm`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from rdkit import Chem, rdBase
from rdkit.Chem import rdDetermineBonds
from scipy.spatial import cKDTree

from adit_plugins.registry import MissingExtraError, missing_package

_MIN_DISTANCE = 0.5  # angstrom; H2, the shortest bond, has 0.74
# Real molecules need a handful; chains of N or S alone would need 2**num_atoms and never end.
_MAX_ITERATIONS = 10_000
_TIGHT_COVALENT_FACTOR = 1.15


def perceive_bonds(atomic_numbers: ArrayLike, positions: ArrayLike) -> Chem.Mol:
    """Find the bonds of a whole neutral molecule from its geometry.

    RDKit's `rdDetermineBonds` (Kim & Kim, doi 10.1002/bkcs.10334) on its connect-the-dots
    connectivity. Where that fits no valences, a tighter distance rule (1.15 covalent radii) gets
    a second chance, because the first one bonds across strained rings (7 % of QM9); it may not
    split the molecule further. Where neither fits, single bonds are tried, as the rule for bond
    orders does not know the metals of LiF or AlCl3. The result can still have several fragments or
    charged atoms: it is for the caller to ask. It is `adit_plugins.structures.perceive_bonds`, too.

    Args:
        atomic_numbers: `[num_atoms]`.
        positions: `[num_atoms, 3]`, angstrom; they become the conformer.

    Returns:
        A sanitised molecule with explicit hydrogens and stereochemistry, atoms in the given order.

    Raises:
        ValueError: atoms coincide, or no bond assignment fits; found out within a second.
    """
    bare = _bare_mol(np.asarray(atomic_numbers, dtype=int), np.asarray(positions, dtype=float))
    loose, tight = Chem.Mol(bare), Chem.Mol(bare)
    with rdBase.BlockLogs():
        rdDetermineBonds.DetermineConnectivity(loose)
        try:
            return _assign_bond_orders(loose)
        except (ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
        rdDetermineBonds.DetermineConnectivity(tight, useVdw=True, covFactor=_TIGHT_COVALENT_FACTOR)
        if len(Chem.GetMolFrags(tight)) <= len(Chem.GetMolFrags(loose)):
            try:
                return _assign_bond_orders(tight)
            except (ValueError, RuntimeError):
                pass  # the first reason is the telling one
        saturated = _saturated(loose)
    if saturated is not None:
        return saturated
    raise ValueError(f"no bond assignment fits the geometry as a neutral molecule: {reason}")


def openbabel_bonds(symbols: Sequence[str], positions: ArrayLike) -> Chem.Mol:
    """Find bonds as the published ADiT figures do: OpenBabel writes PDB, RDKit reads it.

    The protocol of arXiv:2503.03965, step by step: OpenBabel connects the atoms and guesses bond
    orders, the PDB format drops charges, RDKit's reader adds bonds between close atoms and
    sanitises the whole. Fragments and radicals pass; 95 % of QM9's own geometries do (nitro groups,
    say, do not).

    Args:
        symbols: `[num_atoms]` element symbols.
        positions: `[num_atoms, 3]`, angstrom, no wider than 1,000 (the columns of the format).

    Returns:
        A sanitised molecule with explicit hydrogens; positions to 0.001 angstrom, centred.

    Raises:
        ValueError: RDKit rejects what OpenBabel wrote.
        MissingExtraError: if OpenBabel is not installed.
    """
    try:
        from openbabel import openbabel
    except ModuleNotFoundError as error:
        raise MissingExtraError(missing_package("The OpenBabel rule", error)) from error

    openbabel.obErrorLog.StopLogging()
    conversion = openbabel.OBConversion()
    conversion.SetInAndOutFormats("xyz", "pdb")
    babel_mol = openbabel.OBMol()
    if not conversion.ReadString(babel_mol, _xyz(symbols, np.asarray(positions, dtype=float))):
        raise ValueError("OpenBabel cannot read the atoms")
    with rdBase.BlockLogs():
        mol = Chem.MolFromPDBBlock(
            conversion.WriteString(babel_mol), sanitize=False, removeHs=False
        )
        if mol is None or mol.GetNumAtoms() != len(symbols):
            raise ValueError("RDKit cannot read OpenBabel's PDB record")
        try:
            Chem.SanitizeMol(mol)
        except (ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"RDKit rejects OpenBabel's bonds: {reason}") from error
    return mol


def _xyz(symbols: Sequence[str], positions: np.ndarray) -> str:
    centre = (positions.max(axis=0) + positions.min(axis=0)) / 2
    rows = zip(symbols, positions - centre, strict=True)
    lines = [f"{symbol} {x:.6f} {y:.6f} {z:.6f}" for symbol, (x, y, z) in rows]
    return "\n".join([str(len(lines)), "", *lines, ""])


def _assign_bond_orders(connected: Chem.Mol) -> Chem.Mol:
    mol = Chem.Mol(connected)
    rdDetermineBonds.DetermineBondOrders(mol, charge=0, maxIterations=_MAX_ITERATIONS)
    Chem.SanitizeMol(mol)
    return mol


def _saturated(connected: Chem.Mol) -> Chem.Mol | None:
    """Return the molecule with single bonds alone, if no electron is left over."""
    mol = Chem.Mol(connected)
    table = Chem.GetPeriodicTable()
    for atom in mol.GetAtoms():
        if table.GetDefaultValence(atom.GetAtomicNum()) < 0:
            return None  # RDKit lets such metals have any number of bonds
        atom.SetNoImplicit(True)
    try:
        Chem.SanitizeMol(mol)
    except (ValueError, RuntimeError):
        return None
    return None if any(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms()) else mol


def _bare_mol(numbers: np.ndarray, positions: np.ndarray) -> Chem.Mol:
    """Atoms and a conformer, no bonds."""
    if not len(numbers) or not np.isfinite(positions).all():
        raise ValueError("no bonds can be perceived: no atoms, or a coordinate is not finite")
    closest = cKDTree(positions).query(positions, k=2)[0][:, 1].min()
    if closest < _MIN_DISTANCE:
        raise ValueError(
            f"no bond assignment fits the geometry: two atoms are {closest:.2f} angstrom apart"
        )
    mol = Chem.RWMol()
    conformer = Chem.Conformer(len(numbers))
    for i, (number, xyz) in enumerate(zip(numbers.tolist(), positions.tolist(), strict=True)):
        mol.AddAtom(Chem.Atom(number))
        conformer.SetAtomPosition(i, xyz)
    conformer.Set3D(True)
    mol.AddConformer(conformer)
    return mol.GetMol()


def largest_fragment_smiles(mol: Chem.Mol) -> str:
    """Return the canonical SMILES of the largest fragment, as the lenient published rules do."""

    fragments = Chem.GetMolFrags(mol, asMols=True, sanitizeFrags=False)
    return canonical_smiles(max(fragments, key=lambda each: each.GetNumAtoms()))


def canonical_smiles(mol: Chem.Mol) -> str:
    """Return the canonical SMILES without stereo and hydrogens, the key of all comparisons.

    It is of the normalised molecule (`adit_plugins.structures.resonance`), so that `C[S+](C)[O-]`
    and `CS(C)=O` have one key.
    """
    from rdkit.rdBase import BlockLogs

    from adit_plugins.structures.resonance import normalised

    flat = Chem.RWMol(normalised(mol))
    Chem.RemoveStereochemistry(flat)  # first: a hydrogen that defines stereo would not be removed
    with BlockLogs():
        return Chem.MolToSmiles(Chem.RemoveHs(flat), isomericSmiles=False)
