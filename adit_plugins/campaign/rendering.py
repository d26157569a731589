"""Rows of a store as text: what ASE and pymatgen write, in a fraction of their time.

A campaign writes each row several times, and for a hundred thousand rows the general writers take
minutes. Whatever these do not know goes through ASE's.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.io.extxyz import key_val_dict_to_str, write_extxyz
from ase.stress import voigt_6_to_full_3x3_stress

from adit_plugins.structures.facts import reduced_formula
from adit_plugins.structures.samples import Sample

_ARRAYS = {"numbers", "positions"}
_RESULTS = {"energy", "free_energy", "forces", "stress"}


def frame(atoms: Atoms) -> str:
    """Return a frame of extended XYZ, to the letter what ASE writes."""
    results: Mapping[str, Any] = {} if atoms.calc is None else atoms.calc.results
    known = set(atoms.arrays) == _ARRAYS and set(results) <= _RESULTS and not atoms.constraints
    if not (known and len(atoms)):
        buffer = io.StringIO()
        write_extxyz(buffer, [atoms])
        return buffer.getvalue()
    info = dict(atoms.info)
    columns, properties = atoms.positions, "species:S:1:pos:R:3"
    for name, value in results.items():
        if name == "forces":
            columns = np.hstack([columns, value])
            properties += ":forces:R:3"
        else:
            info[name] = voigt_6_to_full_3x3_stress(value) if name == "stress" else value
    info["pbc"] = atoms.pbc
    lattice = ""
    if atoms.cell.any():
        lattice = f'Lattice="{" ".join(map(str, atoms.cell.array.ravel().tolist()))}" '
    form = "%-2s" + " %16.8f" * columns.shape[1] + "\n"
    lines = [
        form % (chemical_symbols[number], *values)
        for number, values in zip(atoms.numbers.tolist(), columns.tolist(), strict=True)
    ]
    text = key_val_dict_to_str(info)
    return f"{len(atoms)}\n{lattice}Properties={properties} {text}\n{''.join(lines)}"


def structure(sample: Sample) -> dict[str, Any]:
    """Return pymatgen's dictionary of a structure, without `properties`."""
    content: dict[str, Any]
    if sample.kind == "molecule":
        content = sample.to_pymatgen().as_dict()
        del content["properties"]
        return content
    assert sample.lattice is not None
    from pymatgen.core import Lattice

    frac_coords = sample.frac_coords
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
    lattice = Lattice(sample.lattice).as_dict(verbosity=1)
    del lattice["@module"], lattice["@class"]
    return {
        "@module": "pymatgen.core.structure",
        "@class": "Structure",
        "charge": 0.0,
        "lattice": lattice,
        "sites": sites,
    }


def formula(sample: Sample) -> str:
    """Return the reduced formula of a crystal, or Hill's of a molecule."""
    if sample.kind == "molecule":
        return str(sample.to_ase().get_chemical_formula())
    return reduced_formula(sample.atomic_numbers)
