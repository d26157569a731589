"""Novelty without the data: fingerprints of a data set that cannot be turned back into it.

Molecules: 64-bit hashes of canonical SMILES. Crystals: the reduced formula and a few numbers that
do not depend on the choice of cell and change little with the atoms, compared within a tolerance
that was set against pymatgen's StructureMatcher (agreement: `adit_plugins/data/README.md`).
"""

from __future__ import annotations

import hashlib
import itertools
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from adit_model.outputs import replacing
from adit_plugins.structures.given import to_structure
from adit_plugins.structures.symmetry import niggli_reduced
from adit_plugins.structures.untrusted import check_unpacked_size

if TYPE_CHECKING:
    from pymatgen.core import Composition, Structure

    from adit_plugins.structures.samples import Convertible

# Lengths are in units of the cube root of the volume an atom, as StructureMatcher scales cells.
COORDINATION_WIDTH = 0.8  # near the shortest distances: resolves order and coordination
COORDINATION_FLOOR = 0.1  # counts below it carry no weight in the logarithm
COORDINATION_CUTOFF = 2.6
NUM_LATTICE_VECTORS = 12
STEP = 0.025  # of the stored logarithms: int8 covers -3.2 to 3.2
COORDINATION_TOLERANCE = 0.12
LATTICE_TOLERANCE = 0.072
MAX_VOLUME_PER_ATOM = 1e6  # cubic angstrom; the reduction of larger cells takes all memory


class Fingerprints(ABC):
    """A set of known structures; `contains` says whether one more is among them."""

    kind: ClassVar[str]

    @staticmethod
    def load(kind_or_path: str | Path) -> Fingerprints:
        """Load the shipped training set (`"crystal"`, `"molecule"`) or a file made by `save`.

        Raises:
            ValueError: if it is neither, or the file is no table of fingerprints.
        """
        path = Path(kind_or_path)
        if str(kind_or_path) in _KINDS:
            path = Path(str(files("adit_plugins") / "data" / f"fingerprints_{kind_or_path}.npz"))
        elif not path.is_file():
            known = ", ".join(_KINDS)
            raise ValueError(f"No fingerprints '{kind_or_path}'. Known: {known}; or give a file.")
        try:
            check_unpacked_size(Path(path))
            with np.load(path, allow_pickle=False) as arrays:
                return _KINDS[str(arrays["kind"])]._from_arrays(dict(arrays))
        except (OSError, KeyError, EOFError, ValueError, BadZipFile) as error:
            reason = "no archive of plain arrays" if "pickle" in str(error) else error
            raise ValueError(f"'{path}' is no table of fingerprints: {reason}") from error

    @staticmethod
    def build(known: Iterable[Structure] | Iterable[str]) -> Fingerprints:
        """Make a table from pymatgen Structures or from SMILES.

        Raises:
            ValueError: if there is nothing to build from, or a SMILES cannot be read.
        """
        items: Iterator[Any] = iter(known)
        first = next(items, None)
        if first is None:
            raise ValueError("No structures to build fingerprints from.")
        everything = itertools.chain([first], items)
        if isinstance(first, str):
            return MoleculeFingerprints.of(everything)
        return CrystalFingerprints.of(everything)

    def save(self, path: str | Path) -> None:
        """Write the table as a compressed npz file."""
        arrays: dict[str, Any] = {"kind": np.array(self.kind), **self._arrays()}
        with replacing(Path(path)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @abstractmethod
    def contains(self, item: Any) -> bool:
        """Return whether a structure (or SMILES) is known."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _arrays(self) -> dict[str, NDArray[Any]]: ...

    @classmethod
    @abstractmethod
    def _from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Fingerprints: ...


class MoleculeFingerprints(Fingerprints):
    """Hashes of canonical SMILES without stereo and hydrogens."""

    kind = "molecule"

    def __init__(self, hashes: NDArray[np.uint64]) -> None:
        self.hashes = np.unique(hashes)

    @classmethod
    def of(cls, smiles: Iterable[str]) -> MoleculeFingerprints:
        """Make the table from SMILES in any writing."""
        values = (_hash(_canonical(each)) for each in smiles)
        return cls(np.fromiter(values, dtype=np.uint64))

    def contains(self, item: str) -> bool:
        """Return whether the SMILES is known; stereo and its writing do not matter.

        Raises:
            ValueError: if RDKit cannot read the SMILES.
        """
        value = np.uint64(_hash(_canonical(item)))
        index = int(np.searchsorted(self.hashes, value))
        return index < len(self.hashes) and bool(self.hashes[index] == value)

    def __len__(self) -> int:
        return len(self.hashes)

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {"hashes": self.hashes}

    @classmethod
    def _from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> MoleculeFingerprints:
        return cls(arrays["hashes"])


class CrystalFingerprints(Fingerprints):
    """Per reduced formula: sites of the primitive cell and its invariants, int8."""

    kind = "crystal"

    def __init__(self, vectors: dict[str, list[tuple[int, NDArray[np.int8]]]]) -> None:
        self.vectors = vectors

    @classmethod
    def of(cls, structures: Iterable[Structure]) -> CrystalFingerprints:
        """Make the table from crystals."""
        vectors = defaultdict(list)
        for structure in structures:
            vectors[structure.composition.reduced_formula].append(crystal_invariants(structure))
        return cls(dict(vectors))

    def contains(self, item: Structure) -> bool:
        """Return whether a known crystal has this formula, cell size and (nearly) invariants.

        A cell too distorted to be reduced is not known; pymatgen raises various errors there.
        """
        known = self.vectors.get(item.composition.reduced_formula)
        if not known:
            return False
        try:
            mine = crystal_invariants(item)
        except (ValueError, ArithmeticError, IndexError, RuntimeError, MemoryError):
            return False
        return any(invariants_match(mine, other) for other in known)

    def has_formula(self, composition: Composition) -> bool:
        """Whether a known crystal has this reduced formula."""
        return composition.reduced_formula in self.vectors

    def __len__(self) -> int:
        return sum(len(each) for each in self.vectors.values())

    def _arrays(self) -> dict[str, NDArray[Any]]:
        rows = [(f, n, vector) for f in sorted(self.vectors) for n, vector in self.vectors[f]]
        text = "\n".join(formula for formula, _, _ in rows).encode()
        return {
            "formulas": np.frombuffer(text, dtype=np.uint8),
            "num_sites": np.array([n for _, n, _ in rows], dtype=np.uint16),
            "lengths": np.array([len(vector) for _, _, vector in rows], dtype=np.uint16),
            "vectors": np.concatenate([vector for _, _, vector in rows]),
        }

    @classmethod
    def _from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> CrystalFingerprints:
        formulas = arrays["formulas"].tobytes().decode().split("\n")
        pieces = np.split(arrays["vectors"], np.cumsum(arrays["lengths"])[:-1])
        vectors = defaultdict(list)
        for formula, n, vector in zip(formulas, arrays["num_sites"], pieces, strict=True):
            vectors[formula].append((int(n), vector))
        return cls(dict(vectors))


_KINDS: dict[str, type[Fingerprints]] = {
    "crystal": CrystalFingerprints,
    "molecule": MoleculeFingerprints,
}


def crystal_invariants(structure: Convertible) -> tuple[int, NDArray[np.int8]]:
    """Return the sites of the primitive cell and its invariants as scaled logarithms.

    The invariants: the lengths of the shortest lattice vectors of the primitive cell [12], then
    for each pair of elements a smooth coordination number, sum of exp(-(d/0.8)^2) an atom. They
    are in the spirit of average minimum distances (Widdowson et al. 2022, doi
    10.46793/match.87-3.529W), but unlike these tell which element sits where.

    Raises:
        ValueError: if the cell has no volume, next to no atoms, or cannot be reduced.
    """
    structure = to_structure(structure)
    if is_too_empty(structure):
        raise ValueError("a cell with next to no atoms has no invariants")
    primitive = niggli_reduced(structure).get_primitive_structure()
    return len(primitive), invariants_of_primitive(primitive)


def invariants_of_primitive(primitive: Structure) -> NDArray[np.int8]:
    """Return the invariants of a primitive cell; crystals of one formula have equally many.

    Raises:
        ValueError: if the cell has no volume.
    """
    unit = (primitive.volume / len(primitive)) ** (1 / 3)
    if not unit > 0:
        raise ValueError("a cell without volume has no invariants")
    lattice = primitive.lattice.get_lll_reduced_lattice().matrix / unit
    grid = np.array(list(itertools.product(range(-3, 4), repeat=3)))
    norms = np.sort(np.linalg.norm(grid @ lattice, axis=1))
    norms = norms[1 : 2 * NUM_LATTICE_VECTORS : 2]  # skip the origin, take one of each +-pair

    numbers = np.array(primitive.atomic_numbers)
    centers, points, _, distances = primitive.get_neighbor_list(COORDINATION_CUTOFF * unit)
    weights = np.exp(-((distances / unit / COORDINATION_WIDTH) ** 2))
    pairs = itertools.combinations_with_replacement(np.unique(numbers), 2)
    coordination = [
        weights[(numbers[centers] == a) & (numbers[points] == b)].sum() / (numbers == a).sum()
        for a, b in pairs
    ]
    logarithms = np.log([*norms, *(np.array(coordination) + COORDINATION_FLOOR)])
    scaled: NDArray[np.int8] = np.clip(np.round(logarithms / STEP), -127, 127).astype(np.int8)
    return scaled


def num_invariants(num_elements: int) -> int:
    """Return how many invariants a crystal of so many elements has."""
    return NUM_LATTICE_VECTORS + num_elements * (num_elements + 1) // 2


def is_too_empty(structure: Structure) -> bool:
    """Return whether there are more than 10^6 cubic angstrom an atom, a gas and no crystal."""
    return bool(structure.volume > MAX_VOLUME_PER_ATOM * len(structure))


def invariants_match(
    first: tuple[int, NDArray[np.int8]], second: tuple[int, NDArray[np.int8]]
) -> bool:
    """Return whether two crystals of equal formula agree within the calibrated tolerances."""
    if first[0] != second[0]:
        return False
    squares = (STEP * (first[1].astype(float) - second[1])) ** 2
    lattice, coordination = squares[:NUM_LATTICE_VECTORS], squares[NUM_LATTICE_VECTORS:]
    return bool(
        lattice.mean() <= LATTICE_TOLERANCE**2 and coordination.mean() <= COORDINATION_TOLERANCE**2
    )


def _canonical(smiles: str) -> str:
    from rdkit import Chem
    from rdkit.rdBase import BlockLogs

    from adit_plugins.structures.bonds import canonical_smiles

    with BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        raise ValueError(f"RDKit cannot read the SMILES '{smiles}'.")
    return canonical_smiles(mol)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def is_known(smiles: str, known: Fingerprints) -> bool:
    """Return whether the reference has it; RDKit may write a SMILES that it cannot read again."""
    try:
        return known.contains(smiles)
    except ValueError:
        return False
