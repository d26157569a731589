"""What a completion is about: the atoms that are given, and those that may be added."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from adit_plugins.generation import composition
from adit_plugins.generation.recipe import checked_integer
from adit_plugins.structures.samples import Convertible, Sample, to_sample

if TYPE_CHECKING:
    from adit_model.compositions import Constraints


@dataclass(frozen=True)
class Task:
    """What is given and what may be added.

    Attributes:
        given: the atoms that stay, in their order.
        removed: atomic numbers of those taken away.
        added: atoms of each element that are added, where it is said exactly.
        allowed: atomic numbers that may be added; None is all.
        sizes: numbers of atoms that a completion may have; None is any.
    """

    given: Sample
    removed: tuple[int, ...] = ()
    added: Counter[int] | None = None
    allowed: frozenset[int] | None = None
    sizes: frozenset[int] | None = None

    def constraints(self) -> Constraints:
        """The task as the prior takes it."""
        from adit_model.compositions import Constraints

        counts = self.counts
        if self.added is not None:
            counts = counts + self.added
            return Constraints(allowed=frozenset(counts), least=counts, most=counts)
        most = {z: counts[z] for z in self.unwanted}
        allowed = None
        if self.allowed is not None:
            most = {z: n for z, n in counts.items() if z not in self.allowed}
            allowed = self.allowed | frozenset(counts)
        first = self.given.num_atoms + 1
        sizes = self.sizes or frozenset(range(first, first + 1000))
        return Constraints(allowed=allowed, least=counts, most=most, num_atoms=sizes)

    @property
    def unwanted(self) -> frozenset[int]:
        """Elements that are not added unless they are named: those taken out of a crystal."""
        return frozenset(self.removed if self.given.kind == "crystal" else ())

    @property
    def counts(self) -> Counter[int]:
        """Atoms of each element that are given."""
        return Counter(self.given.atomic_numbers.tolist())


def make_task(
    structure: Convertible,
    num_atoms: int | Sequence[int] | None,
    fixed: Sequence[int] | None,
    elements: str | Sequence[str] | None,
    replace: str | Sequence[str] | None,
) -> Task:
    """See `ADiTGenerator.complete`.

    Raises:
        ValueError: an argument is impossible, or nothing is left or to be added.
    """
    whole = to_sample(structure)
    numbers = whole.atomic_numbers
    keep = np.ones(len(numbers), dtype=bool)
    if fixed is not None:
        keep[:] = False
        keep[_indices(fixed, len(numbers))] = True
    if replace is not None:
        named = composition.atomic_numbers([replace] if isinstance(replace, str) else replace)
        missing = named - set(numbers.tolist())
        if missing:
            raise ValueError(f"replace names {_symbols(missing)}, of which {whole!r} has none")
        keep &= ~np.isin(numbers, list(named))
    if not keep.any():
        raise ValueError("no atom is given; for whole structures use generate")
    given = Sample(whole.kind, numbers[keep], whole.positions[keep], whole.lattice)
    removed = tuple(numbers[~keep].tolist())
    added, allowed = None, None
    if isinstance(elements, str):
        added = Counter(composition.formula_numbers(elements))
        sizes: frozenset[int] | None = frozenset({given.num_atoms + added.total()})
    else:
        if elements is not None:
            allowed = frozenset(composition.atomic_numbers(elements))
            if not allowed:
                raise ValueError("elements must name at least one, or be left out")
        sizes = frozenset({len(numbers)}) if removed else None
    if num_atoms is not None:
        asked = [num_atoms] if isinstance(num_atoms, int) else list(num_atoms)
        asked = [checked_integer("num_atoms", each, 1) for each in asked]
        if not asked or min(asked) <= given.num_atoms or (added and set(asked) != sizes):
            expected = f"{min(sizes)}" if added and sizes else f"above {given.num_atoms}"
            raise ValueError(
                f"num_atoms={num_atoms} counts all atoms of a completion: it must be {expected}, "
                f"as {given.num_atoms} are given"
            )
        sizes = frozenset(asked)
    if added is None and allowed is not None and len(allowed) == 1 and sizes and len(sizes) == 1:
        added = Counter({next(iter(allowed)): min(sizes) - given.num_atoms})
    return Task(given, removed, added, allowed, sizes)


def _indices(fixed: Sequence[int], num_atoms: int) -> list[int]:
    indices = [checked_integer("fixed", each, 0) for each in fixed]
    if len(set(indices)) != len(indices) or any(each >= num_atoms for each in indices):
        raise ValueError(
            f"fixed must be different indices of atoms, 0..{num_atoms - 1}; got {list(fixed)}"
        )
    return indices


def _symbols(numbers: set[int]) -> str:
    from ase.data import chemical_symbols

    return ", ".join(chemical_symbols[z] for z in sorted(numbers))
