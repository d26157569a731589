"""Rows of a store as text: what ASE and pymatgen write, in a fraction of their time.

A campaign writes each row several times, and for a hundred thousand rows the general writers take
minutes. Whatever these do not know goes through ASE's.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.io.extxyz import escape, key_val_dict_to_str, write_extxyz
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray

from adit_plugins.structures.facts import reduced_formula
from adit_plugins.structures.provenance import KEY
from adit_plugins.structures.samples import Sample

if TYPE_CHECKING:
    from ase.db.row import AtomsRow

_ARRAYS = {"numbers", "positions"}
_RESULTS = ("energy", "free_energy", "forces", "stress")
# Of a row, what makes its structure one that ASE has to write.
_UNUSUAL = ("initial_magmoms", "initial_charges", "magmoms", "magmom")


def frame(atoms: Atoms) -> str:
    """Return a frame of extended XYZ, to the letter what ASE writes."""
    results: Mapping[str, Any] = {} if atoms.calc is None else atoms.calc.results
    known = set(atoms.arrays) == _ARRAYS and set(results) <= set(_RESULTS) and not atoms.constraints
    if not (known and len(atoms)):
        buffer = io.StringIO()
        write_extxyz(buffer, [atoms])
        return buffer.getvalue()
    return _frame(
        atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, dict(atoms.info), results
    )


def sample_frame(sample: Sample) -> str:
    """Return the frame of a sample with its provenance."""
    periodic = np.full(3, sample.lattice is not None)
    info = {KEY: sample.provenance}
    return _frame(sample.atomic_numbers, sample.positions, sample.lattice, periodic, info, {})


def row_frame(row: AtomsRow, info: dict[str, Any]) -> str:
    """Return the frame of a row of the store, with its energy, forces and stress.

    Args:
        row: of `Store.rows`.
        info: in the place of the columns that ASE would put there.
    """
    if row.constraints or not len(row["numbers"]) or any(name in row for name in _UNUSUAL):
        atoms: Atoms = row.toatoms()
        atoms.info = info
        return frame(atoms)
    results = {name: row[name] for name in _RESULTS if name in row}
    return _frame(row["numbers"], row.positions, row.cell, row.pbc, info, results)


def _frame(
    numbers: NDArray[Any],
    positions: NDArray[np.float64],
    cell: NDArray[np.float64] | None,
    pbc: NDArray[np.bool_],
    info: dict[str, Any],
    results: Mapping[str, Any],
) -> str:
    columns, properties = positions, "species:S:1:pos:R:3"
    for name, value in results.items():
        if name == "forces":
            columns = np.hstack([columns, value])
            properties += ":forces:R:3"
        else:
            info[name] = voigt_6_to_full_3x3_stress(value) if name == "stress" else value
    info["pbc"] = pbc
    lattice = ""
    if cell is not None and cell.any():
        lattice = f'Lattice="{" ".join(map(str, cell.ravel().tolist()))}" '
    form = "%-2s" + " %16.8f" * columns.shape[1] + "\n"
    lines = [
        form % (chemical_symbols[number], *values)
        for number, values in zip(numbers.tolist(), columns.tolist(), strict=True)
    ]
    text = " ".join(_info_text(key, value) for key, value in info.items())
    return f"{len(numbers)}\n{lattice}Properties={properties} {text}\n{''.join(lines)}"


def _info_text(key: str, value: Any) -> str:
    """Return a pair as ASE does, which looks at each for every type that there is."""
    kind = type(value)
    if kind is bool:
        return f"{escape(key)}={'T' if value else 'F'}"
    if kind is float or kind is int:
        return f"{escape(key)}={value}"
    if kind is str:
        return f"{escape(key)}={escape(value)}"
    if kind is dict:
        return f"{escape(key)}={escape('_JSON ' + json.dumps(value))}"
    if kind is np.ndarray and value.shape == (3,) and value.dtype == bool:
        return f'{escape(key)}="{" ".join("T" if each else "F" for each in value.tolist())}"'
    if kind is np.ndarray and value.shape == (3, 3) and value.dtype == float:
        return f'{escape(key)}="{" ".join(map(str, value.ravel(order="F").tolist()))}"'
    text: str = key_val_dict_to_str({key: value})
    return text


def structure(sample: Sample) -> dict[str, Any]:
    """Return pymatgen's dictionary of a structure, without `properties`."""
    content: dict[str, Any]
    if sample.kind == "molecule":
        content = sample.to_pymatgen().as_dict()
        del content["properties"]
        return content
    frac_coords = sample.frac_coords
    assert sample.lattice is not None
    assert frac_coords is not None
    sites = [
        {
            "species": [{"element": symbol, "occu": 1}],
            "abc": abc,
            "properties": {},
            "label": symbol,
            "xyz": xyz,
        }
        for symbol, abc, xyz in zip(
            [chemical_symbols[number] for number in sample.atomic_numbers.tolist()],
            frac_coords.tolist(),
            (frac_coords @ sample.lattice).tolist(),
            strict=True,
        )
    ]
    return {
        "@module": "pymatgen.core.structure",
        "@class": "Structure",
        "charge": 0.0,
        "lattice": _lattice(sample.lattice.tolist()),
        "sites": sites,
    }


def _lattice(matrix: list[list[float]]) -> dict[str, Any]:
    """Return pymatgen's dictionary of a lattice, row vectors in angstrom."""
    a, b, c = matrix
    lengths = [math.sqrt(_dot(each, each)) for each in matrix]
    pairs = ((1, 2), (0, 2), (0, 1))
    angles = [_angle(_dot(matrix[i], matrix[j]), lengths[i] * lengths[j]) for i, j in pairs]
    across = (
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    )
    names = ("a", "b", "c", "alpha", "beta", "gamma", "volume")
    values = (*lengths, *angles, abs(_dot(across, c)))
    return {"matrix": matrix, "pbc": (True, True, True), **dict(zip(names, values, strict=True))}


def _dot(first: Iterable[float], second: Iterable[float]) -> float:
    return sum(x * y for x, y in zip(first, second, strict=True))


def _angle(product: float, lengths: float) -> float:
    """Degrees; NaN where a vector has no length."""
    if not lengths:
        return math.nan
    return math.degrees(math.acos(max(-1.0, min(1.0, product / lengths))))


def formula(sample: Sample) -> str:
    """Return the reduced formula of a crystal, or Hill's of a molecule."""
    if sample.kind == "molecule":
        return str(sample.to_ase().get_chemical_formula())
    return reduced_formula(sample.atomic_numbers)
