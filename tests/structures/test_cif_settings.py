"""Every space group in every setting, with and without operators, against spglib's database.

spglib's operators are the truth; pymatgen and gemmi read the files with operators beside us.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter

import gemmi
import numpy as np
import pytest
import spglib
from cif_texts import cif
from numpy.typing import NDArray
from pymatgen.io.cif import CifParser
from scipy.spatial import cKDTree

from adit_plugins.structures.cif import parse_cifs
from adit_plugins.structures.entries import Entry

HALLS = range(1, 531)
SITES = (("Na", (0.134, 0.318, 0.417)), ("Cl", (0.0, 0.0, 0.0)))
Places = dict[str, NDArray[np.float64]]


def operators_of(hall: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    found = spglib.get_symmetry_from_database(hall)
    assert found is not None
    return found["rotations"].astype(float), found["translations"]


def cell_of(rotations: NDArray[np.float64]) -> tuple[float, ...]:
    """Lengths and angles of a cell with this symmetry and no other: a metric averaged over it."""
    start = np.array([[480.0, 21.0, -34.0], [21.0, 672.0, 46.0], [-34.0, 46.0, 880.0]])
    metric = np.mean([w.T @ start @ w for w in rotations], axis=0)
    lengths = np.sqrt(np.diag(metric))
    cosines = metric / np.outer(lengths, lengths)
    angles = np.degrees(np.arccos([cosines[1, 2], cosines[0, 2], cosines[0, 1]]))
    return (*lengths, *angles)


def true_places(hall: int) -> Places:
    rotations, translations = operators_of(hall)
    places = {}
    for symbol, site in SITES:
        images = (rotations @ np.array(site) + translations) % 1.0
        images[images > 1 - 1e-6] = 0.0
        places[symbol] = np.unique(images.round(5), axis=0)
    return places


def same(first: Places, second: Places) -> bool:
    if {k: len(v) for k, v in first.items()} != {k: len(v) for k, v in second.items()}:
        return False
    for symbol, places in first.items():
        tree = cKDTree(places % 1.0 % 1.0, boxsize=1.0)
        distances, found = tree.query(second[symbol] % 1.0 % 1.0)
        if distances.max() > 1e-3 or len(set(found.tolist())) != len(places):
            return False
    return True


def triplets(hall: int) -> list[str]:
    rotations, translations = operators_of(hall)
    result = []
    for rotation, translation in zip(rotations, translations, strict=True):
        op = gemmi.Op()
        op.rot = (rotation * gemmi.Op.DEN).astype(int).tolist()
        op.tran = np.rint(translation * gemmi.Op.DEN).astype(int).tolist()
        result.append(op.triplet())
    return result


def text_of(group: int, **settings: object) -> str:
    sites = [f"{symbol}1 {symbol} {x} {y} {z} 1" for symbol, (x, y, z) in SITES]
    return cif(sites, cell_of(operators_of(group)[0]), **settings)  # type: ignore[arg-type]


def ours(text: str) -> tuple[Entry, Places]:
    (entry,) = parse_cifs(io.StringIO(text), "in.cif")
    if entry.atoms is None:
        return entry, {}
    frac = entry.atoms.get_scaled_positions()
    symbols = np.array(entry.atoms.get_chemical_symbols())
    return entry, {symbol: frac[symbols == symbol] for symbol, _ in SITES}


def gemmis(text: str) -> Places:
    block = gemmi.cif.read_string(text).sole_block()
    found: dict[str, list[list[float]]] = {symbol: [] for symbol, _ in SITES}
    for site in gemmi.make_small_structure_from_block(block).get_all_unit_cell_sites():
        found[site.element.name].append(site.fract.tolist())
    return {symbol: np.array(places) for symbol, places in found.items()}


def pymatgens(text: str) -> Places:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (structure,) = CifParser.from_str(text).parse_structures(primitive=False)
    symbols = np.array([site.specie.symbol for site in structure])
    return {symbol: structure.frac_coords[symbols == symbol] for symbol, _ in SITES}


def names(hall: int) -> list[dict[str, object]]:
    """How a file without operators may name the setting: by Hall, by H-M, by both and a number."""
    kind = spglib.get_spacegroup_type(hall)
    assert kind is not None
    name = kind.international_full.split("=")[0].strip()
    extension = kind.choice[:1] if kind.choice[:1] in ("1", "2", "H", "R") else ""
    full = f"{name} :{extension}" if extension else name
    spaced = full.replace("_", "")
    code = f"_space_group_IT_coordinate_system_code '{kind.choice}'\n" if kind.choice else ""
    forms = [
        {"hall": kind.hall_symbol.replace("=", '"')},
        {"name": spaced, "number": kind.number},
        {"name": full},
        {"name": spaced, "more": code},
        {"number": kind.number, "more": code},
    ]  # fmt: skip
    # A glide named e has two meanings: without a code it is that of the standard axes.
    unclear = "e" in name and kind.choice not in ("", "1", "2")
    return [form for form in forms if not unclear or "hall" in form or form.get("more")]


def check(halls: range, others: bool) -> Counter[str]:
    refused: Counter[str] = Counter()
    for hall in halls:
        truth = true_places(hall)
        text = text_of(hall, operators=triplets(hall))
        entry, places = ours(text)
        assert same(truth, places), (hall, entry.reason)
        assert same(truth, gemmis(text)), hall
        if others:
            assert same(truth, pymatgens(text)), hall
        for form, settings in enumerate(names(hall)):
            entry, places = ours(text_of(hall, **settings))
            if entry.atoms is None:
                refused[f"{form}: {entry.reason}"] += 1
            else:
                assert same(truth, places), (hall, settings)
    return refused


@pytest.mark.parametrize(
    ("halls", "others"),
    [
        pytest.param(range(3, 531, 17), False, id="some"),
        pytest.param(HALLS, True, id="all", marks=pytest.mark.slow),
    ],
)
def test_every_setting_is_read_or_refused_never_mistaken(halls: range, others: bool) -> None:
    refused = check(halls, others)
    assert not refused
