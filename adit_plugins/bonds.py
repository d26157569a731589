"""Bond perception: the one place where a geometry becomes a molecule with bonds."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from rdkit import Chem, rdBase
from rdkit.Chem import rdDetermineBonds
from scipy.spatial import cKDTree

_MIN_DISTANCE = 0.5  # angstrom; H2, the shortest bond, has 0.74
# Real molecules need a handful; chains of N or S alone would need 2**num_atoms and never end.
_MAX_ITERATIONS = 10_000
_TIGHT_COVALENT_FACTOR = 1.15


def perceive_bonds(atomic_numbers: ArrayLike, positions: ArrayLike) -> Chem.Mol:
    """Find the bonds of a whole neutral molecule from its geometry.

    RDKit's `rdDetermineBonds` (Kim & Kim, doi 10.1002/bkcs.10334) on its connect-the-dots
    connectivity. Where that fits no valences, a tighter distance rule (1.15 covalent radii) gets
    a second chance, because the first one bonds across strained rings (7 % of QM9); it may not
    split the molecule further. The result can still have several fragments or charged atoms: it
    is for the caller to ask. Every check and conversion of the package uses this function (also
    as `adit_plugins.samples.perceive_bonds`).

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
    raise ValueError(f"no bond assignment fits the geometry as a neutral molecule: {reason}")


def _assign_bond_orders(connected: Chem.Mol) -> Chem.Mol:
    mol = Chem.Mol(connected)
    rdDetermineBonds.DetermineBondOrders(mol, charge=0, maxIterations=_MAX_ITERATIONS)
    Chem.SanitizeMol(mol)
    return mol


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
