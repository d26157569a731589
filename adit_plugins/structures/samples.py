"""Sample: one structure with its provenance, and its way to and from ASE, pymatgen and RDKit.

Provenance travels as one dictionary under the key `"adit"`: in `Atoms.info`, in
`Structure.properties` and `Molecule.properties`, and as JSON in a property of an RDKit `Mol`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from pymatgen.core import Element, IMolecule, IStructure, Molecule, Structure
from rdkit import Chem

from adit_plugins.structures.bonds import perceive_bonds
from adit_plugins.structures.elements import check_isotopes, is_isotope
from adit_plugins.structures.provenance import KEY, provenance_in

if TYPE_CHECKING:  # torch is imported by the two functions that need it, and by nothing else here
    from adit_model.batch import AtomBatch

KINDS = ("crystal", "molecule")
MAX_ATOMIC_NUMBER = 99  # the type head of the network ends there


@dataclass(frozen=True, eq=False, repr=False)
class Sample:
    """One crystal or molecule and where it came from.

    Attributes:
        kind: `"crystal"` or `"molecule"`.
        atomic_numbers: `[num_atoms]` int64, from 1 to 99.
        positions: `[num_atoms, 3]` Cartesian positions, angstrom.
        lattice: `[3, 3]` row vectors, angstrom; None for a molecule.
        provenance: what made the sample: id, checkpoint, checkpoint_hash, kind, seed, index, ...

    Raises:
        ValueError: a shape, an atomic number or a coordinate is impossible.
    """

    kind: str
    atomic_numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    lattice: NDArray[np.float64] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = _whole_numbers(self.atomic_numbers)
        positions = np.array(self.positions, dtype=np.float64)
        lattice = None if self.lattice is None else np.array(self.lattice, dtype=np.float64)
        _check(self.kind, numbers, positions, lattice)
        object.__setattr__(self, "atomic_numbers", numbers)
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "lattice", lattice)
        object.__setattr__(self, "provenance", dict(self.provenance))

    def __repr__(self) -> str:
        formula = Atoms(numbers=self.atomic_numbers).get_chemical_formula()
        return f"Sample({self.kind}, {formula}, id={self.id!r})"

    def _repr_html_(self) -> str:
        """Return a picture and the main facts, for notebooks."""
        from adit_plugins.structures.drawing import sample_html

        return sample_html(self)

    @property
    def id(self) -> str:
        """`checkpoint/seed/index`; empty for a structure that no checkpoint made."""
        return str(self.provenance.get("id", ""))

    @property
    def num_atoms(self) -> int:
        """Number of atoms."""
        return len(self.atomic_numbers)

    @property
    def frac_coords(self) -> NDArray[np.float64] | None:
        """`[num_atoms, 3]` fractional coordinates in [0, 1); None for a molecule."""
        if self.lattice is None:
            return None
        try:
            frac = np.linalg.solve(self.lattice.T, self.positions.T).T
        except np.linalg.LinAlgError:  # a generated cell can be flat: keep it for the filters
            frac = np.linalg.lstsq(self.lattice.T, self.positions.T)[0].T
        return _wrap(frac)

    def to_ase(self) -> Atoms:
        """Return `Atoms` with the provenance in `info["adit"]`."""
        periodic = self.lattice is not None
        atoms = Atoms(
            numbers=self.atomic_numbers, positions=self.positions, cell=self.lattice, pbc=periodic
        )
        atoms.info[KEY] = dict(self.provenance)
        return atoms

    def to_pymatgen(self) -> Structure | Molecule:
        """Return a `Structure` or `Molecule` with the provenance in `properties["adit"]`."""
        species = [Element.from_Z(int(z)) for z in self.atomic_numbers]
        properties = {KEY: dict(self.provenance)}
        frac_coords = self.frac_coords
        if self.lattice is None or frac_coords is None:
            return Molecule(species, self.positions, properties=properties)
        return Structure(self.lattice, species, frac_coords, properties=properties)

    def to_rdkit(self) -> Chem.Mol:
        """Return a sanitised `Mol` with this geometry, perceived bonds and the provenance.

        Raises:
            ValueError: it is a crystal, or no bond assignment fits (see `perceive_bonds`).
        """
        if self.kind != "molecule":
            raise ValueError("a crystal has no RDKit form; use to_pymatgen() or to_ase()")
        mol = perceive_bonds(self.atomic_numbers, self.positions)
        mol.SetProp("_Name", self.id)
        mol.SetProp(KEY, json.dumps(self.provenance))
        return mol

    @classmethod
    def from_ase(cls, atoms: Atoms) -> Self:
        """Take over `Atoms`: a crystal where all three directions are periodic, else a molecule.

        Raises:
            ValueError: only some directions are periodic, the cell has no volume, there is an
                isotope or a dummy atom, or see `Sample`.
        """
        if len(set(atoms.pbc.tolist())) > 1:
            raise ValueError(
                f"periodic in some directions only (pbc={atoms.pbc.tolist()}); "
                "set atoms.pbc to True (crystal) or False (molecule)"
            )
        if atoms.has("masses"):
            check_isotopes(atoms.numbers, atoms.get_masses())
        if not atoms.pbc.any():
            return cls("molecule", atoms.numbers, atoms.positions, None, provenance_in(atoms.info))
        lattice = atoms.cell.array
        _check_volume(lattice)
        return cls("crystal", atoms.numbers, atoms.positions, lattice, provenance_in(atoms.info))

    @classmethod
    def from_pymatgen(cls, structure: IStructure | IMolecule) -> Self:
        """Take over a `Structure` (crystal) or a `Molecule`; oxidation states are left behind.

        Raises:
            ValueError: a site is disordered, an isotope or a dummy, a molecule is charged, a
                structure is periodic in some directions only, or see `Sample`.
        """
        numbers = np.array([_site_number(site, i) for i, site in enumerate(structure)], dtype=int)
        positions = np.array([site.coords for site in structure]).reshape(-1, 3)
        provenance = provenance_in(structure.properties)
        if isinstance(structure, IStructure):
            if not all(structure.lattice.pbc):
                raise ValueError(
                    f"periodic in some directions only (pbc={structure.lattice.pbc}); "
                    "use a lattice periodic in all three, or a Molecule"
                )
            _check_volume(structure.lattice.matrix)
            return cls("crystal", numbers, positions, structure.lattice.matrix, provenance)
        check_neutral(structure.charge)
        return cls("molecule", numbers, positions, None, provenance)

    @classmethod
    def from_rdkit(cls, mol: Chem.Mol) -> Self:
        """Take over a `Mol` with explicit hydrogens and a 3D conformer; bonds are left behind.

        Raises:
            ValueError: no 3D conformer, implicit hydrogens, isotopes, charge, or see `Sample`.
        """
        if not mol.GetNumConformers() or not mol.GetConformer().Is3D():
            raise ValueError("the Mol has no 3D conformer; make one with AllChem.EmbedMolecule")
        if any(atom.GetTotalNumHs() for atom in mol.GetAtoms()):
            raise ValueError("the Mol has implicit hydrogens; use Chem.AddHs(mol, addCoords=True)")
        if any(is_isotope(atom.GetAtomicNum(), atom.GetIsotope()) for atom in mol.GetAtoms()):
            raise ValueError("isotopes cannot be represented; call atom.SetIsotope(0) on them")
        check_neutral(Chem.GetFormalCharge(mol))
        numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], dtype=int)
        provenance = provenance_in({KEY: mol.GetProp(KEY)} if mol.HasProp(KEY) else {})
        return cls("molecule", numbers, mol.GetConformer().GetPositions(), None, provenance)


Convertible = Sample | Atoms | IStructure | IMolecule | Chem.Mol


def to_sample(structure: Convertible) -> Sample:
    """Convert whatever a person holds into a `Sample`; a `Sample` comes back as it is.

    Raises:
        TypeError: the type is not known.
        ValueError: see `Sample.from_ase`, `Sample.from_pymatgen` and `Sample.from_rdkit`.
    """
    if isinstance(structure, Sample):
        return structure
    if isinstance(structure, Atoms):
        return Sample.from_ase(structure)
    if isinstance(structure, IStructure | IMolecule):
        return Sample.from_pymatgen(structure)
    if isinstance(structure, Chem.Mol):
        return Sample.from_rdkit(structure)
    raise TypeError(
        f"cannot convert {type(structure).__name__!r}. "
        "Known: Sample, ase Atoms, pymatgen Structure and Molecule, RDKit Mol."
    )


def to_samples(structures: Convertible | Sequence[Convertible]) -> list[Sample]:
    """Convert one structure, or a list or tuple of them.

    Raises:
        TypeError, ValueError: as `to_sample`; the message names the item.
    """
    # Structures are sequences themselves, of atoms.
    several = structures if isinstance(structures, list | tuple) else [structures]
    samples = []
    for index, each in enumerate(several):
        try:
            samples.append(to_sample(each))
        except (TypeError, ValueError) as error:
            raise type(error)(f"item {index}: {error}") from error
    return samples


def to_batch(structures: Convertible | Sequence[Convertible]) -> AtomBatch:
    """Pad a mixed list of structures into one `AtomBatch` (float32, on the CPU).

    Positions of molecules stay where they are; crystals are wrapped into their cell.

    Raises:
        TypeError: an item has an unknown type; the message names its index.
        ValueError: the list is empty or an item is impossible; the message names its index.
    """
    import torch

    from adit_model.batch import AtomBatch

    samples = to_samples(structures)
    if not samples:
        raise ValueError("no structures to convert: the list is empty")
    shape = (len(samples), max(s.num_atoms for s in samples))
    numbers = np.zeros(shape, dtype=np.int64)
    frac_coords = np.zeros((*shape, 3), dtype=np.float32)
    positions = np.zeros((*shape, 3), dtype=np.float32)
    lattices = np.zeros((len(samples), 3, 3), dtype=np.float32)
    for i, sample in enumerate(samples):
        numbers[i, : sample.num_atoms] = sample.atomic_numbers
        positions[i, : sample.num_atoms] = sample.positions
        frac = sample.frac_coords
        if frac is not None:
            lattices[i] = sample.lattice
            frac_coords[i, : sample.num_atoms] = _wrap(frac.astype(np.float32))
            positions[i] = frac_coords[i] @ lattices[i]
    periodic = np.array([s.kind == "crystal" for s in samples])
    arrays = (numbers, frac_coords, positions, lattices, periodic, numbers > 0)
    return AtomBatch(*(torch.from_numpy(array) for array in arrays))


def from_batch(
    batch: AtomBatch, provenance: Sequence[dict[str, Any]] | None = None
) -> list[Sample]:
    """Cut an `AtomBatch` into samples without padding, in order.

    Crystals are rebuilt from fractional coordinates and lattice, molecules from positions.

    Args:
        batch: on any device.
        provenance: one dictionary a structure.

    Raises:
        ValueError: `provenance` has another length, or a structure is impossible.
    """
    if provenance is not None and len(provenance) != len(batch):
        raise ValueError(f"got {len(provenance)} provenances for {len(batch)} structures")
    batch = batch.to("cpu")
    masks = batch.mask.numpy()
    numbers = batch.atomic_numbers.numpy()
    # float64 before the product, so that positions and lattice agree to its precision
    frac_coords = batch.frac_coords.double().numpy()
    positions = batch.positions.double().numpy()
    lattices = batch.lattice.double().numpy()
    samples = []
    for i, mask in enumerate(masks):
        origin = provenance[i] if provenance is not None else {}
        if batch.periodic[i]:
            cell = lattices[i]
            xyz = _wrap(frac_coords[i][mask]) @ cell
            samples.append(Sample("crystal", numbers[i][mask], xyz, cell, origin))
        else:
            samples.append(Sample("molecule", numbers[i][mask], positions[i][mask], None, origin))
    return samples


def _whole_numbers(values: Any) -> NDArray[np.int64]:
    numbers = np.array(values)
    if not np.issubdtype(numbers.dtype, np.integer) and numbers.size:
        raise ValueError(f"atomic_numbers must be whole numbers; got {values!r:.80}")
    return numbers.astype(np.int64)


def _check(
    kind: str, numbers: NDArray[Any], positions: NDArray[Any], lattice: NDArray[Any] | None
) -> None:
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}. Known: {', '.join(KINDS)}.")
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"no atoms: atomic_numbers has shape {numbers.shape}")
    if positions.shape != (len(numbers), 3):
        raise ValueError(f"positions have shape {positions.shape} for {len(numbers)} atoms")
    if (kind == "crystal") != (lattice is not None):
        raise ValueError("a crystal needs a lattice and a molecule has none")
    if lattice is not None and lattice.shape != (3, 3):
        raise ValueError(f"the lattice has shape {lattice.shape}, not (3, 3)")
    wrong = numbers[(numbers < 1) | (numbers > MAX_ATOMIC_NUMBER)]
    if len(wrong):
        raise ValueError(
            f"atomic number {wrong[0]} is not in 1..{MAX_ATOMIC_NUMBER} (0 is a dummy atom)"
        )
    if not np.isfinite(positions).all() or not (lattice is None or np.isfinite(lattice).all()):
        raise ValueError("a coordinate or lattice vector is not finite (NaN or infinite)")


def _check_volume(lattice: NDArray[np.float64]) -> None:
    if not abs(np.linalg.det(lattice)) > 1e-6:
        raise ValueError(
            "periodic, but the cell has no volume (angstrom^3); give three independent vectors"
        )


def check_neutral(charge: float) -> None:
    if charge:
        raise ValueError(f"the molecule has charge {charge:+g}; only neutral ones are known")


def _site_number(site: Any, index: int) -> int:
    if not site.is_ordered:
        raise ValueError(f"site {index} is disordered ({site.species_string}); order it first")
    element = getattr(site.specie, "element", site.specie)
    if not Element.is_valid_symbol(element.symbol):
        raise ValueError(f"site {index} is a dummy atom ({site.species_string})")
    if element.value in ("D", "T"):  # their symbol is "H"
        raise ValueError(f"site {index} is an isotope ({element.value}); replace it with H")
    return int(element.Z)


def _wrap(frac: NDArray[Any]) -> NDArray[Any]:
    frac = frac % 1.0
    return np.where(frac >= 1.0, 0.0, frac)  # -1e-17 % 1.0 is 1.0 in floating point
