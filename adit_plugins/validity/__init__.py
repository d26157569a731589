"""One structure to a verdict: every predicate once, for filters, campaigns and metrics.

Add a predicate on crystals in `crystals`, on molecules in `molecules`; its rate goes into
`adit_plugins.metrics`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adit_plugins.lazy import lazily

if TYPE_CHECKING:
    from adit_plugins.validity.crystals import (
        OXIDATION_TABLES,
        is_composition_valid,
        is_structure_valid,
        min_interatomic_distance,
    )
    from adit_plugins.validity.lemat import LematReport, check_lemat
    from adit_plugins.validity.molecules import MoleculeReport, check_molecules, openbabel_smiles
    from adit_plugins.validity.oxidation import NEUTRALITY_RULES, neutral_by

__all__ = [
    "NEUTRALITY_RULES",
    "OXIDATION_TABLES",
    "LematReport",
    "MoleculeReport",
    "check_lemat",
    "check_molecules",
    "is_composition_valid",
    "is_structure_valid",
    "min_interatomic_distance",
    "neutral_by",
    "openbabel_smiles",
]

__getattr__, __dir__ = lazily(
    __name__,
    crystals="OXIDATION_TABLES is_composition_valid is_structure_valid min_interatomic_distance",
    lemat="LematReport check_lemat",
    molecules="MoleculeReport check_molecules openbabel_smiles",
    oxidation="NEUTRALITY_RULES neutral_by",
)
