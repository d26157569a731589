"""Which samples of a stream are kept: valid ones, each structure once, until there are enough."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from adit_plugins.structures.samples import Sample

if TYPE_CHECKING:
    from pymatgen.core import Structure

INVALID, DUPLICATE = "invalid", "duplicates"


@dataclass
class Selection:
    """A choice among samples, with what was thrown away and why.

    Attributes:
        valid_only: crystals must keep the structural rule (`is_structure_valid`), molecules be
            strictly valid as a whole: one fragment, bonds that fit, no radicals.
        unique: of equal structures only the first.
        num: stop after so many; None for all of the stream.
        made: samples looked at.
        thrown: how many were left out, by reason.
    """

    valid_only: bool = False
    unique: bool = False
    num: int | None = None
    made: int = 0
    thrown: Counter[str] = field(default_factory=Counter)
    _crystals: defaultdict[str, list[Structure | None]] = field(
        default_factory=lambda: defaultdict(list), repr=False
    )
    _molecules: set[str] = field(default_factory=set, repr=False)

    @property
    def kept(self) -> int:
        """Samples that were let through."""
        return self.made - self.thrown.total()

    def of(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Yield the samples that are kept."""
        for sample in samples:
            self.made += 1
            reason = self._reason(sample)
            if reason:
                self.thrown[reason] += 1
                continue
            yield sample
            if self.kept == self.num:
                return

    def _reason(self, sample: Sample) -> str:
        """Why a sample is left out; empty where it is kept."""
        judge = self._crystal if sample.kind == "crystal" else self._molecule
        return judge(sample)

    def _crystal(self, sample: Sample) -> str:
        from adit_plugins.matching.matcher import first_match, reduce_cell
        from adit_plugins.validity.crystals import is_structure_valid

        structure = cast("Structure", sample.to_pymatgen())
        if self.valid_only and not is_structure_valid(structure):
            return INVALID
        if self.unique:
            earlier = self._crystals[structure.composition.reduced_formula]
            mine = reduce_cell(structure)
            if first_match(mine, earlier) is not None:
                return DUPLICATE
            earlier.append(mine)
        return ""

    def _molecule(self, sample: Sample) -> str:
        from adit_plugins.validity.molecules import examine

        report, _ = examine(sample.to_ase())
        if self.valid_only and not report.strict_valid:
            return INVALID
        if self.unique and report.smiles is not None:  # without bonds it equals nothing
            if report.smiles in self._molecules:
                return DUPLICATE
            self._molecules.add(report.smiles)
        return ""

    def describe(self) -> dict[str, Any]:
        """Counts: made, kept, and what was thrown away by reason."""
        return {"made": self.made, "kept": self.kept, **self.thrown}
