"""One way to draw each molecule: formal charges and bond orders as chemists write them.

Bonds perceived from a geometry, and SMILES of different programs, draw the same molecule with
different charges: DMSO as `C[S+](C)[O-]` or `CS(C)=O`, an azide as `[N-][N+]#N` or `N=[N+]=[N-]`.
`normalised` makes them one (RDKit's MolStandardize `Normalizer` with the rules below).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from rdkit import Chem
from rdkit.rdBase import BlockLogs

if TYPE_CHECKING:
    from rdkit.Chem import Mol
    from rdkit.Chem.MolStandardize.rdMolStandardize import Normalizer

_HEAVY = "S,P,Se,As,Te,Cl,Br,I"
# RDKit's own list writes sulfoxides with charges but sulfones without; here neither has any.
_RULES = (
    ("nitro", "[N;X3:1](=[O:2])=[O:3]>>[*+1:1](-[*-1:2])=[*:3]"),
    (
        "two oxides",
        f"[{_HEAVY};+2:1](-[O,S;-1:2])-[O,S;-1:3]>>[*+0:1](=[*-0:2])=[*-0:3]",
    ),
    ("oxide", f"[{_HEAVY};+1:1]-[O,S,N;-1:2]>>[*+0:1]=[*-0:2]"),
    ("carbon disulfide", "[S+1;X1:1]#[C:2]-[S-1;X1:3]>>[*+0:1]=[*:2]=[*-0:3]"),
    ("azide", "[N;-1:1]-[N+1:2]#[N+0;X1:3]>>[*-0:1]=[*+1:2]=[*-1:3]"),
    ("azide without charges", "[N;+0:1]=[N+0:2]#[N+0;X1:3]>>[*:1]=[*+1:2]=[*-1:3]"),
    ("diazo", "[C;-1:1]-[N+1:2]#[N+0;X1:3]>>[*-0:1]=[*+1:2]=[*-1:3]"),
    ("nitrous oxide", "[O-1;X1:1]-[N+1:2]#[N+0;X1:3]>>[*-0:1]=[*+1:2]=[*-1:3]"),
)
_MAX_STRUCTURES = 200  # resonance structures looked at


def normalised(mol: Mol) -> Mol:
    """Return the molecule with conventional charges; atoms and hydrogens stay as they are.

    It comes back as it is where a rule gives what RDKit does not accept.
    """
    if not any(atom.GetFormalCharge() for atom in mol.GetAtoms()) and not _is_hypervalent(mol):
        return mol
    with BlockLogs():
        try:
            changed = _normalizer().normalize(mol)
            Chem.SanitizeMol(changed)
        except (ValueError, RuntimeError):
            return mol
    return changed


def with_conventional_bonds(mol: Mol) -> Mol:
    """Return the molecule as a closed shell is drawn, if one of its resonance structures is that.

    The perception of bonds gives one structure of many, sometimes one with charges far apart or
    with radicals on neighbours (`N#[N+]N=c1cc[cH-]cc1` for phenyl azide, `[P][P]`).
    """
    mol = normalised(_with_paired_radicals(mol))
    if not has_separated_charges(mol):
        return mol
    flags = Chem.ALLOW_CHARGE_SEPARATION | Chem.UNCONSTRAINED_CATIONS | Chem.UNCONSTRAINED_ANIONS
    with BlockLogs():
        for structure in Chem.ResonanceMolSupplier(mol, flags, _MAX_STRUCTURES):
            if structure is None:
                continue
            found = Chem.Mol(structure)
            try:
                Chem.SanitizeMol(found)
            except (ValueError, RuntimeError):
                continue
            found = normalised(found)
            if not (
                has_separated_charges(found) or has_radicals(found) or _has_ions_of_carbon(found)
            ):
                return found
    return mol


def has_radicals(mol: Mol) -> bool:
    """Return whether an atom has unpaired electrons."""
    return any(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms())


def has_separated_charges(mol: Mol) -> bool:
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


def _has_ions_of_carbon(mol: Mol) -> bool:
    return any(atom.GetAtomicNum() == 6 and atom.GetFormalCharge() for atom in mol.GetAtoms())


def _with_paired_radicals(mol: Mol) -> Mol:
    """Pair unpaired electrons of bonded atoms into bonds."""
    paired = Chem.RWMol(mol)
    orders = (Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE)
    changed = False
    for bond in paired.GetBonds():
        first, second = bond.GetBeginAtom(), bond.GetEndAtom()
        while (
            first.GetNumRadicalElectrons()
            and second.GetNumRadicalElectrons()
            and bond.GetBondType() in orders[:2]
        ):
            bond.SetBondType(orders[orders.index(bond.GetBondType()) + 1])
            for atom in (first, second):
                atom.SetNumRadicalElectrons(atom.GetNumRadicalElectrons() - 1)
            changed = True
    if not changed:
        return mol
    with BlockLogs():
        try:
            Chem.SanitizeMol(paired)
        except (ValueError, RuntimeError):
            return mol
    return paired.GetMol()


def _is_hypervalent(mol: Mol) -> bool:
    """Return whether there is a nitrogen with five bonds."""
    return any(
        atom.GetAtomicNum() == 7 and atom.GetTotalValence() > 3 and not atom.GetFormalCharge()
        for atom in mol.GetAtoms()
    )


@lru_cache(maxsize=1)
def _normalizer() -> Normalizer:
    from rdkit.Chem.MolStandardize import rdMolStandardize

    rules = "".join(f"{name}\t{smirks}\n" for name, smirks in _RULES)
    return rdMolStandardize.NormalizerFromData(rules, rdMolStandardize.CleanupParameters())
