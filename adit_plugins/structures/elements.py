"""Elements as files spell them: `Na`, `NA`, `Fe2+`, `Ow1`, `8`, and isotopes."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache

import numpy as np
from ase.data import atomic_masses, atomic_numbers
from numpy.typing import NDArray
from rdkit import Chem

_ISOTOPES = ("D", "T")
# Labels of water, as pymatgen's parser of CIFs knows them.
_WATER = re.compile(r"(ow|hw|wat)(?![a-z])", re.IGNORECASE)


def element_of_symbol(text: str) -> int:
    """Return the atomic number of a symbol in any case, with or without a charge (`Fe2+`, `O-2`).

    Raises:
        ValueError: it is an isotope, or no element.
    """
    letters = re.match(r"[A-Za-z]*", text.strip())
    word = letters.group() if letters else ""
    number = _known(word)
    if number is None:
        raise ValueError(f"{text.strip()!r:.20} is no element")
    return number


def element_of_label(label: str, likely: Collection[int] = ()) -> int:
    """Return the atomic number that a label such as `CA1`, `O2W` or `Ow1` stands for.

    Two letters that are an element are taken for it, as pymatgen does, unless the formula of the
    file has the element of the first letter and not that of both.

    Args:
        label: of an atom site.
        likely: atomic numbers in the formula of the file, if there is one.

    Raises:
        ValueError: it is an isotope, or no element begins it.
    """
    water = _WATER.match(label)
    if water:
        return 1 if water.group(1).lower() == "hw" else 8
    letters = re.match(r"[A-Za-z]{1,2}", label)
    if letters:
        word = letters.group()
        found = [n for n in (_known(word), _known(word[0])) if n is not None]
        if found:
            return next((number for number in found if number in likely), found[0])
    raise ValueError(f"no element begins the label {label!r:.20}")


@lru_cache(maxsize=1000)
def _known(word: str) -> int | None:
    symbol = word.capitalize()
    if symbol in _ISOTOPES:
        raise ValueError(f"isotopes cannot be represented ({symbol}); write H instead")
    number = atomic_numbers.get(symbol)
    return number or None  # X, number 0, is a dummy


def check_isotopes(numbers: NDArray[np.int64], masses: NDArray[np.float64]) -> None:
    """Refuse masses that belong neither to the element nor to its commonest isotope.

    Quantum-chemistry programs write the latter (78.918 for bromine, where 79.904 is the average).

    Args:
        numbers: `[num_atoms]` atomic numbers.
        masses: `[num_atoms]`, in daltons.

    Raises:
        ValueError: a mass is that of another isotope.
    """
    usual = atomic_masses[np.clip(numbers, 0, len(atomic_masses) - 1)]
    table = Chem.GetPeriodicTable()
    for i in np.flatnonzero(~(np.abs(masses - usual) <= 0.5)):
        number, mass = int(numbers[i]), float(masses[i])
        if not 1 <= number <= 118 or abs(table.GetMostCommonIsotopeMass(number) - mass) > 0.1:
            raise ValueError(
                f"isotopes cannot be represented (a mass of {mass:g}); "
                "reset them with atoms.set_masses()"
            )


def is_isotope(number: int, mass_number: int) -> bool:
    """Return whether a labelled mass number (0: none) is not that of the commonest isotope."""
    return mass_number not in (0, Chem.GetPeriodicTable().GetMostCommonIsotope(number))
