"""Compositions on request: which elements a sample consists of, and how many of each.

Checkpoints with a prior draw compositions that fit and are told them. For all others the decoder's
scores of the elements are masked, and where counts are asked for, elements are given to atoms such
that the sum of the scores is the largest (an assignment problem). Such a model was not trained for
it, so requests far from its data cost validity.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from adit_model.compositions import Constraints

WILDCARD = "*"  # in a chemical system: one element more
NEEDS_PRIOR = (
    "chemical_system={!r} is for fresh samples whose elements are drawn first; name one system "
    "without * here"
)


@dataclass(frozen=True)
class CompositionRequest:
    """What a sample must consist of; the conditions add up.

    Args:
        elements: nothing but these, not necessarily all.
        exclude_elements: none of these.
        chemical_system: exactly these, such as `"Li-P-O"`: nothing else, and each at least once.
            A `*` is one element more, whichever: `"Li-*-O"`. Several systems, as in
            `"Li-Fe-O, Li-Mn-O"`, take turns, sample by sample.
        formula: exact proportions, such as `"LiFePO4"`: a crystal holds a whole multiple of it, a
            molecule just it.
        contains: at least one atom of each of these, beside others.

    Raises:
        ValueError: an element or formula cannot be read, or the conditions contradict each other.
    """

    elements: tuple[str, ...] | None = None
    exclude_elements: tuple[str, ...] | None = None
    chemical_system: str | None = None
    formula: str | None = None
    contains: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.formula is not None and self.chemical_system is not None:
            raise ValueError("a formula is a chemical system already; give one of the two")
        if len(self.systems()) > 1:
            for each in self.parts():  # each is judged by itself
                assert each
            return
        allowed, counts = self.allowed(), self.counts()
        required = set(counts) | self.required()
        if self.elements is not None and not self.elements:
            raise ValueError("elements must name at least one, or be left out")
        if not allowed or required - allowed:
            from ase.data import chemical_symbols

            named = ", ".join(chemical_symbols[z] for z in sorted(required - allowed))
            raise ValueError(
                f"no composition fits: {named or 'every element'} is asked for and ruled out "
                f"({self.describe()})"
            )
        number = self.num_elements()
        if number is not None and len(required) > number:
            raise ValueError(
                f"no composition fits: {number} elements cannot be all of {self.describe()}"
            )

    def __bool__(self) -> bool:
        return any(value is not None for value in vars(self).values())

    def describe(self) -> dict[str, Any]:
        """The conditions that are set, for provenance and messages."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def allowed(self) -> set[int]:
        """Atomic numbers that may appear."""
        allowed = set(range(1, 119))
        if self.elements is not None:
            allowed &= atomic_numbers(self.elements)
        system = set() if self._wildcards() else self._system()
        for restricting in (set(self.counts()), system):
            allowed &= restricting or allowed
        return allowed - atomic_numbers(self.exclude_elements or ())

    def counts(self) -> dict[int, int]:
        """Atoms of each element in one formula, by atomic number; empty without a formula."""
        return {} if self.formula is None else formula_numbers(self.formula)

    def sizes(
        self, histogram: Sequence[int], kind: str, seed: int, indices: Sequence[int]
    ) -> list[int] | None:
        """Atoms of each sample where the request restricts them: from the training histogram.

        A sample's size depends on (seed, index) alone.

        Raises:
            ValueError: no size in the histogram fits the request.
        """
        counts, system = self.counts(), self.required()
        if not counts and not system:
            return None
        unit = sum(counts.values())
        weights = np.array(histogram, dtype=float)
        places = np.arange(len(weights))
        if counts:
            fits = (places % unit == 0) if kind == "crystal" else (places == unit)
        else:
            fits = places >= len(system)
        weights[~fits | (places == 0)] = 0.0
        if not weights.sum():
            raise ValueError(
                f"no {kind} fits {self.describe()}: it has "
                f"{'a multiple of ' if counts and kind == 'crystal' else ''}"
                f"{unit or f'at least {len(system)}'} atoms, and the model was trained on {kind}s "
                f"of {_extent(histogram)} atoms"
                + (". Ask for crystals: --kind crystal" if kind == "molecule" else "")
            )
        cumulative = np.cumsum(weights) / weights.sum()
        return [
            int(np.searchsorted(cumulative, np.random.default_rng([seed, i]).random(), "right"))
            for i in indices
        ]

    def check_size(self, num_atoms: int, kind: str) -> None:
        """Refuse a number of atoms that the request cannot have.

        Raises:
            ValueError: the formula does not divide it, or it is smaller than the system.
        """
        unit = sum(self.counts().values())
        if unit and (num_atoms % unit or (kind != "crystal" and num_atoms != unit)):
            raise ValueError(
                f"num_atoms={num_atoms} is no whole multiple of {self.formula!r} ({unit} atoms)"
                if kind == "crystal"
                else f"num_atoms={num_atoms}, but {self.formula!r} has {unit}"
            )
        for each in self.parts():
            number = max(len(each.required()), each.num_elements() or 0)
            if num_atoms < number:
                raise ValueError(
                    f"num_atoms={num_atoms} is too small for the {number} elements of "
                    f"{each.describe()}"
                )

    def choose(self, logits: Tensor) -> Tensor:
        """Atomic numbers `[batch, atoms]` with the largest sum of scores that fit.

        Args:
            logits: the decoder's scores `[batch, atoms, num_types]`, index = atomic number.

        Raises:
            ValueError: the model knows none of the elements, or the elements must be drawn first.
        """
        if self.needs_prior():
            raise ValueError(NEEDS_PRIOR.format(self.chemical_system))
        top = logits.shape[-1] - 1
        allowed = sorted(z for z in self.allowed() if z <= top)
        beyond = [z for z in (*self.counts(), *self.required()) if z > top]
        if beyond or not allowed:
            raise ValueError(f"this model knows the elements 1..{top}; asked: {self.describe()}")
        return choose_types(logits, allowed, self._slots)

    def _slots(self, num_atoms: int) -> list[int]:
        """Elements that there must be among so many atoms, as often as there must be."""
        unit = sum(self.counts().values())
        slots = [z for z, n in self.counts().items() for _ in range(n * num_atoms // unit)]
        return slots or sorted(self.required())

    def required(self) -> set[int]:
        """Atomic numbers of which there must be an atom; those of a formula aside."""
        return self._system() | atomic_numbers(self.contains or ())

    def constraints(self) -> Constraints:
        """The request as the prior takes it."""
        from adit_model.compositions import Constraints

        return Constraints(
            allowed=frozenset(self.allowed()),
            required=frozenset(self.required()),
            formula=self.counts(),
            num_elements=self.num_elements() if self._wildcards() else None,
        )

    def systems(self) -> list[str]:
        """The chemical systems that are asked for, one by one.

        Raises:
            ValueError: it is no text.
        """
        text = self.chemical_system
        if text is None:
            return []
        if not isinstance(text, str):
            raise ValueError(f"chemical_system must be text such as 'Li-P-O'; got {text!r}")
        return re.sub(r"\s*-\s*", "-", text.strip()).replace(",", " ").split() or [text]

    def parts(self) -> list[CompositionRequest]:
        """The requests that samples take in turns: one for each chemical system."""
        systems = self.systems()
        if len(systems) < 2:
            return [self]
        return [replace(self, chemical_system=each) for each in systems]

    def num_elements(self) -> int | None:
        """How many different elements a chemical system has; None without one."""
        return len(self._system()) + self._wildcards() if self.chemical_system else None

    def needs_prior(self) -> bool:
        """Whether only a prior over elements can follow it: wildcards, several systems."""
        return len(self.systems()) > 1 or bool(self._wildcards())

    def _wildcards(self) -> int:
        return self._members().count(WILDCARD)

    def _members(self) -> list[str]:
        """What the one system is written of."""
        return [part for each in self.systems() for part in each.split("-")]

    def _system(self) -> set[int]:
        return atomic_numbers(part for part in self._members() if part != WILDCARD)


def choose_types(
    logits: Tensor, allowed: Sequence[int], slots: Callable[[int], list[int]]
) -> Tensor:
    """Atomic numbers `[batch, atoms]` with the largest sum of scores.

    Args:
        logits: the decoder's scores `[batch, atoms, num_types]`, index = atomic number.
        allowed: atomic numbers that an atom may have.
        slots: number of atoms -> atomic numbers that some of them must have.
    """
    import torch

    scores = logits.log_softmax(dim=-1).double().cpu().numpy()
    required = slots(scores.shape[1])
    chosen = [_choose_one(each, list(allowed), required) for each in scores]
    return torch.tensor(np.array(chosen), device=logits.device)


def _choose_one(scores: NDArray[Any], allowed: list[int], slots: list[int]) -> NDArray[Any]:
    from scipy.optimize import linear_sum_assignment

    best = np.array(allowed)[scores[:, allowed].argmax(axis=1)]
    if not slots:
        return best
    # Beyond the places that must be filled, an atom takes its best element.
    free = np.repeat(scores[:, allowed].max(axis=1)[:, None], len(scores) - len(slots), axis=1)
    atoms, columns = linear_sum_assignment(
        np.concatenate([scores[:, slots], free], axis=1), maximize=True
    )
    for atom, column in zip(atoms, columns, strict=True):
        if column < len(slots):
            best[atom] = slots[column]
    return best


def system_text(system: Any) -> Any:
    """Return a list of elements, or of chemical systems, as text; leave anything else alone."""
    if not isinstance(system, list | tuple | set | frozenset):
        return system
    names = [str(each) for each in system]
    if isinstance(system, set | frozenset):
        names.sort()
    return (", " if any("-" in each for each in names) else "-").join(names)


def formula_text(formula: Any) -> Any:
    """Return pymatgen's Composition as text; leave anything else alone."""
    if type(formula).__name__ != "Composition":  # without an import where there is none
        return formula
    return "".join(f"{element.symbol}{n:g}" for element, n in formula.items())


def formula_numbers(formula: str) -> dict[int, int]:
    """Atoms of each element in a formula, by atomic number.

    Raises:
        ValueError: it cannot be read, or names other than whole numbers of atoms.
    """
    return {_atomic_number(s): n for s, n in _formula_counts(formula).items()}


def _extent(histogram: Sequence[int]) -> str:
    """The smallest and the largest size that occur."""
    sizes = np.flatnonzero(histogram)
    return f"{sizes[0]} to {sizes[-1]}" if len(sizes) else "no"


def _formula_counts(formula: str) -> dict[str, int]:
    if not isinstance(formula, str):
        raise ValueError(f"formula must be text such as 'LiFePO4'; got {formula!r}")
    from pymatgen.core import Composition

    try:
        amounts = Composition(formula).get_el_amt_dict()
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"cannot read the formula {formula!r}; write symbols and whole numbers, such as "
            "'LiFePO4' or 'Ca3(PO4)2'"
        ) from error
    whole = all(math.isfinite(n) and n == round(n) and n >= 1 for n in amounts.values())
    zero = any(float(number) == 0 for number in re.findall(r"\d+\.?\d*", formula))
    if not amounts or not whole or zero:  # pymatgen leaves out elements of which there are none
        raise ValueError(
            f"the formula {formula!r} must name whole numbers of atoms, such as 'LiFePO4'"
        )
    return {symbol: round(n) for symbol, n in amounts.items()}


def atomic_numbers(symbols: Iterable[str]) -> set[int]:
    """Atomic numbers of symbols.

    Raises:
        ValueError: there is no such element.
    """
    return {_atomic_number(symbol) for symbol in symbols}


def _atomic_number(symbol: str) -> int:
    from ase.data import atomic_numbers as numbers

    number = numbers.get(str(symbol), 0)
    if number < 1:
        raise ValueError(
            f"no element {symbol!r}; write symbols such as 'Fe', several in a list, and a chemical "
            "system as 'Li-P-O'"
        )
    return int(number)
