"""What crystals are compared with: shipped fingerprints, or any structures by StructureMatcher."""

from __future__ import annotations

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from adit_plugins.matching.fingerprints import CrystalFingerprints, Fingerprints
from adit_plugins.matching.matcher import LEMAT_LTOL, LTOL, group, match_alike
from adit_plugins.structures.samples import Convertible, Sample, to_sample

if TYPE_CHECKING:
    from pymatgen.core import Structure


@dataclass(frozen=True)
class Bucket:
    """Crystals of one formula, by their places in the set, and what they are compared with."""

    places: list[int]
    references: Any


class CrystalReference(ABC):
    """Known crystals."""

    by_matcher: ClassVar[bool]
    note: str

    @abstractmethod
    def of_formula(self, formula: str) -> Any:
        """What a worker needs to compare crystals of this formula."""

    @staticmethod
    @abstractmethod
    def compare(item: tuple[list[Sample], Any]) -> list[dict[str, Any]]:
        """Verdicts on crystals of one formula; importable, for worker processes."""

    def buckets(self, places: Sequence[int], formulas: Sequence[str]) -> list[Bucket]:
        """Sort crystals by formula."""
        return [
            Bucket([places[i] for i in members], self.of_formula(str(formula)))
            for formula, members in group(formulas).items()
        ]


class FingerprintReference(CrystalReference):
    """Invariants that stand for crystals; see `adit_plugins.matching.fingerprints`."""

    by_matcher = False

    def __init__(self, table: CrystalFingerprints, name: str) -> None:
        self.table = table
        self.note = (
            f"against the fingerprints of {name} ({len(table)} crystals), which approximate "
            "StructureMatcher; for a figure to publish, give --reference FILE"
        )

    def of_formula(self, formula: str) -> CrystalFingerprints:
        """A small table with the entries of this formula."""
        known = self.table.vectors.get(formula)
        return CrystalFingerprints({} if known is None else {formula: known})

    @staticmethod
    def compare(item: tuple[list[Sample], CrystalFingerprints]) -> list[dict[str, Any]]:
        """Uniqueness by StructureMatcher, novelty by the table."""
        samples, table = item
        structures = [cast("Structure", sample.to_pymatgen()) for sample in samples]
        verdicts = _uniqueness(structures)
        for structure, verdict in zip(structures, verdicts, strict=True):
            verdict |= {"novel": not table.contains(structure), "novel_lemat": None}
        return verdicts


class StructureReference(CrystalReference):
    """Structures themselves, kept as a few arrays each."""

    by_matcher = True

    def __init__(self, samples: Iterable[Sample], name: str) -> None:
        from ase.symbols import Symbols
        from pymatgen.core import Composition

        self.by_formula: dict[str, list[Sample]] = {}
        count = 0
        for sample in samples:
            formula = Symbols(sample.atomic_numbers).get_chemical_formula()
            self.by_formula.setdefault(Composition(formula).reduced_formula, []).append(sample)
            count += 1
        self.note = f"against {name} ({count} crystals) by StructureMatcher"

    def of_formula(self, formula: str) -> list[Sample]:
        """The references of this formula."""
        return self.by_formula.get(formula, [])

    @staticmethod
    def compare(item: tuple[list[Sample], list[Sample]]) -> list[dict[str, Any]]:
        """Uniqueness and novelty by StructureMatcher in both settings."""
        structures, known = (
            [cast("Structure", sample.to_pymatgen()) for sample in samples] for samples in item
        )
        return _uniqueness(structures, known)


def _uniqueness(
    structures: Sequence[Structure], known: Sequence[Structure] = ()
) -> list[dict[str, Any]]:
    """Unique (and novel) in both settings of the matcher."""
    if len(structures) == 1 and not known:
        fresh = {"unique": True, "unique_lemat": True, "novel": True, "novel_lemat": True}
        return [{**fresh, "duplicate_of": None}]
    wide, narrow = (match_alike(structures, known, ltol) for ltol in (LTOL, LEMAT_LTOL))
    return [
        {
            "unique": first.duplicate_of is None,
            "unique_lemat": second.duplicate_of is None,
            "novel": first.known_as is None,
            "novel_lemat": second.known_as is None,
            "duplicate_of": first.duplicate_of,
        }
        for first, second in zip(wide, narrow, strict=True)
    ]


Reference = str | PathLike[str] | Fingerprints | CrystalReference | Sequence[Convertible]


def load_reference(reference: Reference) -> CrystalReference:
    """Find out what the reference is and load it.

    Args:
        reference: `"crystal"` (the shipped training set), a file of fingerprints, of structures
            or of prepared arrays (`adit data prepare`), a table, or structures. What was loaded
            before stays as it is.

    Raises:
        ValueError: it cannot be read, or holds no crystals.
    """
    if isinstance(reference, CrystalReference):
        return reference
    if isinstance(reference, Fingerprints):
        return _of_table(reference, "a table")
    if not isinstance(reference, str | PathLike):
        return StructureReference((to_sample(each) for each in reference), "a list")
    path = Path(reference)
    if str(reference) == "crystal":
        return _of_table(Fingerprints.load("crystal"), "the shipped training set")
    if not path.exists():
        raise ValueError(f"No reference '{path}'. Known: crystal; or give a file of structures.")
    if path.suffix == ".safetensors":
        return StructureReference(_prepared(path), path.name)
    if path.suffix == ".npz" and "kind.npy" in _members(path):
        return _of_table(Fingerprints.load(path), path.name)
    from adit_plugins.structures.reading import read_structures

    samples = [to_sample(atoms) for atoms in read_structures(path)]
    crystals = [sample for sample in samples if sample.kind == "crystal"]
    if not crystals:
        raise ValueError(f"The reference {path} holds no crystals.")
    return StructureReference(crystals, path.name)


def _of_table(table: Fingerprints, name: str) -> FingerprintReference:
    if not isinstance(table, CrystalFingerprints):
        raise ValueError(f"The fingerprints of {name} are of molecules, not of crystals.")
    return FingerprintReference(table, name)


def _members(path: Path) -> list[str]:
    try:
        return zipfile.ZipFile(path).namelist()
    except (OSError, zipfile.BadZipFile):
        return []


def _prepared(path: Path) -> Iterable[Sample]:
    """The training split of prepared arrays."""
    from adit_model.data import PreparedData, SizeGroups
    from adit_plugins.structures.samples import from_batch

    data = PreparedData.load(path)
    if data.kind != "crystal":
        raise ValueError(f"The reference {path} holds {data.kind}s, not crystals.")
    groups = SizeGroups(data, "train", "cpu")
    for size, chosen in groups.batches(512):
        yield from from_batch(groups.batch(size, chosen))
