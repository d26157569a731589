"""An energy to a distance from the hull of known phases.

Add a reference as a function in `loaders` or `downloads`, named under the entry point `adit.hulls`;
a scale of energies in `energies`. What a potential's elements are off by is fitted in `measuring`
and kept by `references`. The shipped table is made in `building`, of energies on the `scales` of
others, and what its gaps are likely to cost is told by `thinness`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adit_plugins.lazy import lazily

if TYPE_CHECKING:
    from adit_plugins.hull.calibration import metastable_probability
    from adit_plugins.hull.energies import ConventionError, corrected_energy, place, place_energy
    from adit_plugins.hull.entries import HullSourceError, from_entries
    from adit_plugins.hull.loaders import (
        from_json,
        from_matbench_discovery,
        from_mp_api,
        from_table,
        load_hull,
    )
    from adit_plugins.hull.references import References, references_of
    from adit_plugins.hull.results import HullResult
    from adit_plugins.hull.table import (
        Hull,
        UnknownElementError,
        element_references,
        formation_energy_per_atom,
    )

__all__ = [
    "ConventionError",
    "Hull",
    "HullResult",
    "HullSourceError",
    "References",
    "UnknownElementError",
    "corrected_energy",
    "element_references",
    "formation_energy_per_atom",
    "from_entries",
    "from_json",
    "from_matbench_discovery",
    "from_mp_api",
    "from_table",
    "load_hull",
    "metastable_probability",
    "place",
    "place_energy",
    "references_of",
]

__getattr__, __dir__ = lazily(
    __name__,
    calibration="metastable_probability",
    energies="ConventionError corrected_energy place place_energy",
    entries="HullSourceError from_entries",
    loaders="from_json from_matbench_discovery from_mp_api from_table load_hull",
    references="References references_of",
    results="HullResult",
    table="Hull UnknownElementError element_references formation_energy_per_atom",
)
