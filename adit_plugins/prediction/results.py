"""The ranked list that a search gives, and honest words about it."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymatgen.core import Composition

from adit_plugins.prediction.ranking import Prediction
from adit_plugins.relax.results import kind_of

if TYPE_CHECKING:
    from adit_plugins.generation.generator import ADiTGenerator
    from adit_plugins.hull.table import Hull
    from adit_plugins.report import Results

# eV/atom above a known phase of the same formula, from where on it is worth a word: beyond what
# potentials that were trained on the Materials Project usually err by.
FAR = 0.05


class Predictions(list[Prediction]):
    """Distinct structures, the best first, and what is known of the search.

    Attributes:
        about: of the search as a whole.
    """

    def __init__(self, made: Iterable[Prediction], about: About) -> None:
        super().__init__(made)
        self.about = about

    @property
    def notes(self) -> list[str]:
        """What a reader must know of the search."""
        return self.about.notes

    def write(self, folder: str | PathLike[str]) -> list[Path]:
        """Write the table, the structures and a page to look at them into a folder.

        Returns:
            `predictions.csv`, `.json` and `.extxyz`, `cif/`, `report.html`; of a chemical system
            of two to four elements also `phases.csv` and `phase_diagram.png`.

        Raises:
            OSError: the folder cannot be written.
        """
        from adit_plugins.prediction.files import write_files

        return write_files(self, Path(folder))

    def as_results(self) -> Results:
        """Return them for `adit_plugins.report`."""
        from adit_plugins.report import Results

        return Results(
            f"predictions for {self.about.request}",
            lambda kind: self._rows() if kind == "crystal" else iter(()),
            {"crystal": len(self)},
            notes=list(self.notes),
        )

    def _rows(self) -> Iterator[Any]:
        from adit_plugins.report.rows import Row
        from adit_plugins.structures.facts import describe_crystal
        from adit_plugins.structures.samples import to_sample

        for rank, each in enumerate(self, start=1):
            sample = to_sample(each.structure)
            values = {"rank": rank, "id": each.names[0]}
            values |= describe_crystal(sample)
            names = (
                "energy_above_hull", "energy_above_lowest", "formation_energy_per_atom",
                "num_found", "potential", "converged",
            )  # fmt: skip
            values |= {name: getattr(each, name) for name in names}
            if each.hull is not None:
                known = (
                    "num_subsystems",
                    "num_subsystems_covered",
                    "num_reference_phases",
                    "source",
                )
                values |= {name: getattr(each.hull, name) for name in known}
                values["metastable_probability"] = each.hull.metastable_probability
            if each.known_as:
                values["known_as"] = ", ".join(each.known_as)
            yield Row("crystal", values, [sample])

    def _repr_html_(self) -> str:
        """Show table and structures in a notebook."""
        if not self:
            return f"<p>No structures of {self.about.request}.</p>"
        from adit_plugins.report.notebook import Page
        from adit_plugins.report.write import write_page

        text = io.StringIO()
        write_page([self.as_results()], text)
        return Page(text.getvalue())._repr_html_()


@dataclass(frozen=True)
class About:
    """What is known of a search as a whole.

    Attributes:
        request: the formula or chemical system.
        num_samples: that were made.
        num_relaxed: of these, with an energy.
        stopped: `"samples"`, `"minutes"`, `"settled"`, `"rounds"` or `"interrupted"`.
        notes: what a reader must know.
        failures: why the other relaxations gave no energy.
        hull: source of the reference phases.
        num_variations: of low structures that were relaxed.
        known_phases: formation energies (eV/atom) of the reference's compounds of a chemical
            system of two to four elements, by formula.
    """

    request: str
    num_samples: int
    num_relaxed: int
    stopped: str
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    hull: str = ""
    num_variations: int = 0
    known_phases: dict[str, float] | None = None


def notes_on(
    made: Sequence[Prediction], hull: Hull, generator: ADiTGenerator, failures: Sequence[str]
) -> list[str]:
    """Return whether the search has converged, and where the known phases lie."""
    if failures:
        counts = Counter(map(kind_of, failures)).most_common()
        ends = "; ".join(f"{number} {reason}" for reason, number in counts)
    notes = [f"Without an energy: {ends}."] if failures else []
    if not made:
        return notes
    if generator.formula is None:
        symbols = {element.symbol for each in made for element in each.structure.composition}
        return [*notes, _drawn({each.formula for each in made}, sorted(symbols), hull)]
    lowest = made[0]
    if lowest.num_found == 1:
        notes.append(
            "The lowest structure was found once: lower ones may be missing. More samples "
            "(--num) tell."
        )
    elif lowest.num_found:
        notes.append(f"The lowest structure was found {lowest.num_found} times.")
    elif lowest.variation_ids:
        notes.append(
            "The lowest structure came out of variations alone, no sample ended in it: lower ones "
            "may be missing. More samples (--num) tell."
        )
    else:
        notes.append("The lowest structure is a reference that no sample ended in.")
    return [*notes, *_compared(lowest, hull)]


def _drawn(formulas: set[str], symbols: Sequence[str], hull: Hull) -> str:
    """Say which of the known compounds of all elements of a system were drawn at all."""
    known = {
        Composition(amounts).get_integer_formula_and_factor()[0]
        for amounts, _ in hull.phases(symbols)
        if len(amounts) == len(symbols)
    }
    drawn = {Composition(each).get_integer_formula_and_factor()[0] for each in formulas} & known
    names = f": {', '.join(sorted(drawn))}" if drawn else ""
    return (
        f"{len(formulas)} formulas were drawn. Of {len(known)} that the hull knows of these "
        f"elements, {len(drawn)} came up{names}. A formula of its own (adit predict FORMULA) is "
        "searched further."
    )


def _compared(lowest: Prediction, hull: Hull) -> Iterator[str]:
    """Say how the lowest prediction lies to what is known of its formula."""
    distance, formation = lowest.energy_above_hull, lowest.formation_energy_per_atom
    if distance is None or formation is None:
        return
    composition = Composition(lowest.formula)
    fractions = composition.fractional_composition
    known = [
        energy
        for amounts, energy in hull.phases(sorted(e.symbol for e in composition))
        if Composition(amounts).fractional_composition.almost_equals(fractions)
    ]
    if not known:
        if len(composition) > 1:
            yield f"The hull knows no compound {lowest.formula}."
        return
    above = formation - min(known)
    place = f"{abs(above) * 1000:.0f} meV/atom {'above' if above > 0 else 'below'}"
    text = f"The lowest lies {place} the best {lowest.formula} that the hull knows"
    if above > FAR:
        text += ": it was not found, or the potential errs (--reference with its structure tells)"
    yield f"{text}."


__all__ = ["About", "Predictions", "notes_on"]
