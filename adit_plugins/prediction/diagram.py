"""The phase diagram of a chemical system: known phases and predicted ones on one hull."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from adit_model.outputs import replacing

if TYPE_CHECKING:
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram

    from adit_plugins.hull.table import Hull
    from adit_plugins.prediction.ranking import Prediction

PHASES, DIAGRAM = "phases.csv", "phase_diagram.png"
MIN_ELEMENTS, MAX_ELEMENTS = 2, 4  # that pymatgen's plotter can show
SHOWN = 0.05  # eV/atom above the hull of all: what lies higher is not in the picture
COLUMNS = (
    "formula", "origin", "rank", "formation_energy_per_atom", "energy_above_hull", "decomposes_to",
)  # fmt: skip
KNOWN, PREDICTED = "known", "predicted"
MARK = "*"  # behind the names of predicted phases
CAPTION = (
    f"{MARK} predicted. Green: on the hull of all; red: less than {1000 * SHOWN:.0f} meV/atom above"
)


def known_phases(predictions: Iterable[Prediction], hull: Hull) -> dict[str, float] | None:
    """Return formation energies (eV/atom) of the known compounds of the predictions' elements.

    Returns:
        By formula, of each the lowest; None of more elements than a phase diagram shows.
    """
    from pymatgen.core import Composition

    symbols = {e.symbol for each in predictions for e in each.structure.composition}
    if not MIN_ELEMENTS <= len(symbols) <= MAX_ELEMENTS:
        return None
    found: dict[str, float] = {}
    for amounts, energy in hull.phases(sorted(symbols)):
        formula = Composition(amounts).reduced_formula
        found[formula] = min(energy, found.get(formula, energy))
    return found


def phase_rows(
    known: dict[str, float], predictions: Sequence[Prediction]
) -> tuple[list[dict[str, Any]], PhaseDiagram | None]:
    """Place known and predicted phases on the hull of all of them.

    Args:
        known: formation energies (eV/atom) of compounds by formula; elements are 0.
        predictions: best first; of each formula the lowest takes part, those without a formation
            energy do not.

    Returns:
        A row of `COLUMNS` for each phase, the nearest to the hull first, and pymatgen's diagram;
        None where no prediction has its place.
    """
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    def entry(formula: str, energy: float, name: str, **about: Any) -> PDEntry:
        composition = Composition(formula)
        total = energy * composition.num_atoms
        return PDEntry(composition, total, name=name, attribute=about)

    best: dict[str, tuple[int, float]] = {}
    for rank, each in enumerate(predictions, start=1):
        energy = each.formation_energy_per_atom
        if energy is not None and energy < best.get(each.formula, (0, energy + 1))[1]:
            best[each.formula] = (rank, energy)
    if not best:
        return [], None
    elements = {str(e) for formula in (*best, *known) for e in Composition(formula).elements}
    entries = [entry(each, 0.0, each, origin=KNOWN, rank="") for each in sorted(elements)]
    entries += [entry(each, energy, each, origin=KNOWN, rank="") for each, energy in known.items()]
    entries += [
        entry(each, energy, f"{each}{MARK}", origin=PREDICTED, rank=rank)
        for each, (rank, energy) in best.items()
        if len(Composition(each)) > 1
    ]
    diagram = PhaseDiagram(entries)
    rows = [_row(diagram, each) for each in entries]
    return sorted(rows, key=lambda row: row["energy_above_hull"]), diagram


def _row(diagram: PhaseDiagram, entry: PDEntry) -> dict[str, Any]:
    parts, above = cast(Any, diagram.get_decomp_and_e_above_hull(entry))
    stable = entry in diagram.stable_entries
    return {
        "formula": entry.name.removesuffix(MARK),
        **cast(dict[str, Any], entry.attribute),
        "formation_energy_per_atom": round(entry.energy_per_atom, 4),
        "energy_above_hull": round(max(above or 0.0, 0.0), 4),
        "decomposes_to": "" if stable else " + ".join(sorted(part.name for part in parts)),
    }


def write_phases(
    known: dict[str, float] | None, predictions: Sequence[Prediction], folder: Path
) -> list[Path]:
    """Write `phases.csv` and `phase_diagram.png`; older ones go.

    Args:
        known: as of `known_phases`; None for no phase diagram.
        predictions: best first.
        folder: of the search.

    Raises:
        OSError: the folder cannot be written.
    """
    rows, diagram = phase_rows(known, predictions) if known is not None else ([], None)
    for name in (PHASES, DIAGRAM):
        (folder / name).unlink(missing_ok=True)
    if diagram is None:
        return []
    with (
        replacing(folder / PHASES) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    _draw(diagram, folder / DIAGRAM)
    return [folder / PHASES, folder / DIAGRAM]


def _draw(diagram: PhaseDiagram, path: Path) -> None:
    """Draw by pymatgen's plotter, without a display."""
    import matplotlib as mpl
    from pymatgen.analysis.phase_diagram import PDPlotter

    with mpl.rc_context({"backend": "Agg"}):
        from matplotlib import pyplot as plt

        plotter = PDPlotter(diagram, show_unstable=SHOWN, backend="matplotlib")
        axes = cast(Any, plotter.get_plot())
        figure = axes.figure
        try:
            for text in axes.texts:
                text.set_fontsize(12)
            axes.set_title(CAPTION, fontsize=12)
            axes.set_adjustable("box")  # else matplotlib warns of the plotter's fixed limits
            with replacing(path) as temporary:
                figure.savefig(temporary, format="png", dpi=150, bbox_inches="tight")
        finally:
            plt.close(figure)
