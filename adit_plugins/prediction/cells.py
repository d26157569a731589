"""In which cells a search looks: how many atoms a formula and a checkpoint allow."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from math import gcd, sqrt
from typing import TYPE_CHECKING

from adit_plugins.generation.composition import formula_numbers

if TYPE_CHECKING:
    from adit_model import ADiT

GOLDEN_RATIO = (1 + sqrt(5)) / 2


def sizes_of(model: ADiT) -> list[int]:
    """Numbers of atoms that crystals of a checkpoint's training set have.

    Raises:
        ValueError: it was trained on no crystals.
    """
    histogram = model.config.size_histogram.get("crystal", [])
    sizes = [size for size, number in enumerate(histogram) if size and number]
    if not sizes:
        raise ValueError(f"{model.name!r} makes no crystals; take the shipped release")
    return sizes


def fitting_cells(
    formula: str, sizes: Sequence[int], num_atoms: Sequence[int] | None = None
) -> tuple[list[int], str]:
    """Return the numbers of atoms to look for, and what is to be said of them.

    Args:
        formula: exact proportions; a cell holds a whole multiple of it.
        sizes: that the checkpoint makes, ascending.
        num_atoms: only these; what is beyond the checkpoint is left out, which the text says.

    Raises:
        ValueError: the formula cannot be read, it is larger than what the checkpoint makes, or a
            number is no multiple of it.
    """
    counts = formula_numbers(formula)
    unit = sum(counts.values())
    fitting = [size for size in sizes if size % unit == 0]
    if not fitting:
        raise ValueError(_too_large(formula, list(counts.values()), sizes[-1]))
    reach = f"cells of up to {sizes[-1]} atoms"
    if num_atoms is None:
        return fitting, (
            f"Looked in cells of {_listed(fitting)} atoms ({_units(fitting, unit)}). This "
            f"checkpoint makes {reach}: what has a larger primitive cell cannot be found."
        )
    allowed = f"{formula} has {unit} atoms; its cells here are of {_listed(fitting)} atoms"
    wrong = [size for size in num_atoms if size < 1 or size % unit]
    if wrong or not num_atoms:
        raise ValueError(f"num_atoms={wrong[0] if wrong else 'nothing'} cannot be: {allowed}")
    chosen = sorted(set(num_atoms) & set(fitting))
    if not chosen:
        raise ValueError(f"num_atoms={_listed(sorted(num_atoms))} is out of reach: {allowed}")
    beyond = sorted(set(num_atoms) - set(chosen))
    left_out = f" Left out: {_listed(beyond)}, as it makes {reach}." if beyond else ""
    return chosen, f"Looked in cells of {_listed(chosen)} atoms.{left_out}"


def cell_of(index: int, cells: Sequence[int], histogram: Sequence[int]) -> int:
    """Return the number of atoms of a sample, so that any run of samples has each size's share.

    A share is the number of training crystals of that size over the cost of a sample, which grows
    with its atoms. Multiples of the golden ratio spread evenly (Weyl), whatever their number.

    Args:
        index: of the sample.
        cells: numbers of atoms to choose from.
        histogram: of the training set, by number of atoms.
    """
    shares = [histogram[size] / size for size in cells]
    place = index * GOLDEN_RATIO % 1.0 * sum(shares)
    return cells[min(bisect(list(accumulate(shares)), place), len(cells) - 1)]


def _too_large(formula: str, counts: list[int], largest: int) -> str:
    unit, divisor = sum(counts), gcd(*counts)
    text = f"{formula} has {unit} atoms, and this checkpoint makes crystals of up to {largest}"
    if unit <= largest:
        return f"{text}, none of them of a multiple of {unit}"
    if divisor > 1 and unit // divisor <= largest:
        from pymatgen.core import Composition

        reduced = Composition(formula).reduced_formula
        return f"{text}; its proportions fit as {reduced}, of {unit // divisor} atoms"
    return f"{text}; formulas of at most {largest} atoms fit"


def _units(sizes: Sequence[int], unit: int) -> str:
    numbers = [size // unit for size in sizes]
    return f"{_listed(numbers)} formula unit{'s' if numbers != [1] else ''}"


def _listed(numbers: Sequence[int]) -> str:
    """`2, 4 and 6`."""
    texts = [str(number) for number in numbers]
    return " and ".join(filter(None, (", ".join(texts[:-1]), texts[-1])))
