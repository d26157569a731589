"""The numbers in inputs for other codes, as pymatgen's and ASE's own readers find them."""

from __future__ import annotations

import math
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.io.espresso import read_fortran_namelist
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.vasp.inputs import Incar, Kpoints, Poscar

from adit_plugins.dft.inputs import K_SPACING, write_espresso, write_vasp
from adit_plugins.matching import is_match


def iron_oxide() -> Atoms:
    """Rock salt in a long cell, its elements in turns."""
    return (bulk("FeO", "rocksalt", a=4.3) * (2, 1, 1))[[1, 0, 3, 2]]


@pytest.mark.parametrize(
    "atoms",
    [iron_oxide(), bulk("Al"), Atoms("Cs", cell=[30, 4, 4], pbc=True)],
    ids=["oxide", "metal", "long"],
)
def test_espresso_points_are_as_far_apart_as_is_said(tmp_path: Path, atoms: Atoms) -> None:
    write_espresso(atoms, tmp_path)
    _, cards = read_fortran_namelist((tmp_path / "espresso.pwi").read_text().splitlines(True))
    numbers = cards[cards.index("K_POINTS automatic") + 1].split()
    reciprocal = 2 * math.pi * np.linalg.norm(atoms.cell.reciprocal(), axis=1)
    grid = np.array(numbers[:3], dtype=int)
    assert (reciprocal / grid <= K_SPACING).all()
    assert (reciprocal / np.maximum(grid - 1, 0.5) > K_SPACING).all()  # and no more than needed
    assert numbers[3:] == ["0", "0", "0"]


def test_espresso_has_the_crystal_and_the_numbers(tmp_path: Path) -> None:
    atoms = iron_oxide()
    write_espresso(atoms, tmp_path)
    path = tmp_path / "espresso.pwi"
    sections, cards = read_fortran_namelist(path.read_text().splitlines(True))
    system = sections["system"]
    assert sections["control"]["calculation"] == "vc-relax"
    assert (system["ecutwfc"], system["ecutrho"], system["degauss"]) == (60, 480, 0.01)
    assert (system["nat"], system["ntyp"], system["nspin"]) == (4, 2, 2)
    assert [line.split()[-1] for line in cards[1:3]] == ["O.UPF", "Fe.UPF"]
    starts = [system[f"starting_magnetization({number})"] for number in (1, 2)]
    assert starts == [0.0, 5.0 / 16]  # iron's 3s2 3p6 3d6 4s2
    written = ase.io.read(path, format="espresso-in")
    assert np.allclose(written.cell, atoms.cell) and (written.numbers == atoms.numbers).all()
    assert np.allclose(written.positions, atoms.positions)


def test_vasp_has_the_materials_project_numbers_in_the_order_of_the_file(tmp_path: Path) -> None:
    atoms = iron_oxide()
    atoms.set_constraint(FixAtoms([0]))  # an oxygen
    write_vasp(atoms, tmp_path)
    incar, kpoints = Incar.from_file(tmp_path / "INCAR"), Kpoints.from_file(tmp_path / "KPOINTS")
    poscar = Poscar.from_file(tmp_path / "POSCAR")
    assert poscar.site_symbols == ["Fe", "O"]
    spec = (tmp_path / "POTCAR.spec").read_text().split()
    assert spec == ["Fe_pv", "O"]
    assert (incar["ENCUT"], incar["ISPIN"], incar["ISIF"]) == (520, 2, 3)
    assert incar["MAGMOM"] == [5.0, 5.0, 0.6, 0.6]
    assert (incar["LDAUU"], incar["LDAUL"]) == ([5.3, 0], [2, 0])
    volume = atoms.cell.reciprocal().volume * (2 * math.pi) ** 3
    density = np.prod(kpoints.kpts[0]) / volume  # points by the volume of the zone, angstrom^3
    assert 0.5 < density / 64 < 2
    assert poscar.selective_dynamics is not None
    free = [all(flags) for flags in poscar.selective_dynamics]
    assert sorted(zip([site.specie.symbol for site in poscar.structure], free, strict=True)) == [
        ("Fe", True), ("Fe", True), ("O", False), ("O", True),
    ]  # fmt: skip
    assert is_match(poscar.structure, AseAtomsAdaptor.get_structure(iron_oxide()))
