"""Files that are read: ours, other programs', damaged ones."""

from __future__ import annotations

import re
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from numpy.testing import assert_allclose
from pymatgen.core import Structure
from test_writers import crystals, molecules

from adit_plugins import Sample, read_structures, to_sample, write_samples
from adit_plugins.structures.entries import InputError

_ = crystals, molecules  # fixtures


@pytest.mark.parametrize("suffix", [".extxyz", ".sdf", ".cif", ".db", ".json", ".vasp"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff nonsense\n\n"])
def test_unreadable_files_give_clear_errors(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"in{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(str(path))):
        read_structures(path)


def test_missing_and_empty_inputs_give_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_structures(tmp_path / "none.xyz")
    with pytest.raises(InputError, match="holds no structures"):
        read_structures(tmp_path)


def test_reading_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    with pytest.raises(InputError, match="holds no structures"):
        read_structures(tmp_path / "empty.db")
    assert (tmp_path / "empty.db").stat().st_size == 0


def test_foreign_files_are_read(tmp_path: Path) -> None:
    atoms = bulk("NaCl", "rocksalt", 5.64, cubic=True)
    for name in ("POSCAR", "in.traj", "in.cif", "in.json"):
        ase.io.write(tmp_path / name, atoms)
        [read] = read_structures(tmp_path / name)
        assert read.get_chemical_formula() == "Cl4Na4"
        assert read.pbc.all()
    water = molecule("H2O")
    ase.io.write(tmp_path / "water.sdf", water)
    [read] = read_structures(tmp_path / "water.sdf")
    assert_allclose(read.positions, water.positions, atol=1e-3)
    assert to_sample(read).kind == "molecule"


def test_disordered_cifs_are_refused(tmp_path: Path) -> None:
    disordered = Structure(np.eye(3) * 4, [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]])
    disordered.to(str(tmp_path / "in.cif"))
    with pytest.raises(InputError, match="disordered"):
        read_structures(tmp_path / "in.cif")


def test_read_structures_can_be_written_again(crystals: list[Sample], tmp_path: Path) -> None:
    """ASE leaves objects in `info` that its own writers refuse; the readers must not."""
    write_samples(crystals, tmp_path / "out.cif")
    atoms: list[Atoms] = read_structures(tmp_path / "out.cif")
    ase.io.write(tmp_path / "again.extxyz", atoms)
    assert read_structures(tmp_path / "again.extxyz")[1].info["adit"]["index"] == 1
