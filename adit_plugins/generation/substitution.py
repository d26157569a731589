"""Elements of a crystal exchanged for others, with the charges counted and the cell rescaled."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pymatgen.core import Composition, Element, IStructure, Species, Structure

from adit_plugins.structures.provenance import KEY
from adit_plugins.structures.samples import Convertible, Sample, to_sample
from adit_plugins.validity.crystals import is_composition_valid


@dataclass(frozen=True)
class Substitution:
    """A crystal with other elements, and what is known of it before any calculation.

    Attributes:
        structure: the crystal, sites in their old order, the cell rescaled.
        charge_balanced: whether SMACT's rule holds: charges that sum to zero, or an alloy.
        oxidation_states: mean charge by symbol in the likeliest neutral assignment (pymatgen);
            empty where there is none.
        radii: `"ionic"` or `"atomic"`, those that the cell was rescaled by; None for not at all.
        volume_ratio: volume over that of before.
    """

    structure: Structure
    charge_balanced: bool
    oxidation_states: dict[str, float] = field(default_factory=dict)
    radii: str | None = None
    volume_ratio: float = 1.0


def substituted(
    structure: Convertible, elements: Mapping[str, str], rescale: bool = True
) -> Substitution:
    """Exchange elements of a crystal, all at once.

    The volume is scaled by the radii of old and new species (pymatgen's `RLSVolumePredictor`,
    Chu et al. 2018, doi 10.1016/j.commatsci.2018.01.040): ionic ones where both crystals have a
    neutral assignment of charges, else atomic ones.

    Args:
        structure: Atoms, Structure or Sample of a crystal.
        elements: the new symbol by the old one, such as `{"Co": "Mn"}`.
        rescale: False keeps the cell.

    Raises:
        ValueError: an element is unknown or not in the crystal, it is a molecule, or an element
            has no radius.

    Examples:
        >>> from ase.build import bulk
        >>> from adit_plugins import substituted
        >>> made = substituted(bulk("NaCl", "rocksalt", 5.64), {"Na": "K"})
        >>> made.structure.reduced_formula, made.charge_balanced, made.radii
        ('KCl', True, 'ionic')
    """
    sample = to_sample(structure)
    if sample.kind != "crystal":
        raise ValueError("only the elements of crystals are exchanged; for molecules use complete")
    old = sample.to_pymatgen()
    assert isinstance(old, Structure)
    mapping = _checked(elements, old)
    new = old.copy()
    new.replace_species(mapping)  # type: ignore[arg-type]
    radii, states = None, _oxidation_states(new.composition, {})
    if rescale:
        before = _oxidation_states(old.composition, {})
        states = _oxidation_states(new.composition, before)
        radii = "ionic" if _have_radii(before) and _have_radii(states) else "atomic"
        new.scale_lattice(_volume(new, states, old, before, radii))
    new.properties = {KEY: _provenance(sample, old, mapping)}
    return Substitution(
        new,
        is_composition_valid(new.composition),
        states,
        radii,
        float(new.volume / old.volume),
    )


def _checked(elements: Mapping[str, str], structure: IStructure) -> dict[str, str]:
    present = {element.symbol for element in structure.composition.elements}
    if not isinstance(elements, Mapping) or not elements:
        raise ValueError(f"elements must be new symbols by old ones; got {elements!r}")
    for symbol in [*elements, *elements.values()]:
        if not Element.is_valid_symbol(symbol) or symbol in ("D", "T"):
            raise ValueError(f"no element {symbol!r}; write symbols such as 'Fe'")
    missing = sorted(set(elements) - present)
    if missing:
        raise ValueError(
            f"{', '.join(missing)} is not in {structure.reduced_formula}, which has "
            f"{', '.join(sorted(present))}"
        )
    return dict(elements)


def _oxidation_states(composition: Composition, known: Mapping[str, float]) -> dict[str, float]:
    """The likeliest neutral assignment, of those that keep known states if there is one."""
    guesses = composition.oxi_state_guesses(max_sites=-1)
    for guess in guesses:
        if all(known.get(symbol, state) == state for symbol, state in guess.items()):
            return dict(guess)
    return dict(guesses[0]) if guesses else {}


def _have_radii(states: Mapping[str, float]) -> bool:
    """Whether every ion has a radius; a crystal without ions has none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # radii of other coordinations or neighbouring charges
        radii = [Species(symbol, state).ionic_radius for symbol, state in states.items()]
    return bool(radii) and all(states.values()) and all(radii)


def _volume(
    new: Structure,
    states: Mapping[str, float],
    old: Structure,
    before: Mapping[str, float],
    radii: str,
) -> float:
    from pymatgen.analysis.structure_prediction.volume_predictor import RLSVolumePredictor

    predictor = RLSVolumePredictor(check_isostructural=False, radii_type=radii, use_bv=False)
    first, second = new.copy(), old.copy()
    if radii == "ionic":
        first.add_oxidation_state_by_element(dict(states))
        second.add_oxidation_state_by_element(dict(before))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return float(predictor.predict(first, second))
    except TypeError as error:  # a radius is None
        raise ValueError(
            f"an element of {new.reduced_formula} or {old.reduced_formula} has no atomic radius; "
            "pass rescale=False"
        ) from error


def _provenance(sample: Sample, old: Structure, mapping: Mapping[str, str]) -> dict[str, Any]:
    return {"substitution_of": sample.provenance or old.formula, "elements": dict(mapping)}
