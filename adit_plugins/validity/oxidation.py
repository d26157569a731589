"""Which rule finds a composition charge neutral, mixed valence included.

The classical rule gives each element one oxidation state, and so turns away LiMn2O4 and Fe3O4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pymatgen.core import Composition

    from adit_plugins.structures.samples import Convertible

# In the order in which they are asked; each is more lenient than those before it.
NEUTRALITY_RULES = ("smact", "mixed", "guess")
NO_RULE = "none"

PYMATGEN_MAX_SITES = 20  # of the reduced formula; pymatgen itself guesses up to here
# Of oxidation states: combinations on the sites of an element, and sums of charges; a second each.
MAX_COMBINATIONS, MAX_SUMS = 10_000, 5_000_000


def neutral_by(composition: Composition | str | Convertible) -> str:
    """Return the first rule that finds a composition charge neutral.

    Args:
        composition: a pymatgen Composition, a formula or a structure; whole numbers of atoms.

    Returns:
        `"smact"`: the classical rule, one state an element (`is_composition_valid`);
        `"mixed"`: `smact_validity(..., mixed_valence=True)` of SMACT 4, several states for the
        elements that it lists as such (Fe3O4, LiMn2O4);
        `"guess"`: pymatgen's `oxi_state_guesses`, averages over an element's atoms;
        `"none"`: none of them.

    Raises:
        ValueError: a composition with fractions of atoms.
    """
    from adit_plugins.structures.given import to_composition
    from adit_plugins.validity.crystals import is_composition_valid  # RDKit; `adit --help` waits

    composition = to_composition(composition)
    if is_composition_valid(composition):
        return "smact"
    if is_composition_valid(composition, "smact4", mixed_valence=True):
        return "mixed"
    elements = composition.element_composition
    return "guess" if guessed_oxidation_states(elements.reduced_formula) else NO_RULE


@lru_cache(maxsize=4096)
def guessed_oxidation_states(formula: str) -> Mapping[str, float]:
    """Return average oxidation states by element, empty where none balance or it takes too long.

    The most likely of pymatgen's guesses, as `MaterialsProject2020Compatibility` takes it, without
    its limit of 20 atoms; the number of trials is what costs time.
    """
    from pymatgen.core import Composition

    composition = Composition(formula)
    combinations, sums = 0, 1
    for element, amount in composition.items():
        states = element.icsd_oxidation_states or element.common_oxidation_states or (0,)
        ways = math.comb(int(amount) + len(states) - 1, len(states) - 1)
        combinations += ways
        sums *= min(ways, int(amount) * int(max(states) - min(states)) + 1)
    too_long = combinations > MAX_COMBINATIONS or sums > MAX_SUMS
    if too_long and composition.num_atoms > PYMATGEN_MAX_SITES:
        return {}
    guesses = composition.oxi_state_guesses(max_sites=-1)
    return dict(guesses[0]) if guesses else {}
