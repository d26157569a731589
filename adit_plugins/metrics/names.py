"""The rows of a table in plain words, the same in the terminal, in Markdown, JSON and the report.

Rows of single structures keep their keys (`struct_valid`, `valid_strict`), as columns do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from adit_plugins.metrics.rates import Rate

GIVEN = "given"  # all structures of a set, readable or not
_WORDS = {
    "struct_valid": "structurally valid",
    "comp_valid": "composition valid",
    "comp_valid_icsd24": "composition valid, icsd24",
    "comp_valid_smact4": "composition valid, SMACT 4",
    "lemat_charge": "LeMat: charges",
    "lemat_distance": "LeMat: distances",
    "lemat_plausible": "LeMat: plausible",
    "lemat_valid": "LeMat: valid",
    "unique_lemat": "LeMat: unique",
    "novel_lemat": "LeMat: novel",
    "atom_stability_edm": "atoms stable (EDM)",
    "molecule_stability_edm": "molecules stable (EDM)",
    "posebusters_all": "PoseBusters, all checks",
    "posebusters_all_but_energy": "PoseBusters, all but energy",
    "valid_strict_and_posebusters_all": "valid (strict), PoseBusters, all checks",
    "valid_strict_and_posebusters_all_but_energy": "valid (strict), PoseBusters, all but energy",
}
_RULES = {"openbabel": "OpenBabel", "edm": "EDM", "strict": "strict"}
_CHECK = "posebusters_"


def plain(key: str) -> str:
    """Return the words for a key of the rows; what is no key comes back as it is."""
    if key in _WORDS:
        return _WORDS[key]
    if key.startswith(_CHECK):
        return f"PoseBusters: {key.removeprefix(_CHECK).replace('_', ' ')}"
    first, _, rule = key.partition("_")
    return f"{first} ({_RULES[rule]})" if rule in _RULES else key


def in_words(rates: Iterable[Rate]) -> list[Rate]:
    """Return the rates with their names, and what they are shares of, in plain words."""
    return [replace(each, name=plain(each.name), of=plain(each.of)) for each in rates]
