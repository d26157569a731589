"""Which samples of a stream are kept: valid ones, each structure once, until there are enough."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from adit_plugins.structures.samples import Sample

if TYPE_CHECKING:
    from pymatgen.core import Structure

INVALID, DUPLICATE = "invalid", "duplicates"
AT_ONCE = 32  # molecules that PoseBusters gets together: its processes take seconds to start
# What a valid sample must keep, by kind; the first is always asked.
RULES = {
    "crystal": {
        "structure": "distances of at least 0.5 angstrom and a volume",
        "charges": "balanced by SMACT's rule",
    },
    "molecule": {
        "strict": "one fragment, bonds that fit, no radicals, charges only side by side",
        "no-ylides": "no charged carbon",
        "uncharged": "no charged atom at all: no nitro groups or N-oxides either",
        "posebusters": "all of PoseBusters' checks, with that of the strain energy",
    },
}
POSEBUSTERS = "posebusters"
CARBON = 6


def check_rules(rules: Iterable[str], kind: str) -> tuple[str, ...]:
    """Return the rules of a kind that are asked, the one that always is first.

    Raises:
        ValueError: there is none of that name for the kind.
    """
    known, wanted = RULES[kind], list(rules)
    for name in wanted:
        if name not in known:
            raise ValueError(f"no rule {name!r} for {kind}s. Known: {', '.join(known)}")
    base = next(iter(known))
    return (base, *(name for name in known if name in wanted and name != base))


@dataclass
class Selection:
    """A choice among samples, with what was thrown away and why.

    Attributes:
        valid_only: crystals must keep the structural rule (`is_structure_valid`), molecules be
            strictly valid as a whole: one fragment, bonds that fit, no radicals.
        unique: of equal structures only the first.
        num: stop after so many; None for all of the stream.
        rules: what valid samples must keep besides (`RULES`); any makes them valid ones only.
        made: samples looked at.
        thrown: how many were left out, by reason.
    """

    valid_only: bool = False
    unique: bool = False
    num: int | None = None
    rules: tuple[str, ...] = ()
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
        """Yield the samples that are kept.

        Raises:
            ValueError: there is no such rule for the kind.
        """
        size = min(AT_ONCE, self.num or AT_ONCE) if POSEBUSTERS in self.rules else 1
        stream = iter(samples)
        while block := list(islice(stream, size)):
            for sample, reason in zip(block, self._invalid(block), strict=True):
                self.made += 1
                reason = reason or self._duplicate(sample)
                if reason:
                    self.thrown[reason] += 1
                    continue
                yield sample
                if self.kept == self.num:
                    return

    def _invalid(self, samples: list[Sample]) -> list[str]:
        """Why each is no valid sample; empty where it is, or where nobody asks."""
        if not (self.valid_only or self.rules):
            return [""] * len(samples)
        asked = [check_rules(self.rules, sample.kind) for sample in samples]
        reasons = [
            _broken_rule(sample, rules) for sample, rules in zip(samples, asked, strict=True)
        ]
        if POSEBUSTERS in self.rules:
            from adit_plugins.validity.molecules import check_molecules

            places = [place for place, reason in enumerate(reasons) if not reason]
            reports = check_molecules([samples[place] for place in places]) if places else []
            for place, report in zip(places, reports, strict=True):
                if not (report.posebusters and all(report.posebusters.values())):
                    reasons[place] = f"by {POSEBUSTERS}"
        return reasons

    def _duplicate(self, sample: Sample) -> str:
        if not self.unique:
            return ""
        if sample.kind == "molecule":
            from adit_plugins.validity.molecules import examine

            smiles = examine(sample.to_ase())[0].smiles
            if smiles in self._molecules:
                return DUPLICATE
            if smiles is not None:  # without bonds it equals nothing
                self._molecules.add(smiles)
            return ""
        from adit_plugins.matching.matcher import first_match, reduce_cell

        structure = cast("Structure", sample.to_pymatgen())
        earlier = self._crystals[structure.composition.reduced_formula]
        mine = reduce_cell(structure)
        if first_match(mine, earlier) is not None:
            return DUPLICATE
        earlier.append(mine)
        return ""

    def describe(self) -> dict[str, Any]:
        """Counts: made, kept, and what was thrown away by reason."""
        return {"made": self.made, "kept": self.kept, **self.thrown}


def _broken_rule(sample: Sample, rules: tuple[str, ...]) -> str:
    """The first rule, but PoseBusters', that a sample breaks, as a reason."""
    broken = _crystal_breaks(sample) if sample.kind == "crystal" else _molecule_breaks(sample)
    for name in rules:
        if name in broken:
            return INVALID if name == rules[0] else f"by {name}"
    return ""


def _crystal_breaks(sample: Sample) -> set[str]:
    from adit_plugins.validity.crystals import is_composition_valid, is_structure_valid

    structure = cast("Structure", sample.to_pymatgen())
    keeps = {
        "structure": is_structure_valid(structure),
        "charges": is_composition_valid(structure.composition),
    }
    return {name for name, kept in keeps.items() if not kept}


def _molecule_breaks(sample: Sample) -> set[str]:
    from adit_plugins.validity.molecules import examine

    report, mol = examine(sample.to_ase())
    if mol is None or not report.strict_valid:
        return {"strict"}
    charged = {atom.GetAtomicNum() for atom in mol.GetAtoms() if atom.GetFormalCharge()}
    keeps = {"no-ylides": CARBON not in charged, "uncharged": not charged}
    return {name for name, kept in keeps.items() if not kept}
