"""Functions of the interface take whatever a person holds, or say what they take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk, molecule

from adit_plugins import Sample, symmetrized, write_samples
from adit_plugins.matching import (
    crystal_invariants,
    find_duplicates,
    is_match,
    reduce_cell,
    rms_distance,
)
from adit_plugins.structures.writers import OutputError
from adit_plugins.validity import (
    check_lemat,
    check_molecules,
    is_composition_valid,
    is_structure_valid,
    min_interatomic_distance,
    neutral_by,
    openbabel_smiles,
)

SALT, WATER = Sample.from_ase(bulk("NaCl", "rocksalt", 5.6)), Sample.from_ase(molecule("H2O"))
OF_CRYSTALS: list[Callable[[Any], Any]] = [
    is_structure_valid, is_composition_valid, neutral_by, min_interatomic_distance, check_lemat,
    lambda each: symmetrized(each).properties["adit"]["space_group"],
    lambda each: crystal_invariants(each)[1].tolist(),
    lambda each: len(reduce_cell(each) or ()),
    lambda each: is_match(each, each), lambda each: rms_distance(each, each) is not None,
    lambda each: find_duplicates([each, each]),
]  # fmt: skip
OF_MOLECULES: list[Callable[[Any], Any]] = [
    lambda each: check_molecules(each, posebusters=False),
    lambda each: check_molecules([each], posebusters=False),
    openbabel_smiles,
]


@pytest.mark.parametrize("function", OF_CRYSTALS)
def test_crystals_of_every_package(function: Callable[[Any], Any]) -> None:
    expected = function(SALT.to_pymatgen())
    assert expected not in (None, False, 0)
    assert function(SALT) == expected and function(SALT.to_ase()) == expected


@pytest.mark.parametrize("function", OF_MOLECULES)
def test_molecules_of_every_package(function: Callable[[Any], Any]) -> None:
    if function is openbabel_smiles:
        pytest.importorskip("openbabel")
    expected = function(WATER)
    assert "O" in str(expected)
    for given in (WATER.to_ase(), WATER.to_pymatgen(), WATER.to_rdkit()):
        assert function(given) == expected


@pytest.mark.parametrize("function", OF_CRYSTALS + OF_MOLECULES)
def test_what_is_none_is_refused(function: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="Known: Sample, ase Atoms"):
        function(3.5)


def test_a_molecule_is_no_crystal() -> None:
    with pytest.raises(TypeError, match="a crystal is needed"):
        is_structure_valid(WATER)


def test_poscar_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="VASP's format"):
        write_samples([SALT], tmp_path / "POSCAR")
    assert not list(tmp_path.iterdir())
