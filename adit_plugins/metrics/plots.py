"""Pictures of an evaluation, a PNG each, with the sets on top of each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adit_model.outputs import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from adit_plugins.metrics.evaluation import SetMetrics

Values = Mapping[str, Sequence[float]]  # by set


def write_plots(sets: Sequence[SetMetrics], folder: Path) -> list[Path]:
    """Draw what the sets have into a folder, which is made where it is missing.

    Returns:
        The files: energies above hull, densities, sizes, elements and PoseBusters' checks, each
        only where there is something to draw.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:  # all of them or none
            written = []
            for name, paint, size in _plots(sets):
                temporary = stack.enter_context(replacing(folder / name))
                _draw(temporary, paint, size)
                written.append(folder / name)
        return written
    except BaseException:
        if made:
            with suppress(OSError):
                folder.rmdir()
        raise


Plot = tuple[str, Callable[["Axes"], None], tuple[float, float]]  # name of the file, inches


def _plots(sets: Sequence[SetMetrics]) -> Iterator[Plot]:
    crystals = {each.name: each.crystals for each in sets if each.crystals is not None}
    molecules = {each.name: each.molecules for each in sets if each.molecules is not None}
    for kind, found in (("crystals", crystals), ("molecules", molecules)):
        names = dict.fromkeys(name for each in found.values() for name in each.distributions)
        for name in names:
            values = {key: each.distributions.get(name, []) for key, each in found.items()}
            if any(len(each) for each in values.values()):
                yield f"{kind}_{name}.png", partial(_histogram, sets=values, name=name), (6, 4)
    for name, metrics in crystals.items():
        counts = _element_counts(metrics.rows)
        if counts:
            paint = partial(_elements, counts=counts, title=name)
            yield f"elements_{_safe(name)}.png", paint, (11, 5)
    checks = {name: _checks(each.rows) for name, each in molecules.items()}
    if any(checks.values()):
        yield "posebusters.png", partial(_bars, sets=checks), (8, 6)


def _draw(path: Path, paint: Callable[[Axes], None], size: tuple[float, float]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # needs no screen and no pyplot
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    paint(figure.add_subplot())
    figure.savefig(path, format="png", dpi=150)


LABELS = {
    "density": "density (g/cm$^3$)",
    "energy_above_hull": "energy above hull (eV/atom)",
    "num_atoms": "atoms",
    "num_elements": "elements",
    "rmsd": "RMSD to the relaxed structure (angstrom)",
    "space_group": "space group",
    "strain_energy": "strain energy",
}


def _histogram(ax: Axes, sets: Values, name: str) -> None:
    everything = np.concatenate([np.asarray(v, dtype=float) for v in sets.values()])
    everything = everything[np.isfinite(everything)]
    if not len(everything):
        return
    whole = bool((everything == np.round(everything)).all())
    # A few far-off values would leave one bin for all the others.
    low, high = np.quantile(everything, [0.005, 0.995])
    num = 40
    bins = np.linspace(low, high if high > low else low + 1, num)
    if whole and high - low < 60:
        bins = np.arange(low - 0.5, high + 1.0)
    for label, values in sets.items():
        finite = np.asarray(values, dtype=float)
        finite = finite[np.isfinite(finite)]
        if len(finite):
            weights = np.full(len(finite), 1 / len(finite))
            shown, edges = np.clip(finite, low, high), bins.tolist()
            label = f"{label} ({len(finite)})"
            ax.hist(shown, bins=edges, weights=weights, histtype="step", label=label)
    ax.set_xlabel(LABELS.get(name, name.replace("_", " ")))
    ax.set_ylabel("share")
    if name == "energy_above_hull":
        ax.axvline(0.1, color="grey", linewidth=0.8, linestyle=":")
    ax.legend(fontsize="small")


def _element_counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """In how many crystals an element occurs."""
    counts: dict[str, int] = {}
    for row in rows:
        for symbol in row["elements"]:
            counts[symbol] = counts.get(symbol, 0) + 1
    return counts


def _elements(ax: Axes, counts: Mapping[str, int], title: str) -> None:
    """A periodic table, coloured by the number of crystals with the element."""
    from pymatgen.core import Element

    grid = np.full((9, 18), np.nan)
    for element in Element:
        if element.value in ("D", "T") or element.Z > 103:
            continue
        row, column = _cell(element)
        grid[row, column] = counts.get(element.symbol, 0)
        ax.text(column, row, element.symbol, ha="center", va="center", fontsize=8)
    image = ax.imshow(np.where(grid == 0, np.nan, grid), cmap="YlOrRd", aspect="auto")
    ax.figure.colorbar(image, ax=ax, label="crystals")
    ax.set_title(title)
    ax.set_axis_off()


def _cell(element: Any) -> tuple[int, int]:
    """Row and column; lanthanides and actinides below the others."""
    if element.is_lanthanoid or element.is_actinoid:
        first = 57 if element.is_lanthanoid else 89
        return (7 if element.is_lanthanoid else 8), element.Z - first + 2
    return element.row - 1, element.group - 1


def _checks(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Share of the molecules that PoseBusters saw which pass each of its checks, in percent."""
    seen = [row["posebusters"] for row in rows if row.get("posebusters")]
    names = dict.fromkeys(name for row in seen for name in row)
    return {name: 100 * sum(bool(row.get(name)) for row in seen) / len(seen) for name in names}


def _bars(ax: Axes, sets: Mapping[str, Mapping[str, float]]) -> None:
    names = list(dict.fromkeys(name for checks in sets.values() for name in checks))
    height = 0.8 / len(sets)
    for place, (label, checks) in enumerate(sets.items()):
        positions = np.arange(len(names)) + place * height
        ax.barh(positions, [checks.get(name, 0.0) for name in names], height, label=label)
    ax.set_yticks(np.arange(len(names)) + 0.4 - height / 2, [n.replace("_", " ") for n in names])
    ax.invert_yaxis()
    ax.set_xlim(0, 100)
    ax.set_xlabel("molecules that pass (%)")
    ax.legend(fontsize="small")


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-._" else "_" for c in name)
