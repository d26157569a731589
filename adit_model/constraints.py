"""What a composition must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from adit_model.elements import named


@dataclass(frozen=True)
class Constraints:
    """What a composition must be; the conditions add up.

    Attributes:
        allowed: atomic numbers that may appear; None is all.
        required: atomic numbers of which there must be at least one atom.
        formula: atoms of each element in one formula, by atomic number: a crystal holds a whole
            multiple of it, a molecule just it.
        least: atoms that there must be of an element, by atomic number.
        most: atoms that there may be of an element, by atomic number.
        num_atoms: numbers of atoms that it may have; None is all of the training data.
        num_elements: how many different elements it must have; None is any number.
    """

    allowed: frozenset[int] | None = None
    required: frozenset[int] = frozenset()
    formula: Mapping[int, int] = field(default_factory=dict)
    least: Mapping[int, int] = field(default_factory=dict)
    most: Mapping[int, int] = field(default_factory=dict)
    num_atoms: frozenset[int] | None = None
    num_elements: int | None = None

    @property
    def needs(self) -> dict[int, int]:
        """Atoms that there must be, a formula aside, by atomic number."""
        needed = {z: n for z, n in self.least.items() if n > 0}
        return dict.fromkeys(self.required, 1) | needed

    def elements(self, known: frozenset[int]) -> frozenset[int]:
        """Elements that may appear, of those that a model knows.

        Raises:
            ValueError: none is left, or a required one is not among them.
        """
        allowed = known if self.allowed is None else known & self.allowed
        if self.formula:
            allowed &= frozenset(self.formula)
        allowed -= {z for z, n in self.most.items() if n < max(1, self.least.get(z, 0))}
        missing = (frozenset(self.needs) | frozenset(self.formula)) - allowed
        if missing:
            raise ValueError(
                f"no composition fits: {named(missing)} {'is' if len(missing) == 1 else 'are'} "
                f"asked for, and ruled out or not in the training data ({named(known)})"
            )
        if not allowed:
            raise ValueError(
                f"no composition fits: of {named(self.allowed or frozenset())}, which may appear, "
                f"none is in the training data ({named(known)})"
            )
        number = self.num_elements
        if number is not None and not len(self.needs) <= number <= len(allowed):
            raise ValueError(
                f"no composition fits: it must have {number} elements, and {len(self.needs)} are "
                f"asked for of {named(allowed)}"
            )
        return allowed

    def sizes(self, kind: str, histogram: Sequence[int], max_atoms: int) -> list[int]:
        """Numbers of atoms that a composition can have, of those in the training data.

        Raises:
            ValueError: there is none.
        """
        seen = [n for n, count in enumerate(histogram) if count and n <= max_atoms]
        unit, needs = sum(self.formula.values()), self.needs
        least = max(1, sum(needs.values()) + max(0, (self.num_elements or 0) - len(needs)))
        fits = [n for n in seen if n >= least]
        if unit:
            fits = [n for n in fits if (n % unit == 0 if kind == "crystal" else n == unit)]
        if self.num_atoms is not None:
            among = [n for n in fits if n in self.num_atoms]
            if fits and not among:
                raise ValueError(
                    f"num_atoms={sorted(self.num_atoms)} does not fit the request; possible: "
                    + ", ".join(map(str, fits))
                )
            fits = among
        if not fits:
            atoms = f"{'a multiple of ' if kind == 'crystal' else ''}{unit}" if unit else least
            raise ValueError(
                f"no {kind} fits: it needs {'' if unit else 'at least '}{atoms} atoms, and the "
                f"model was trained on {kind}s of "
                + (f"{seen[0]} to {seen[-1]} atoms" if seen else "no size")
            )
        return fits
