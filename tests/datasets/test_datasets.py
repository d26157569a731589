"""Data sets: users' crystals in every form, QM9's two sources, and what is wrong with them."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from cif_texts import cif
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from adit_model.config import Condition
from adit_model.data import PreparedData, SizeGroups
from adit_plugins import from_batch
from adit_plugins.datasets import DatasetError, crystals, molecules, prepare, tables
from adit_plugins.datasets.common import split_by_row


def rutile() -> Structure:
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.305, 0.305, 0], [0.695, 0.695, 0],
             [0.195, 0.805, 0.5], [0.805, 0.195, 0.5]]  # fmt: skip
    return Structure(Lattice.tetragonal(4.59, 2.96), ["Ti"] * 2 + ["O"] * 4, sites)


def rock_salt() -> Structure:
    return Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )


def test_a_crystal_has_one_canonical_form() -> None:
    structure = rutile()
    skewed = structure.copy()
    skewed.make_supercell([[1, 0, 0], [1, 1, 0], [0, 0, 1]])
    order = [4, 2, 0, 5, 1, 3]
    shuffled = Structure.from_sites([skewed[i] for i in order])
    one, other = crystals.canonical_crystal(structure), crystals.canonical_crystal(shuffled)
    assert one["atomic_numbers"] == other["atomic_numbers"] == [8, 8, 8, 8, 22, 22]
    np.testing.assert_allclose(one["cell"], other["cell"], atol=1e-4)
    again = Structure(Lattice.from_parameters(*one["cell"]), one["atomic_numbers"], one["coords"])
    assert StructureMatcher(scale=False, primitive_cell=False).fit(structure, again)


@pytest.mark.parametrize("form", ["cif folder", "csv", "parquet", "csv of lists"])
def test_every_form_of_a_users_crystals_gives_the_same_arrays(tmp_path: Path, form: str) -> None:
    structures = [rutile(), rock_salt()]
    if form == "cif folder":
        source = tmp_path / "cifs"
        source.mkdir()
        for i, structure in enumerate(structures):
            structure.to(str(source / f"{i}.cif"))
    elif form == "csv":
        source = tmp_path / "table.csv"
        pd.DataFrame({"cif": [s.to(fmt="cif") for s in structures]}).to_csv(source)
    else:
        source = tmp_path / f"table.{'parquet' if form == 'parquet' else 'csv'}"
        cells = dict(
            zip(("a", "b", "c"), np.transpose([s.lattice.abc for s in structures]), strict=True)
        )
        angles = dict(
            zip(
                ("alpha", "beta", "gamma"),
                np.transpose([s.lattice.angles for s in structures]),
                strict=True,
            )
        )
        rows = {
            "atomic_numbers": [list(s.atomic_numbers) for s in structures],
            "frac_coords": [s.frac_coords.ravel().tolist() for s in structures],
        }
        table = pd.DataFrame(rows | cells | angles)
        table.to_parquet(source) if form == "parquet" else table.to_csv(source)
    (path,) = prepare(["crystals"], tmp_path / "out", source)
    data = PreparedData.load(path)
    assert data.kind == "crystal"
    assert data.split.tolist() == [2, 0]
    assert data.num_atoms.tolist() == [6, 8]
    groups = SizeGroups(data, "train", "cpu")
    (sample,) = from_batch(groups.batch(8, slice(0, 1)))
    assert StructureMatcher().fit(sample.to_pymatgen(), rock_salt())


def test_filters_and_splits_of_a_table(tmp_path: Path) -> None:
    table = pd.DataFrame({
        "cif": [rutile().to(fmt="cif")] * 3 + [rock_salt().to(fmt="cif"), "not a cif"],
        "split": ["train", "val", "test", "train", "train"],
        "energy_above_hull": [0.0, 0.05, 0.3, 0.0, 0.0],
    })  # fmt: skip
    table.to_csv(tmp_path / "t.csv")
    with pytest.warns(UserWarning, match="1 of 4 crystals cannot be read"):
        data = crystals.crystals(tmp_path / "t.csv", max_num_atoms=6)
    assert data.num_atoms.tolist() == [6, 6]
    assert data.split.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("nothing.csv", None, "nothing.csv"),
        ("table.xlsx", b"x", r"\.parquet"),
        ("table.csv", b"a,b\n1,2\n", "cif"),
        ("table.parquet", b"not parquet", "cannot be read"),
    ],
)
def test_unreadable_sources_leave_nothing(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=words):
        prepare(["crystals"], tmp_path / "out", tmp_path / name)
    assert not (tmp_path / "out").exists()


def test_large_cells_and_dummy_atoms_are_left_out_with_notice(tmp_path: Path) -> None:
    rutile().to(str(tmp_path / "rutile.cif"))
    (rutile() * (4, 1, 1)).perturb(0.05).to(str(tmp_path / "large.cif"))
    Structure(Lattice.cubic(4), ["X", "Cl"], [[0, 0, 0], [0.5] * 3]).to(str(tmp_path / "x.cif"))
    with (
        pytest.warns(UserWarning, match="1 of 3 crystals have more than 20 atoms"),
        pytest.warns(UserWarning, match="1 of 3 crystals cannot be read"),
    ):
        assert crystals.crystals(tmp_path).num_atoms.tolist() == [6]


def test_crystals_are_prepared_as_all_commands_read_them(tmp_path: Path) -> None:
    text = rock_salt().to(fmt="cif")
    for i in range(3):
        (tmp_path / f"{i}.cif").write_text(text)
    (tmp_path / "3.CIF").write_text(text)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "4.cif").write_text(text)
    (tmp_path / "5.cif").write_bytes(f"# by M\u00fcller\n{text}".encode("latin-1"))
    (tmp_path / "._0.cif").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / "notes.pdf").touch()
    with pytest.warns(UserWarning, match=r"1 file \(notes.pdf\) left out"):
        assert crystals.crystals(tmp_path).num_atoms.tolist() == [8] * 6
    silicon = cif(("Si1 Si .125 .125 .125 1",), (5.43, 5.43, 5.43, 90, 90, 90), "F d -3 m :2")
    (tmp_path / "in.json").write_text(json.dumps([silicon, "data_x\n_cell_length_a 3\n"]))
    with pytest.warns(UserWarning, match=r"1 of 2 crystals cannot be read.*_cell_length_b"):
        assert crystals.crystals(tmp_path / "in.json").num_atoms.tolist() == [8]


def test_rows_without_an_energy_are_counted(tmp_path: Path) -> None:
    table = pd.DataFrame({
        "CIF": [rock_salt().to(fmt="cif")] * 5,
        "energy_above_hull": [0.0, None, 0.05, "unknown", 0.3],
    })  # fmt: skip
    table.to_csv(tmp_path / "t.csv", sep=";")
    with (
        pytest.warns(UserWarning, match="2 of 5 rows have no energy_above_hull"),
        pytest.warns(UserWarning, match="1 of 5 rows have energy_above_hull above 0.1 eV/atom"),
    ):
        assert crystals.crystals(tmp_path / "t.csv").num_atoms.tolist() == [8, 8]
    unlimited = crystals.crystals(tmp_path / "t.csv", max_energy_above_hull=float("inf"))
    assert unlimited.num_atoms.tolist() == [8] * 5


def test_incomplete_mp20_is_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"material_id": ["x"], "cif": [rutile().to(fmt="cif")]})
    for split in ("train", "val", "test"):
        frame.to_csv(tmp_path / f"{split}.csv")
    with pytest.raises(DatasetError, match="1 rows, MP-20 has 27136"):
        crystals.mp20(tmp_path)


def qm9_archive(path: Path, num: int) -> Path:
    """Water as the original has it, its gap growing by a hundredth of a hartree a file."""
    atoms = "O 0.0 0.0 1.2*^-1 0\nH 0 0.76 -0.48 0\nH 0 -0.76 -0.48 0\n\n"
    with tarfile.open(path, "w:bz2") as archive:
        for i in range(num):
            info = tarfile.TarInfo(f"dsgdb9nsd_{i:06d}.xyz")
            values = f"799.5 437.9 282.9 1.{i:02d} 6.31 -.29 .07 {0.3 + i / 100:.2f} 19. 0.02 -76.4"
            text = f"3\ngdb {i}\t{values}\n{atoms}".encode()
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
    return path


def test_qm9_archive_is_parsed_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = qm9_archive(tmp_path / "qm9.tar.bz2", 12)
    with pytest.raises(DatasetError, match="12 molecules, expected 133885"):
        molecules.qm9(archive)
    monkeypatch.setattr(molecules, "ARCHIVE_ROWS", 12)
    data = molecules.qm9(archive)
    assert data.num_atoms.tolist() == [3] * 12
    assert data.split.tolist() == [2] + [0] * 9 + [1, 0]
    distance = (data.coords[0] - data.coords[1]).norm()
    assert float(distance) == pytest.approx(np.hypot(0.76, 0.60), abs=1e-5)
    gap, dipole = (data.labels[name] for name in ("homo_lumo_gap", "dipole_moment"))
    assert gap[:2].tolist() == pytest.approx([0.3 * 27.2114, 0.31 * 27.2114], rel=1e-5)
    assert dipole[:3].tolist() == pytest.approx([1.0, 1.01, 1.02])
    assert [(c.name, c.unit) for c in data.conditions] == [
        ("homo_lumo_gap", "eV"),
        ("dipole_moment", "D"),
    ]  # a polarizability that is the same everywhere teaches nothing
    broken = tmp_path / "broken.tar.bz2"
    broken.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(DatasetError, match="no complete archive"):
        molecules.qm9(broken)


def test_splits_are_five_per_cent_each() -> None:
    splits = [split_by_row(row) for row in range(2000)]
    assert [splits.count(s) for s in (0, 1, 2)] == [1800, 100, 100]


def test_what_is_known_of_the_sources_is_pinned() -> None:
    """Content by checksum where the source publishes one, or by commit; never a branch."""
    assert re.search(r"/cdvae/[0-9a-f]{40}/", crystals.MP20_URL)
    assert re.search(r"/DiffCSP/[0-9a-f]{40}/data/mpts_52/", tables.table_url("mpts_52"))
    assert re.fullmatch(r"md5:[0-9a-f]{32}", molecules.ARCHIVE_HASH)
    assert all(
        re.fullmatch(r"[0-9a-f]{64}", digest) for digest in molecules.PACKAGE_HASHES.values()
    )


def test_another_qm9pack_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"qm9_part1\.csv. Or: pip install qm9pack==1\.0\.3"):
        molecules.qm9(tmp_path)
    for name in molecules.PACKAGE_HASHES:
        (tmp_path / name).write_text("Elements,XYZ_Ang\n")
    with pytest.raises(DatasetError, match=r"is not that of qm9pack==1\.0\.3"):
        molecules.qm9(tmp_path)


def test_another_table_is_not_mp20(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crystals, "MP20_ROWS", {"train": 1, "val": 1, "test": 1})
    for i, split in enumerate(("train", "val", "test")):
        row = {"material_id": "mp-0" if i == 2 else f"mp-{i}", "cif": rutile().to(fmt="cif")}
        pd.DataFrame([row]).to_csv(tmp_path / f"{split}.csv")
    with pytest.raises(
        DatasetError, match=r"in test\.csv the id 'mp-0' is missing or not the only"
    ):
        crystals.mp20(tmp_path)


def labelled_table(folder: Path, **columns: list[object]) -> Path:
    """Eight crystals, half rutile; row 0 is for testing by its place."""
    structures = [rutile() if i % 2 else rock_salt() for i in range(8)]
    table = pd.DataFrame({"cif": [s.to(fmt="cif") for s in structures], **columns})
    table.to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def test_columns_become_labels_with_their_range_and_unit(tmp_path: Path) -> None:
    source = labelled_table(
        tmp_path,
        band_gap=[9.0, 1, 2, 3, 4, "", 5, 6],
        stiffness=[0, 10, 20, 30, 40, 50, 60, 70],
        family=[1, 2, 3, 1, 2, 3, 1, 2],
        colour=["red"] * 8,
    )
    data = crystals.crystals(source, labels=["stiffness:GPa", "family:class"])
    found = {c.name: c for c in data.conditions}
    assert set(found) == {"band_gap", "stiffness", "family", "density", "space_group"}
    assert (found["band_gap"].unit, found["band_gap"].low) == ("eV", 1.0)
    assert found["band_gap"].high == pytest.approx(6.0, abs=0.01)
    assert (found["stiffness"].unit, found["stiffness"].kinds) == ("GPa", ("crystal",))
    assert (found["family"].type, found["family"].size) == ("class", 3)
    assert data.labels["band_gap"].isnan().tolist() == [False] * 5 + [True] + [False] * 2
    assert data.labels["space_group"].tolist() == [225, 136] * 4
    densities = [rock_salt().density, rutile().density]
    np.testing.assert_allclose(data.labels["density"][:2], densities, rtol=1e-4)
    data.save(tmp_path / "data.safetensors")
    again = PreparedData.load(tmp_path / "data.safetensors")
    assert again.conditions == data.conditions
    group = SizeGroups(again, "train", "cpu")
    size = 8  # rock salt
    rows = torch.arange(len(group.groups[size][0]))
    told = group.labels(size, rows, (Condition("kind", 2), *data.conditions))
    assert sorted(told["stiffness"].tolist()) == [20, 40, 60]
    assert set(told["family"].tolist()) <= {1, 2, 3}


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("colour", "colour.*fewer than two"),
        ("missing", "missing.*fewer than two.*density"),
        ("half:class", "half.*whole numbers"),
        ("bulk modulus:GPa", "bulk_modulus:GPa"),
    ],
)
def test_labels_that_teach_nothing_are_refused(tmp_path: Path, label: str, words: str) -> None:
    source = labelled_table(tmp_path, colour=["red"] * 8, half=[i / 2 for i in range(8)])
    with pytest.raises(DatasetError, match=words):
        crystals.crystals(source, labels=[label])
    with pytest.raises(DatasetError, match=r"'qm9' takes no --label"):
        prepare(["qm9"], tmp_path / "out", tmp_path, ["gap:eV"])


def test_without_a_home_folder_only_the_download_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(DatasetError, match=r"HOME.*--source"):
        crystals.mp20()


def test_one_source_serves_one_data_set(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="--source serves one"):
        prepare(["qm9", "crystals"], tmp_path, tmp_path)


def test_a_table_of_molecules_keeps_conformers_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"smiles": smiles, "atomic_numbers": [1, 8, 1], "positions": rng.normal(size=9).tolist()}
        for smiles in [f"C{'C' * i}O" for i in range(100)]
        for _ in range(2)
    ]
    rows.append({"smiles": "C", "atomic_numbers": [6] * 70, "positions": [0.0] * 210})
    source = tmp_path / "molecules.parquet"
    pd.DataFrame(rows).to_parquet(source)
    with pytest.warns(UserWarning, match="1 of 201 rows have more than 64 atoms"):
        (path,) = prepare(["molecules"], tmp_path / "data", source=source)
    data = PreparedData.load(path)
    assert data.kind == "molecule" and data.coords is not None and data.cell is None
    assert set(data.split.tolist()) == {0, 1, 2}
    assert (data.split[0::2] == data.split[1::2]).all()
    assert data.atomic_numbers[:3].tolist() == [8, 1, 1]  # as in QM9
    xyz = np.array(rows[0]["positions"]).reshape(3, 3)[[1, 0, 2]]
    np.testing.assert_allclose(data.coords[:3], xyz - xyz.mean(axis=0), atol=1e-5)
    with (
        pytest.raises(DatasetError, match="no structure"),
        pytest.warns(UserWarning, match="2 atoms"),
    ):
        prepare(["molecules"], tmp_path / "none", source=source, limits={"num_atoms": 2})


def test_crystals_are_no_molecules(tmp_path: Path) -> None:
    rutile().to(str(tmp_path / "rutile.cif"))
    with (
        pytest.raises(DatasetError, match="no structure"),
        pytest.warns(UserWarning, match="are crystals"),
    ):
        prepare(["molecules"], tmp_path / "data", source=tmp_path / "rutile.cif")
