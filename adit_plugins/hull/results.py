"""What is known of a place on the hull."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HullResult:
    """A distance from the hull and how much the reference knows about it.

    Attributes:
        energy_above_hull: eV/atom; negative if the structure lies below every known combination.
        hull_energy_per_atom: formation energy of the hull at this composition, eV/atom.
        num_reference_phases: compounds (two elements or more) of the table in the chemical system.
        num_subsystems: subsets of the elements with two elements or more, the full system included.
        num_subsystems_covered: those with at least one compound of exactly these elements.
        source: where the reference comes from, with its version.
        metastable_probability: that the Materials Project's DFT would put it below 0.1 eV/atom;
            None where nothing was calibrated for this potential and this reference.
        note: what is not certain about the energy, such as a correction that could not be decided.
        raw_energy_above_hull: by the tabulated elements, without the potential's own corrections.
        references: whose corrections these are, and of how many crystals; empty without any.
        likely_too_low_by: what the shipped table's gaps are likely to take from the distance,
            eV/atom (`adit_plugins.hull.thinness`); None for another reference.
    """

    energy_above_hull: float
    hull_energy_per_atom: float
    num_reference_phases: int
    num_subsystems: int
    num_subsystems_covered: int
    source: str = ""
    metastable_probability: float | None = None
    note: str = ""
    raw_energy_above_hull: float | None = None
    references: str = ""
    likely_too_low_by: float | None = None

    @property
    def all_covered(self) -> bool:
        """Whether every sub-system has a known compound; elements need none."""
        return self.num_subsystems_covered == self.num_subsystems

    @property
    def knows_nothing(self) -> bool:
        """Whether no competing compound is known: the distance is then a formation energy."""
        return self.num_subsystems > 0 and self.num_subsystems_covered == 0
