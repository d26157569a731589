"""Data sets in many files: the arrays of one, whatever interrupts; sources in their formats."""

from __future__ import annotations

import bz2
import json
import sys
from collections.abc import Callable
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pandas as pd
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry
from pymatgen.io.ase import AseAtomsAdaptor

from adit_model.data import PreparedData
from adit_model.sharded_data import ShardedData
from adit_plugins.cli import main
from adit_plugins.datasets import DatasetError, prepare, tables
from adit_plugins.datasets.alexandria import alexandria
from adit_plugins.datasets.crystals import crystals
from adit_plugins.datasets.shards import prepare_shards

METALS = ("Cu", "Ag", "Au", "Ni", "Pd", "Pt", "Al", "Pb")


def source_of(folder: Path, number: int = 27) -> Path:
    """Crystals with a label; one is large, one has no element, two are far above the hull."""
    frames = []
    for i in range(number):
        atoms = bulk(METALS[i % 8], cubic=i % 3 == 0)
        atoms.rattle(0.02, seed=i)
        if i == 5:
            atoms = bulk("Fe", cubic=True).repeat((3, 2, 2))
            atoms.rattle(0.05, seed=1)
        atoms.info |= {"stiffness": 10.0 * i, "energy_above_hull": 0.3 if i % 13 == 12 else 0.05}
        frames.append(atoms)
    path = folder / "crystals.extxyz"
    ase.io.write(path, frames)
    text = path.read_text().splitlines(keepends=True)
    place = next(i for i, line in enumerate(text) if line.startswith("Al "))
    text[place] = text[place].replace("Al", "X ", 1)
    path.write_text("".join(text))
    return path


def together(folder: Path) -> PreparedData:
    """The shards as one file would have them."""
    data = ShardedData.load(folder)

    def joined(name: str) -> torch.Tensor:
        return torch.cat([getattr(shard, name) for shard in data.shards])

    return PreparedData(
        data.name, data.kind, joined("atomic_numbers"), joined("coords"), data.num_atoms,
        data.split, joined("cell"), data.source, data.compositions().labels, data.conditions,
    )  # fmt: skip


def assert_same(found: PreparedData, expected: PreparedData) -> None:
    for name in ("atomic_numbers", "coords", "num_atoms", "split", "cell"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert {c.name for c in found.conditions} == {c.name for c in expected.conditions}
    for a in expected.conditions:
        (b,) = (each for each in found.conditions if each.name == a.name)
        assert (b.low, b.high) == pytest.approx((a.low, a.high), abs=2e-3)
        torch.testing.assert_close(found.labels[a.name], expected.labels[a.name], equal_nan=True)


def test_shards_hold_what_one_file_does_and_say_what_was_left_out(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    with pytest.warns(UserWarning, match="energy_above_hull above"):
        expected = crystals(source, labels=["stiffness:GPa"])
    lines: list[str] = []
    (folder,) = prepare(["crystals"], tmp_path / "out", source, ["stiffness:GPa"], 7, lines.append)
    assert len(list(folder.glob("shard-*.safetensors"))) == 4
    assert_same(together(folder), expected)
    assert len(lines) == 5
    text = lines[-1]
    assert "23 of 27 rows are structures of it" in text
    first = "(the first: crystals.extxyz, structure 12)"
    assert f"2 have energy_above_hull above 0.1 eV/atom {first}" in text
    assert "1 have more than 20 atoms in the reduced cell" in text
    assert "1 cannot be read (the first: crystals.extxyz, structure" in text


def test_an_interrupted_preparation_goes_on_and_makes_nothing_twice(tmp_path: Path) -> None:
    source, folder = source_of(tmp_path), tmp_path / "set"
    stream = crystals.stream(source)

    def stop(path: Path, _: object) -> None:
        if path.stem == "shard-000001":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_shards(stream, source, folder, 7, stop)
    with pytest.raises(ValueError, match=r"no dataset\.json: it is not complete"):
        ShardedData.load(folder)
    done = {path: path.stat().st_mtime_ns for path in folder.glob("shard-*.safetensors")}
    assert len(done) == 2
    made: list[str] = []
    prepare_shards(stream, source, folder, 7, lambda path, _: made.append(path.stem))
    assert made == ["shard-000002", "shard-000003"]
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    assert_same(together(folder), crystals(source))


def test_another_source_or_setting_is_refused(tmp_path: Path) -> None:
    source, folder = source_of(tmp_path), tmp_path / "set"
    prepare_shards(crystals.stream(source), source, folder, 20)
    with pytest.raises(DatasetError, match="begun otherwise: max_num_atoms was 20, not 4"):
        prepare_shards(crystals.stream(source, max_num_atoms=4), source, folder, 20)
    with source.open("a") as file:
        file.write(source.read_text())
    with pytest.raises(DatasetError, match="begun otherwise: bytes was"):
        prepare_shards(crystals.stream(source), source, folder, 20)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "one.tex").write_text("mine")
    with pytest.raises(DatasetError, match="no folder of shards"):
        prepare_shards(crystals.stream(source), source, tmp_path / "thesis", 20)
    with pytest.raises(DatasetError, match="'qm9' is one file"):
        prepare(["qm9"], tmp_path / "out", source, shard_size=5)


def structures() -> list[Atoms]:
    return [bulk(METALS[i % 8], cubic=True) for i in range(6)]


def write_db(path: Path) -> None:
    with ase.db.connect(path, type=path.suffix[1:]) as database:
        for i, atoms in enumerate(structures()):
            database.write(atoms, stiffness=float(i), energy_above_hull=0.5 if i == 5 else 0.0)


def write_folder(path: Path) -> None:
    path.mkdir()
    for i, atoms in enumerate(structures()):
        atoms.info |= {"stiffness": float(i), "energy_above_hull": 0.5 if i == 5 else 0.0}
        ase.io.write(path / f"{i}.extxyz", atoms)


def write_parquet(path: Path) -> None:
    cifs = [AseAtomsAdaptor.get_structure(atoms).to(fmt="cif") for atoms in structures()]
    hull = [0.0] * 5 + [0.5]
    pd.DataFrame({"cif": cifs, "stiffness": range(6), "energy_above_hull": hull}).to_parquet(path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("set.db", write_db),
        ("set.aselmdb", write_db),
        ("set", write_folder),
        ("set.parquet", write_parquet),
    ],
)
def test_every_source_has_structures_and_columns(
    tmp_path: Path, name: str, write: Callable[[Path], None]
) -> None:
    if name.endswith("aselmdb"):
        pytest.importorskip("ase_db_backends")
    write(tmp_path / name)
    arguments = ["data", "prepare", "crystals", "--source", str(tmp_path / name), "--shard-size"]
    arguments += ["4", "--label", "stiffness:GPa", "--out", str(tmp_path / "out")]
    main(arguments, standalone_mode=False)
    data = together(tmp_path / "out" / "crystals")
    assert len(data.num_atoms) == 5  # one is far above the hull
    assert sorted(data.labels["stiffness"].tolist()) == [0, 1, 2, 3, 4]
    assert [c.unit for c in data.conditions if c.name == "stiffness"] == ["GPa"]


def perovskite(a: float, species: list[str]) -> str:
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return str(Structure(Lattice.cubic(a), species, sites).to(fmt="cif"))


def write_tables(folder: Path, **columns: list[object]) -> None:
    """As CDVAE writes them: a column of numbers without a name, then the others."""
    for i, split in enumerate(("train", "val", "test")):
        cifs = [perovskite(4 + 0.1 * j, ["Sr", "Ti", "O", "O", "O"]) for j in range(2 - i // 2)]
        rows = {"material_id": [f"{i}{j}" for j in range(len(cifs))], "cif": cifs}
        rows |= {name: values[: len(cifs)] for name, values in columns.items()}
        pd.DataFrame(rows).to_csv(folder / f"{split}.csv")


def test_perov_5_is_read_as_it_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = {"formula": ["SrTiO3"] * 2, "heat_all": [1.0, 2.0], "heat_ref": [1.5, 0.4]}
    write_tables(tmp_path, **columns, dir_gap=[0.0, 1.1], ind_gap=[0.0, 0.9])
    with pytest.raises(DatasetError, match="has 5 rows, Perov-5 has 18928"):
        tables.perov5(tmp_path)
    monkeypatch.setattr(tables, "PEROV_5_ROWS", 5)
    data = tables.perov5(tmp_path)
    assert data.split.tolist() == [0, 0, 1, 1, 2]
    assert data.num_atoms.tolist() == [5] * 5
    assert data.labels["heat_ref"].tolist() == pytest.approx([1.5, 0.4, 1.5, 0.4, 1.5])
    assert [c.unit for c in data.conditions if c.name == "ind_gap"] == ["eV"]


def test_carbon_24_and_mpts_52_take_their_larger_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = bulk("C", cubic=True).repeat((3, 1, 1))
    large.rattle(0.1, seed=0)
    text = AseAtomsAdaptor.get_structure(large).to(fmt="cif")
    for i, split in enumerate(("train", "val", "test")):
        row = {"material_id": f"C-{i}", "cif": text, "energy_per_atom": -154.2}
        pd.DataFrame([row]).to_csv(tmp_path / f"{split}.csv")
    monkeypatch.setattr(tables, "CARBON_24_ROWS", 3)
    monkeypatch.setattr(tables, "MPTS_52_ROWS", {"train": 1, "val": 1, "test": 1})
    for read in (tables.carbon24, tables.mpts52):
        assert read(tmp_path).num_atoms.tolist() == [24] * 3
    monkeypatch.setattr(tables, "MPTS_52_ROWS", {"train": 1, "val": 2, "test": 1})
    with pytest.raises(DatasetError, match=r"val\.csv has 1 rows, MPTS-52 has 2 there"):
        tables.mpts52(tmp_path)


def test_the_tables_are_those_of_one_commit() -> None:
    assert tables.table_url("perov_5").count(tables.COMMIT) == 1
    assert tables.table_url("perov_5").endswith("/data/perov_5/{split}.csv")


def write_alexandria(path: Path, number: int, first: int = 0) -> None:
    """As the data base writes it: entries, with what is known of each under `data`."""
    entries = []
    for i in range(first, first + number):
        structure = AseAtomsAdaptor.get_structure(bulk(METALS[i % 8], cubic=True))
        data = {"mat_id": f"agm{i:09d}", "e_above_hull": 0.05 * (i % 4), "e_form": -0.1 * i}
        data |= {"band_gap_ind": 0.1 * i, "band_gap_dir": 0.2 * i, "spg": 225, "elements": ["Cu"]}
        entries.append(ComputedStructureEntry(structure, -3.0 * i, data=data).as_dict())
    path.write_bytes(bz2.compress(json.dumps({"entries": entries}).encode()))


def test_alexandria_is_read_entry_by_entry(tmp_path: Path) -> None:
    write_alexandria(tmp_path / "alexandria_000.json.bz2", 5)
    write_alexandria(tmp_path / "alexandria_001.json.bz2", 3, first=5)
    with pytest.warns(UserWarning, match="2 of 8 rows have energy_above_hull above 0.1 eV/atom"):
        data = alexandria(tmp_path, labels=["e_form:eV/atom"])
    assert data.num_atoms.tolist() == [4] * 6
    assert data.labels["e_form"].tolist() == pytest.approx([0, -0.1, -0.2, -0.4, -0.5, -0.6])
    np.testing.assert_allclose(data.labels["band_gap"], [0, 0.1, 0.2, 0.4, 0.5, 0.6], atol=1e-6)
    broken = tmp_path / "broken.json"
    broken.write_text('{"entries": [{"structure": 1}, ')
    with pytest.raises(DatasetError, match=r"broken\.json is damaged after entry 1"):
        alexandria(broken)
    broken.write_text("{}")
    with pytest.raises(DatasetError, match="has no entries"):
        alexandria(broken)
    with pytest.raises(DatasetError, match="not downloaded"):
        alexandria()


def test_what_a_source_needs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set.aselmdb").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "ase_db_backends.aselmdb", None)
    with pytest.raises(DatasetError, match=r"adit-plugins\[data\]"):
        crystals(tmp_path / "set.aselmdb")
