"""Every validity predicate on one structure, written once: it serves filters and metrics alike.

Crystals: distances and volume, and the classical SMACT composition rule of CDVAE (Xie et al. 2022,
arXiv:2110.06197) with several tables of oxidation states. LeMat-GenBench's rules are in
`adit_plugins.validity.lemat`, molecules in `adit_plugins.validity.molecules`; both are re-exported
here.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from adit_plugins.structures.bonds import canonical_smiles
from adit_plugins.structures.given import to_composition, to_structure
from adit_plugins.validity.lemat import LematReport, check_lemat, smact_element
from adit_plugins.validity.molecules import MoleculeReport, check_molecules, openbabel_smiles

if TYPE_CHECKING:
    import smact
    from pymatgen.core import Composition

    from adit_plugins.structures.samples import Convertible

__all__ = [
    "OXIDATION_TABLES",
    "LematReport",
    "MoleculeReport",
    "canonical_smiles",
    "check_lemat",
    "check_molecules",
    "is_composition_valid",
    "is_structure_valid",
    "min_interatomic_distance",
    "openbabel_smiles",
]

# Name -> attribute of smact.Element. "smact14" is the table behind all published ADiT, CDVAE,
# DiffCSP and FlowMM figures (the default of SMACT up to 2.x). "smact4" is no attribute: it is what
# `smact_validity` of SMACT 4 takes by default, the ICSD 2024 states with three reports or more.
OXIDATION_TABLES = {
    "smact14": "oxidation_states_smact14",
    "icsd16": "oxidation_states_icsd16",
    "icsd24": "oxidation_states_icsd24",
    "pymatgen": "oxidation_states_sp",
    "smact4": None,
}


def min_interatomic_distance(structure: Convertible) -> float:
    """Return the shortest distance between two atoms or periodic images, in angstrom.

    An atom's own images count (an atom in a cell thinner than the limit collides with itself).
    A cell without volume or with coordinates that are not finite gives 0.
    """
    structure = to_structure(structure)
    matrix = np.asarray(structure.lattice.matrix)
    if not (np.isfinite(matrix).all() and np.isfinite(structure.frac_coords).all()):
        return 0.0
    if not abs(np.linalg.det(matrix)) > 1e-6:
        return 0.0
    shortest = float(min(structure.lattice.get_lll_reduced_lattice().abc))
    if len(structure) > 1:
        distances = structure.distance_matrix
        off_diagonal = distances[~np.eye(len(structure), dtype=bool)]
        shortest = min(shortest, float(off_diagonal.min()))
    return shortest


def is_structure_valid(
    structure: Convertible, min_distance: float = 0.5, min_volume: float = 0.1
) -> bool:
    """Return whether all distances and the volume reach their minima (CDVAE's structural rule).

    Args:
        structure: the crystal: Structure, Atoms or Sample.
        min_distance: angstrom.
        min_volume: cubic angstrom, of the whole cell.
    """
    structure = to_structure(structure)
    volume = abs(structure.volume)
    if not math.isfinite(volume) or volume < min_volume:
        return False
    return min_interatomic_distance(structure) >= min_distance


def is_composition_valid(
    composition: Composition | str | Convertible,
    table: str = "smact14",
    mixed_valence: bool = False,
) -> bool:
    """Return whether the composition can be charge neutral with sensible ions.

    The classical rule (`smact_validity` of CDVAE): single elements and all-metal compositions pass;
    otherwise one oxidation state an element must exist that sums to zero charge and in which no
    anion is less electronegative than a cation (Davies et al. 2019, SMACT).

    Args:
        composition: a pymatgen Composition, a formula or a structure; whole numbers of atoms.
        table: oxidation states, one of `OXIDATION_TABLES`.
        mixed_valence: atoms of the elements that SMACT lists as such (Fe, Mn, ...) may have
            different states, as in Fe3O4; `smact_validity(..., mixed_valence=True)` of SMACT 4.

    Raises:
        ValueError: on an unknown table, or a composition with fractions of atoms.
    """
    if table not in OXIDATION_TABLES:
        known = ", ".join(OXIDATION_TABLES)
        raise ValueError(f"No oxidation-state table '{table}'. Known: {known}.")
    amounts = to_composition(composition).element_composition.get_el_amt_dict()
    if any(abs(n - round(n)) > 1e-3 or round(n) < 1 for n in amounts.values()):
        raise ValueError(f"{composition} has fractions of atoms; multiply it to whole numbers.")
    divisor = math.gcd(*(round(n) for n in amounts.values())) or 1
    counts = tuple(sorted((symbol, round(n) // divisor) for symbol, n in amounts.items()))
    return _passes_smact(counts, table, mixed_valence)


@lru_cache(maxsize=100_000)
def _passes_smact(
    counts: tuple[tuple[str, int], ...], table: str, mixed_valence: bool = False
) -> bool:
    import smact

    symbols = [symbol for symbol, _ in counts]
    if len(symbols) == 1 or all(symbol in smact.metals for symbol in symbols):
        return True
    if mixed_valence:
        from smact.screening import MIXED_VALENCE_ELEMENTS

        counts = tuple(
            part
            for symbol, n in counts
            for part in ([(symbol, 1)] * n if symbol in MIXED_VALENCE_ELEMENTS else [(symbol, n)])
        )
        symbols = [symbol for symbol, _ in counts]
    try:
        elements = [smact_element(symbol) for symbol in symbols]
    except NameError:  # SMACT knows no element of that name (beyond lawrencium)
        return False
    states = [_oxidation_states(each, table) for each in elements]
    electronegativities = [each.pauling_eneg for each in elements]
    return _neutral_assignment_exists(states, [n for _, n in counts], electronegativities)


def _oxidation_states(element: smact.Element, table: str) -> tuple[int, ...]:
    attribute = OXIDATION_TABLES[table]
    if attribute is None:
        return _smact4_states().get(element.symbol, ())
    return tuple(getattr(element, attribute) or ())


@lru_cache(maxsize=1)
def _smact4_states() -> dict[str, tuple[int, ...]]:
    from smact.utils.oxidation import ICSD24OxStatesFilter

    table = ICSD24OxStatesFilter().filter()
    pairs = zip(table["element"], table["oxidation_state"], strict=True)
    return {str(symbol): tuple(int(q) for q in str(states).split()) for symbol, states in pairs}


def _neutral_assignment_exists(
    states: list[tuple[int, ...]], counts: list[int], electronegativities: list[float | None]
) -> bool:
    """Depth-first search for one neutral choice of states that passes Pauling's test.

    Gives the answer of CDVAE's product over all states, but in bounded time: a branch is left as
    soon as its charge cannot be balanced any more, its ions already fail the test (a failing pair
    fails every longer choice), or a branch with the same charge and the same extreme
    electronegativities was left before. The product takes minutes for eight transition metals.
    """
    from smact import neutral_ratios
    from smact.screening import pauling_test

    # balance[i]: charges that elements i, i+1, ... can add up to.
    balance: list[set[int]] = [{0}]
    for options, count in zip(reversed(states), reversed(counts), strict=True):
        balance.insert(0, {q * count + rest for q in options for rest in balance[0]})

    seen: set[tuple[int, int, float, float]] = set()

    def search(chosen: tuple[int, ...], charge: int) -> bool:
        depth = len(chosen)
        if -charge not in balance[depth]:
            return False
        if depth and not pauling_test(chosen, electronegativities[:depth]):
            return False
        if depth == len(states):
            return bool(neutral_ratios(chosen, stoichs=[[n] for n in counts]))
        ions = [(q, x or 0.0) for q, x in zip(chosen, electronegativities, strict=False)]
        key = (
            depth,
            charge,
            max((x for q, x in ions if q > 0), default=-math.inf),
            min((x for q, x in ions if q < 0), default=math.inf),
        )
        if key in seen:
            return False
        seen.add(key)
        return any(search((*chosen, q), charge + q * counts[depth]) for q in states[depth])

    return search((), 0)
