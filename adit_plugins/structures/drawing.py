"""A structure as a small SVG, for notebooks: no script, so it shows wherever HTML does."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors
from ase.neighborlist import neighbor_list

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from adit_plugins.structures.samples import Sample

SIZE = 220  # pixels
MAX_DRAWN = 400  # atoms
BOND_FACTOR = 1.15  # of the covalent radii's sum, as in the page
# Seen from a little above and from the side, so that no axis hides another.
_VIEW = np.array([[0.966, 0.0, -0.259], [-0.078, 0.954, -0.291], [0.247, 0.301, 0.921]])
_EDGES = [(i, j) for i in range(8) for j in range(i) if bin(i ^ j).count("1") == 1]


def sample_html(sample: Sample) -> str:
    """Return a picture and the few facts that a person looks for first."""
    facts = "".join(
        f'<tr><td style="text-align:left;opacity:.7">{html.escape(name)}</td>'
        f'<td style="text-align:left">{html.escape(value)}</td></tr>'
        for name, value in _facts(sample).items()
    )
    return (
        '<div style="display:flex;gap:16px;align-items:center;flex-wrap:wrap">'
        f"{sample_svg(sample)}<table>{facts}</table></div>"
    )


def _facts(sample: Sample) -> dict[str, str]:
    from adit_plugins.structures.facts import describe_crystal, describe_molecule

    values = describe_crystal(sample) if sample.kind == "crystal" else describe_molecule(sample)
    facts = {"formula": str(values["formula"]), "atoms": str(values["num_atoms"])}
    if "space_group" in values:
        from adit_plugins.structures.symmetry import space_group_symbol

        number = values["space_group"]
        facts["space group"] = f"{space_group_symbol(number)} ({number})"
    if "density" in values:
        facts["density"] = f"{values['density']:.2f} g/cm³"
    if sample.id:
        facts["id"] = sample.id
    return facts


def sample_svg(sample: Sample) -> str:
    """Return atoms as discs in Jmol's colours, the far ones first, with bonds and the cell."""
    atoms = sample.to_ase()[:MAX_DRAWN]
    if sample.lattice is not None:
        atoms.wrap()
        corners = np.array([[i & 1, i >> 1 & 1, i >> 2] for i in range(8)]) @ sample.lattice
    else:
        corners = np.empty((0, 3))
    points = np.vstack([atoms.positions, corners]) @ _VIEW.T
    radii = covalent_radii[atoms.numbers] * 0.45
    low, high = points.min(axis=0) - 0.8, points.max(axis=0) + 0.8
    scale = SIZE / max(high[0] - low[0], high[1] - low[1])
    middle = (low + high) / 2
    flat = np.column_stack([points[:, 0] - middle[0], middle[1] - points[:, 1]]) * scale + SIZE / 2
    num = len(atoms)
    depth = points[:, 2]
    pieces = [(-1e9, _line(flat[num + i], flat[num + j], "#8a94a2", 1)) for i, j in _edges(corners)]
    # Without periodic images: a bond is a line between two discs of this picture.
    atoms.pbc = False
    reach = [BOND_FACTOR * r for r in covalent_radii[atoms.numbers]]
    for i, j in zip(*neighbor_list("ij", atoms, reach), strict=True):
        if i < j:
            pieces.append((min(depth[i], depth[j]) - 0.01, _line(flat[i], flat[j], "#777", 3)))
    for i in range(num):
        pieces.append((depth[i], _disc(flat[i], radii[i] * scale, int(atoms.numbers[i]))))
    drawn = "".join(text for _, text in sorted(pieces, key=lambda piece: piece[0]))
    return f'<svg width="{SIZE}" height="{SIZE}" viewBox="0 0 {SIZE} {SIZE}">{drawn}</svg>'


def _edges(corners: NDArray[np.float64]) -> list[tuple[int, int]]:
    return _EDGES if len(corners) else []


def _line(start: NDArray[np.float64], end: NDArray[np.float64], colour: str, width: int) -> str:
    (x1, y1), (x2, y2) = np.round(start, 1), np.round(end, 1)
    return (
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}" stroke-width="{width}"/>'
    )


def _disc(at: NDArray[np.float64], radius: float, number: int) -> str:
    red, green, blue = (round(255 * each) for each in jmol_colors[number])
    return (
        f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{radius:.1f}" '
        f'fill="#{red:02x}{green:02x}{blue:02x}" stroke="#333" stroke-width=".8">'
        f"<title>{chemical_symbols[number]}</title></circle>"
    )
