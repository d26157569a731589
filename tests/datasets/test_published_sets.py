"""Published archives, in small files of exactly their format."""

from __future__ import annotations

import csv
import hashlib
import io
import lzma
import re
import tarfile
import zipfile
from pathlib import Path

import ase.db
import msgpack
import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from test_datasets import rock_salt, rutile

from adit_model.data import PreparedData
from adit_plugins.datasets import DatasetError, prepare, published
from adit_plugins.datasets.common import split_of
from adit_plugins.datasets.geom import geom_drugs
from adit_plugins.structures.reading import read_structures


def table(rows: list[dict[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def alex_zip(path: Path) -> Path:
    """As MatterGen's: `alex_mp_20/train.csv` and `val.csv`, most properties empty."""
    rows = [
        {
            "material_id": f"agm{i}",
            "reduced_formula": "NaCl",
            "num_sites": 8,
            "cif": (rutile() if i == 2 else rock_salt()).to(fmt="cif"),
            "energy_above_hull": 0.02 * i,
            "dft_band_gap": "" if i == 1 else 5.0 + i,
        }
        for i in range(4)
    ]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("alex_mp_20/train.csv", table(rows[:3]))
        archive.writestr("alex_mp_20/val.csv", table(rows[3:]))
    return path


def test_alex_mp_20_has_its_own_splits_and_labels(tmp_path: Path) -> None:
    (path,) = prepare(["alexmp20"], tmp_path / "out", alex_zip(tmp_path / "copy.zip"))
    data = PreparedData.load(path)
    assert data.num_atoms.tolist() == [8, 8, 6, 8]
    assert data.split.tolist() == [0, 0, 0, 1]
    assert data.labels["band_gap"].isnan().tolist() == [False, True, False, False]
    limits = {"energy_above_hull": 0.03}
    with pytest.warns(UserWarning, match="2 of 4 rows have energy_above_hull above 0.03 eV/atom"):
        (path,) = prepare(["alexmp20"], tmp_path / "few", tmp_path / "copy.zip", limits=limits)
    assert PreparedData.load(path).num_atoms.tolist() == [8, 8]
    with pytest.raises(DatasetError, match=r"is not Alex-MP-20: its checksum is not sha256:6688e"):
        published.alexmp20(alex_zip(tmp_path / "alex_mp_20.zip"))


def test_lemat_bulk_is_read_from_its_parquet_and_formulas_stay_together(tmp_path: Path) -> None:
    structures = [rock_salt(), rutile(), rock_salt(), rutile()]
    frame = pd.DataFrame({
        "elements": [sorted({str(e) for e in s.composition.elements}) for s in structures],
        "nsites": [len(s) for s in structures],
        "lattice_vectors": [s.lattice.matrix.tolist() for s in structures],
        "immutable_id": [f"agm{i}" for i in range(4)],
        "cartesian_site_positions": [s.cart_coords.tolist() for s in structures],
        "species_at_sites": [[str(site.specie) for site in s] for s in structures],
        "functional": ["pbe"] * 4,
        "energy": [-1.0, -2.0, -3.0, None],
    })  # fmt: skip
    folder = tmp_path / "compatible_pbe"
    folder.mkdir()
    for i in (0, 1):
        frame[2 * i : 2 * i + 2].to_parquet(folder / f"train-{i:05d}-of-00017.parquet")
    data = published.lemat_bulk(folder)
    assert data.num_atoms.tolist() == [8, 6, 8, 6]
    splits = data.split.tolist()
    assert splits[0] == splits[2] and splits[1] == splits[3]
    # And any command reads such a file.
    first = read_structures(folder / "train-00000-of-00017.parquet")[0]
    assert first.info["material_id"] == "agm0" and str(first.symbols) == "Na4Cl4"
    np.testing.assert_allclose(first.positions, structures[0].cart_coords)


def with_energy(atoms: Atoms, energy: float, force: float) -> Atoms:
    forces = np.zeros((len(atoms), 3))
    forces[0, 0] = force
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, stress=np.zeros(6))
    return atoms


def omat_folder(folder: Path) -> Path:
    folder.mkdir()
    rows = [with_energy(bulk("NaCl", "rocksalt", 5.6), -6.0, 0.01)]
    rows += [with_energy(bulk("MgO", "rocksalt", 4.2 + 0.1 * i), -11.0, 0.1 + i) for i in range(2)]
    for number, some in enumerate((rows[:1], rows[1:])):
        with ase.db.connect(folder / f"data.{number:04d}.aselmdb", type="aselmdb") as database:
            for atoms in some:
                database.write(atoms, data={"sid": "sid"})
    for lock in folder.glob("*-lock"):
        lock.unlink()
    return folder


@pytest.mark.parametrize("form", ["folder", "tar.gz"])
def test_omat24_is_a_subset_by_size_energy_and_force(tmp_path: Path, form: str) -> None:
    source = omat_folder(tmp_path / "rattled-relax")
    if form == "tar.gz":
        with tarfile.open(tmp_path / "rattled-relax.tar.gz", "w:gz") as archive:
            archive.add(source, "rattled-relax")
        source = tmp_path / "rattled-relax.tar.gz"
    (path,) = prepare(["omat24"], tmp_path / "all", source)
    data = PreparedData.load(path)
    assert data.num_atoms.tolist() == [2, 2, 2]
    energies = data.labels["energy_per_atom"].tolist()
    assert sorted(energies) == pytest.approx([-5.5, -5.5, -3.0])
    assert len(set(data.split[1:].tolist())) == 1
    with pytest.warns(UserWarning, match="1 of 3 rows have max_force above 0.5 and are left out"):
        (path,) = prepare(["omat24"], tmp_path / "calm", source, limits={"max_force": 0.5})
    assert len(PreparedData.load(path).num_atoms) == 2
    with pytest.warns(UserWarning, match="3 of 3 rows have no e_form"):  # noqa: SIM117
        with pytest.raises(DatasetError, match="no structure to prepare"):
            prepare(["omat24"], tmp_path / "none", source, limits={"e_form": 0.0})


@pytest.mark.parametrize("form", ["zip", "folder"])
def test_qmof_is_its_relaxed_structures_with_their_gaps(tmp_path: Path, form: str) -> None:
    inner = io.BytesIO()
    cifs = {"qmof-0000295": rutile().to(fmt="cif"), "qmof-00003cd": rock_salt().to(fmt="cif")}
    gaps = zip(cifs, (1.5, 2.5), strict=True)
    rows = [{"qmof_id": n, "info.natoms": 6, "outputs.pbe.bandgap": gap} for n, gap in gaps]
    folder = tmp_path / "qmof_database"
    (folder / "relaxed_structures").mkdir(parents=True)
    (folder / "qmof.csv").write_text(table(rows))
    with zipfile.ZipFile(inner, "w") as archive:
        for name, text in cifs.items():
            archive.writestr(f"relaxed_structures/{name}.cif", text)
            (folder / "relaxed_structures" / f"{name}.cif").write_text(text)
    source = folder
    if form == "zip":
        source = tmp_path / "copy.zip"
        with zipfile.ZipFile(source, "w") as archive:
            archive.write(folder / "qmof.csv", "qmof_database/qmof.csv")
            archive.writestr("qmof_database/unrelaxed_structures.zip", b"PK not read")
            archive.writestr("qmof_database/relaxed_structures.zip", inner.getvalue())
    data = published.qmof(source)
    assert sorted(data.num_atoms.tolist()) == [6, 8]
    stream = published.qmof.stream(source)
    found = {
        entry.id: (len(entry.atoms or []), entry.columns["band_gap"])
        for entry, _ in stream.entries()
    }
    assert found == {"qmof-0000295": (6, "1.5"), "qmof-00003cd": (8, "2.5")}
    with pytest.raises(DatasetError, match="no relaxed_structures"):
        published.qmof(folder / "relaxed_structures" / "qmof-0000295.cif")


FRAME = """2
Lattice="{a} 0.0 0.0 0.0 {a} 0.0 0.0 0.0 {a}" \
Properties=species:S:1:pos:R:3:move_mask:L:1:tags:I:1:forces:R:3 energy={e} free_energy={e} \
pbc="T T T"
Pt 0.0 0.0 0.0 F 1 0.0 0.0 0.02
O 0.0 0.0 1.9 T 2 0.0 0.0 -0.02
"""


def oc20_tar(path: Path, frames: int = 3) -> Path:
    with tarfile.open(path, "w") as archive:
        texts = {
            "0.extxyz": "".join(FRAME.format(a=6 + i / 10, e=-8.0 - i) for i in range(3)),
            "0.txt": "".join(f"random{i // 2},frame{i},-7.5\n" for i in range(frames)),
        }
        for name, text in texts.items():
            content = lzma.compress(text.encode())
            info = tarfile.TarInfo(f"s2ef_train_200K/s2ef_train_200K/{name}.xz")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_oc20_has_adsorption_energies_and_keeps_a_system_together(tmp_path: Path) -> None:
    source = oc20_tar(tmp_path / "copy.tar")
    rows = list(published.oc20.stream(source).entries())
    assert [entry.id for entry, _ in rows] == ["random0/frame0", "random0/frame1", "random1/frame2"]
    energies = [entry.columns["adsorption_energy"] for entry, _ in rows]
    assert energies == pytest.approx([-0.5, -1.5, -2.5])
    assert [split for _, split in rows] == [split_of("random0")] * 2 + [split_of("random1")]
    assert published.oc20(source).num_atoms.tolist() == [2, 2, 2]
    with pytest.warns(UserWarning, match="1 of 3 crystals cannot be read.*no line for this frame"):
        assert len(published.oc20(oc20_tar(tmp_path / "short.tar", 2)).num_atoms) == 2
    with pytest.raises(DatasetError, match="is not the 200K part of OC20"):
        published.oc20(oc20_tar(tmp_path / "s2ef_train_200K.tar"))


def geom_file(path: Path) -> Path:
    """Two of GEOM's maps of a thousand molecules, of which each has conformers."""

    def conformer(atoms: Atoms, energy: float) -> dict[str, object]:
        xyz = [[float(z), *p] for z, p in zip(atoms.numbers, atoms.positions.tolist(), strict=True)]
        return {"geom_id": 1, "totalenergy": energy, "boltzmannweight": 0.5, "xyz": xyz}

    water, ethanol = molecule("H2O"), molecule("CH3CH2OH")
    higher = water.copy()
    higher.positions[0] += 0.1
    path.write_bytes(
        msgpack.packb({"O": {"conformers": [conformer(higher, -5.0), conformer(water, -5.1)]}})
        + msgpack.packb({"CCO": {"conformers": [conformer(ethanol, -11.0)]}, "broken": {}})
    )
    return path


def test_geom_drugs_are_its_lowest_conformers(tmp_path: Path) -> None:
    source = geom_file(tmp_path / "drugs_crude.msgpack")
    with pytest.warns(UserWarning, match="1 molecules have no conformers as GEOM has them"):
        data = geom_drugs(source)
    assert data.kind == "molecule" and data.num_atoms.tolist() == [3, 9]
    water = molecule("H2O").positions
    found = data.coords[:3].numpy()
    np.testing.assert_allclose(found, water - water.mean(axis=0), atol=1e-6)
    with tarfile.open(tmp_path / "drugs_crude.msgpack.tar.gz", "w:gz") as archive:
        archive.add(source, "drugs_crude.msgpack")
    with pytest.warns(UserWarning, match="no conformers"):
        packed = geom_drugs(tmp_path / "drugs_crude.msgpack.tar.gz", conformers=2)
    assert packed.num_atoms.tolist() == [3, 3, 9]
    assert packed.split[0] == packed.split[1]
    with (
        pytest.warns(UserWarning, match="1 molecules have more than 5 atoms"),
        pytest.warns(UserWarning, match="no conformers"),
    ):
        assert geom_drugs(source, max_num_atoms=5).num_atoms.tolist() == [3]
    source.write_bytes(b"\xc1 is no msgpack")
    with pytest.raises(DatasetError, match="is damaged"):
        geom_drugs(source)


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "rdkit_folder.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("rdkit_folder/drugs/CCO.pickle")
        archive.addfile(info, io.BytesIO())
    with pytest.raises(DatasetError, match=r"holds pickles.*not read; take .*msgpack"):
        geom_drugs(tmp_path / "rdkit_folder.tar.gz")


@pytest.mark.parametrize("name", ["lemat_bulk", "omat24", "geom_drugs", "alexandria"])
def test_what_is_not_downloaded_says_where_it_is(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError, match=r"not downloaded: pass --source .*https://"):
        prepare([name], tmp_path / "out")
    with pytest.raises(DatasetError, match=r"[Nn]o (such )?file"):
        prepare([name], tmp_path / "out", tmp_path / "missing")


def test_checksums_of_published_archives_are_pinned() -> None:
    for url, checksum in (published.ALEX_MP_20, published.QMOF_18, published.OC20_200K):
        assert url.startswith("https://")
        algorithm, digest = checksum.split(":")
        assert len(digest) == 2 * hashlib.new(algorithm, usedforsecurity=False).digest_size
    assert re.search(r"/resolve/[0-9a-f]{40}/", published.LEMAT_BULK)
