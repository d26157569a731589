"""Files of any generator are read entry by entry, and none is lost."""

from __future__ import annotations

import csv
import json
import re
import zipfile
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from mutations import CRYSTALS, damaged
from pymatgen.io.ase import AseAtomsAdaptor

from adit_plugins.metrics.sets import distinct_names, read_set
from adit_plugins.structures.entries import InputError

NACL = bulk("NaCl", "rocksalt", 5.64)


def as_dict() -> dict[str, object]:
    return dict(AseAtomsAdaptor.get_structure(NACL).as_dict())


def test_every_kind_of_file_is_read_entry_by_entry(tmp_path: Path) -> None:
    good = [NACL, CRYSTALS[1]]
    cif = tmp_path / "one.cif"
    ase.io.write(cif, NACL)
    text = cif.read_text()
    (tmp_path / "cifs").mkdir()
    (tmp_path / "cifs" / "sample_10.cif").write_text(text)
    (tmp_path / "cifs" / "sample_2.cif").write_text("data_x\n_cell_length_a 3\n")
    with zipfile.ZipFile(tmp_path / "generated_crystals_cif.zip", "w") as archive:
        archive.writestr("a/gen_0.cif", text)
        archive.writestr("gen_1.cif", "")
        archive.writestr("README", "no structure")
    for name, column, cell in (
        ("cif.csv", "cif", text),
        ("structure.csv", "structure", json.dumps(as_dict())),
    ):
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows([["id", column], ["0", cell], ["1", "nonsense"]])
    entries = [as_dict(), {"@class": "Other"}]
    (tmp_path / "set.json").write_text(json.dumps(entries))
    np.savez(
        tmp_path / "set.npz", num_atoms=[2, 1], atom_types=[11, 17, 200],
        lengths=np.full((2, 3), 4), angles=np.full((2, 3), 90),
        frac_coords=[[0, 0, 0], [0.5, 0.5, 0.5], [0, 0, 0]],
    )  # fmt: skip
    ase.io.write(tmp_path / "set.extxyz", good)
    frames = (tmp_path / "set.extxyz").read_text().replace("Mg ", "Xx ", 1)
    (tmp_path / "set.extxyz").write_text(frames)
    for name in ("cifs", "generated_crystals_cif.zip", "cif.csv", "structure.csv", "set.json",
                 "set.npz", "set.extxyz"):  # fmt: skip
        found = read_set(tmp_path / name)
        assert (len(found.crystals), len(found.molecules)) == (2, 0), name
        assert sum(sample is not None for sample in found.crystals.samples) == 1, name
        assert sum(bool(reason) for reason in found.crystals.reasons) == 1, name
    assert read_set(tmp_path / "cifs").crystals.names[1].startswith("sample_10")


def test_mixed_files_are_taken_apart(tmp_path: Path) -> None:
    nan, slab = NACL.copy(), NACL.copy()
    nan.positions[0, 0] = np.nan
    slab.pbc = [True, True, False]
    ase.io.write(tmp_path / "mixed.extxyz", [NACL, molecule("H2O"), nan, slab])
    found = read_set(tmp_path / "mixed.extxyz")
    assert (len(found.crystals), len(found.molecules)) == (3, 1)
    assert [bool(reason) for reason in found.crystals.reasons] == [False, True, True]


def test_a_cif_of_a_million_lines_is_one_unreadable_entry(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "big.cif", NACL)
    with (tmp_path / "big.cif").open("a") as file:
        file.writelines("Na Na1 1.0 0.1 0.2 0.3 1.0\n" for _ in range(1_000_000))
    found = read_set(tmp_path / "big.cif")
    assert len(found.crystals) == 1
    assert "20000 lines" in str(found.crystals.reasons[0])


def test_outputs_of_known_generators_are_recognised(tmp_path: Path) -> None:
    mattergen = tmp_path / "mattergen"
    mattergen.mkdir()
    ase.io.write(mattergen / "generated_crystals.extxyz", [NACL, NACL])
    with zipfile.ZipFile(mattergen / "generated_crystals_cif.zip", "w") as archive:
        archive.writestr("gen_0.cif", "the same again")
    found = read_set(mattergen)
    assert len(found.crystals) == 2
    other = read_set(mattergen / "generated_crystals.extxyz")
    assert other.name == found.name == "mattergen"
    distinct_names([found, other])
    assert found.name != other.name
    omatg = tmp_path / "omatg"
    omatg.mkdir()
    ase.io.write(omatg / "made.xyz", [NACL] * 3, format="extxyz")
    ase.io.write(omatg / "made_init.xyz", [damaged(NACL, 1)] * 3, format="extxyz")
    assert len(read_set(omatg).crystals) == 3


def test_what_cannot_be_read_is_said_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "garbage.extxyz").write_text("garbage")
    (note,) = read_set(tmp_path / "garbage.extxyz").notes
    assert re.search(r"1 of 1 \w+ cannot be read and count as invalid: .+: \w+", note)


def test_what_is_no_set_is_an_error(tmp_path: Path) -> None:
    for name in ("empty.extxyz", "empty.cif", "empty.csv", "empty.npz", "empty.zip"):
        (tmp_path / name).touch()
        with pytest.raises(InputError, match=name):
            read_set(tmp_path / name)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="none of the columns cif"):
        read_set(tmp_path / "other.csv")
    (tmp_path / "random.npz").write_bytes(b"\x93 no archive")
    with pytest.raises(InputError, match="no archive of plain arrays"):
        read_set(tmp_path / "random.npz")
    np.savez(tmp_path / "other.npz", x=[1])
    with pytest.raises(InputError, match=r"needs the arrays.*it has x"):
        read_set(tmp_path / "other.npz")
