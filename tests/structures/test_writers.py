"""Writers and readers: every format round-trips, streams, and never leaves half a file."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from numpy.testing import assert_allclose, assert_array_equal
from pymatgen.core import Structure
from pymatgen.io.cif import CifParser
from rdkit import Chem

from adit_plugins import ADiTGenerator, Sample, read_structures, to_sample, write_samples
from adit_plugins.structures.entries import InputError
from adit_plugins.structures.writers import OutputError, check_output

BOTH = [".extxyz", ".xyz", ".db", ".json"]
CRYSTAL_OUTPUTS = [f"out{suffix}" for suffix in [*BOTH, ".cif"]] + ["out"]
MOLECULE_OUTPUTS = [f"out{suffix}" for suffix in [*BOTH, ".sdf"]]


def _provenance(kind: str, index: int) -> dict[str, object]:
    return {
        "id": f"adit-joint/0/{index}",
        "kind": kind,
        "seed": 0,
        "index": index,
        "guidance_scale": 2.0,
        "num_atoms": None,
    }


@pytest.fixture
def crystals() -> list[Sample]:
    structures = [bulk("NaCl", "rocksalt", 5.64), bulk("Si"), bulk("Mg"), bulk("Cu", cubic=True)]
    return [
        Sample("crystal", a.numbers, a.positions + 0.1, a.cell.array, _provenance("crystal", i))
        for i, a in enumerate(structures)
    ]


@pytest.fixture
def molecules() -> list[Sample]:
    structures = [molecule(name) for name in ("CH3CH2OH", "C6H6", "H2O")]
    return [
        Sample("molecule", a.numbers, a.positions, None, _provenance("molecule", i))
        for i, a in enumerate(structures)
    ]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_round_trip(samples: list[Sample], path: Path) -> None:
    report = write_samples(iter(samples), path)
    assert (report.written, report.skipped) == (len(samples), ())
    read = [to_sample(atoms) for atoms in read_structures(path)]
    assert len(read) == len(samples)
    for before, after in zip(samples, read, strict=True):
        assert after.kind == before.kind
        assert after.provenance == before.provenance
        periodic = before.kind == "crystal"
        # CIF forgets the orientation and may reorder, so distances are compared.
        assert sorted(after.atomic_numbers) == sorted(before.atomic_numbers)
        distances = [
            np.sort(s.to_ase().get_all_distances(mic=periodic), None) for s in (before, after)
        ]
        assert_allclose(distances[0], distances[1], atol=1e-3)
        assert names(path.parent) == [path.name]


@pytest.mark.parametrize("name", CRYSTAL_OUTPUTS)
def test_crystals_round_trip(name: str, crystals: list[Sample], tmp_path: Path) -> None:
    assert_round_trip(crystals, tmp_path / name)


@pytest.mark.parametrize("name", MOLECULE_OUTPUTS)
def test_molecules_round_trip(name: str, molecules: list[Sample], tmp_path: Path) -> None:
    assert_round_trip(molecules, tmp_path / name)


@pytest.mark.parametrize("name", CRYSTAL_OUTPUTS)
def test_structures_without_provenance_can_be_written(name: str, tmp_path: Path) -> None:
    assert_round_trip([Sample.from_ase(bulk("Cu")), Sample.from_ase(bulk("Si"))], tmp_path / name)


@pytest.mark.parametrize("name", [f"out{suffix}" for suffix in BOTH])
def test_both_kinds_share_a_file(
    name: str, crystals: list[Sample], molecules: list[Sample], tmp_path: Path
) -> None:
    assert_round_trip([*molecules, *crystals], tmp_path / name)


def test_extxyz_keeps_lattice_and_positions(crystals: list[Sample], tmp_path: Path) -> None:
    write_samples(crystals, tmp_path / "out.extxyz")
    for before, after in zip(crystals, ase.io.read(tmp_path / "out.extxyz", ":"), strict=True):
        assert_array_equal(after.numbers, before.atomic_numbers)
        assert_allclose(after.cell.array, before.lattice, atol=1e-8)
        assert_allclose(after.positions, before.positions, atol=1e-8)


def test_database_rows_can_be_selected(crystals: list[Sample], tmp_path: Path) -> None:
    write_samples(crystals, tmp_path / "out.db")
    database = ase.db.connect(tmp_path / "out.db")
    assert database.get(sample_id="adit-joint/0/1").formula == "Si2"
    assert database.get(sample_index=3, kind="crystal").natoms == 4


def test_database_takes_more_than_a_transaction(crystals: list[Sample], tmp_path: Path) -> None:
    assert write_samples(crystals * 60, tmp_path / "out.db").written == 240
    assert len(read_structures(tmp_path / "out.db")) == 240


def test_files_are_read_by_other_programs(
    crystals: list[Sample], molecules: list[Sample], tmp_path: Path
) -> None:
    write_samples(crystals, tmp_path / "out.cif")
    parsed = CifParser(tmp_path / "out.cif").parse_structures(primitive=False)
    assert [s.composition.reduced_formula for s in parsed] == ["NaCl", "Si", "Mg", "Cu"]
    blocks = re.findall(r"^data_(.*)$", (tmp_path / "out.cif").read_text(), re.MULTILINE)
    assert blocks == [f"adit-joint_0_{i}" for i in range(4)]
    write_samples(crystals, tmp_path / "out.json")
    entries = json.loads((tmp_path / "out.json").read_text())
    assert Structure.from_dict(entries[1]).formula == "Si2"
    write_samples(molecules, tmp_path / "out.sdf")
    mols = list(Chem.SDMolSupplier(str(tmp_path / "out.sdf")))
    assert [Chem.MolToSmiles(m) for m in mols] == ["CCO", "c1ccccc1", "O"]
    assert mols[0].GetProp("_Name") == "adit-joint/0/0"


def test_folder_has_an_index(crystals: list[Sample], tmp_path: Path) -> None:
    write_samples([*crystals, crystals[0]], f"{tmp_path}/run.1/")
    with (tmp_path / "run.1" / "index.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["formula"] for row in rows] == ["ClNa", "Si", "Mg", "Cu", "ClNa"]
    assert rows[0]["id"] == rows[4]["id"] == "adit-joint/0/0"
    assert {row["file"] for row in rows} == {p.name for p in (tmp_path / "run.1").glob("*.cif")}


def test_molecules_without_bonds_are_reported(molecules: list[Sample], tmp_path: Path) -> None:
    broken = Sample(
        "molecule", np.array([6, 6, 1]), np.diag([1.4, 1.4, 1.1]), None, {"id": "a/0/9"}
    )
    report = write_samples([molecules[0], broken, molecules[1]], tmp_path / "out.sdf")
    assert report.written == len(read_structures(tmp_path / "out.sdf")) == 2
    [(skipped, reason)] = report.skipped
    assert skipped == "a/0/9"
    assert "no bond assignment fits" in reason
    report = write_samples([broken], tmp_path / "none.sdf")
    assert (report.written, len(report.skipped)) == (0, 1)
    assert not (tmp_path / "none.sdf").exists()


@pytest.mark.parametrize("name", CRYSTAL_OUTPUTS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interruption_keeps_what_was_finished(
    name: str, error: type[BaseException], crystals: list[Sample], tmp_path: Path
) -> None:
    def interrupted(count: int) -> Iterator[Sample]:
        yield from crystals[:count]
        raise error("stop")

    path = tmp_path / name
    with pytest.raises(error, match="stop"):
        write_samples(interrupted(0), path)
    assert names(tmp_path) == []
    with pytest.raises(error, match="stop"):
        write_samples(interrupted(3), path)
    assert names(tmp_path) == [name]
    assert [a.info["adit"]["index"] for a in read_structures(path)] == [0, 1, 2]


@pytest.mark.parametrize("name", CRYSTAL_OUTPUTS)
def test_an_older_result_is_replaced_whole_or_kept(
    name: str, crystals: list[Sample], tmp_path: Path
) -> None:
    path = tmp_path / name
    write_samples(crystals, path)
    assert write_samples([], path).written == 0
    assert len(read_structures(path)) == 4
    write_samples(crystals[2:], path)
    assert [a.info["adit"]["index"] for a in read_structures(path)] == [2, 3]
    assert names(tmp_path) == [name]


def test_writing_follows_the_stream(crystals: list[Sample], tmp_path: Path) -> None:
    """A sample is written before the next one is asked for, so memory stays constant."""
    sizes = []

    def watched() -> Iterator[Sample]:
        for sample in crystals:
            sizes.append(sum(p.stat().st_size for p in tmp_path.iterdir()))
            yield sample

    write_samples(watched(), tmp_path / "out.extxyz")
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("kind", ["crystal", "molecule"])
def test_generated_samples_can_be_written(kind: str, tiny_checkpoint: str, tmp_path: Path) -> None:
    generator = ADiTGenerator(kind=kind, checkpoint=tiny_checkpoint, num_steps=2)  # type: ignore[arg-type]
    outputs = CRYSTAL_OUTPUTS if kind == "crystal" else [f"out{suffix}" for suffix in BOTH]
    samples = generator.samples(8)
    for name in outputs:
        assert write_samples(samples, tmp_path / name).written == 8
        read = read_structures(tmp_path / name)
        assert [a.info["adit"]["id"] for a in read] == [s.id for s in samples]


def test_unwritable_outputs_are_found_out_beforehand(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="a suffix alone"):
        check_output(tmp_path / ".extxyz")
    with pytest.raises(OutputError, match=r"unknown suffix '\.pdb'. Known: \.extxyz, .*a folder"):
        check_output(tmp_path / "out.pdb")
    with pytest.raises(OutputError, match="mkdir -p"):
        check_output(tmp_path / "missing" / "out.xyz")
    with pytest.raises(OutputError, match="SDF holds molecules"):
        check_output(tmp_path / "out.sdf", "crystal")
    for name in ("out.cif", "out/"):
        with pytest.raises(OutputError, match="CIF holds crystals"):
            check_output(f"{tmp_path}/{name}", "molecule")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="a file is in its place"):
        check_output(tmp_path / "file")
    (tmp_path / "folder.xyz").mkdir()
    with pytest.raises(OutputError, match="it is a folder"):
        check_output(tmp_path / "folder.xyz")
    (tmp_path / "mine").mkdir()
    check_output(tmp_path / "mine")
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(OutputError, match="not empty"):
        check_output(tmp_path / "mine")
    with pytest.raises(OutputError, match="Cannot write in"):
        check_output(tmp_path / f"{'n' * 300}.xyz")
    with pytest.raises(OutputError, match="file is no folder"):
        check_output(tmp_path / "file" / "out.xyz")
    with pytest.raises(OutputError, match="a file is in its place"):
        check_output("/dev/null")
    for name in (".", "..", "/"):
        with pytest.raises(OutputError, match="name a new folder"):
            check_output(name)
    assert names(tmp_path) == ["file", "folder.xyz", "mine"]


@pytest.mark.parametrize(
    "index",
    [
        "name,energy\nmine.cif,-1.0\n",  # a user's own
        "file,id,formula,num_atoms\nother.cif,,Cu,1\n",  # ours, and the user has added a file
        "file,energy\nmine.cif,-1.0\n",
        "",
        "\x00",
    ],
)
def test_a_folder_of_the_users_is_never_replaced(
    index: str, crystals: list[Sample], tmp_path: Path
) -> None:
    (tmp_path / "mine.cif").write_text("years of work")
    (tmp_path / "index.csv").write_text(index)
    with pytest.raises(OutputError, match="not all in it was written by this program"):
        write_samples(crystals, tmp_path)
    assert (tmp_path / "mine.cif").read_text() == "years of work"
    assert (tmp_path / "index.csv").read_text() == index


def test_a_folder_of_ours_is_replaced_as_a_whole(crystals: list[Sample], tmp_path: Path) -> None:
    write_samples(crystals, tmp_path / "out")
    next((tmp_path / "out").glob("*.cif")).unlink()
    assert write_samples(crystals[:1], tmp_path / "out").written == 1
    assert len(read_structures(tmp_path / "out")) == 1
    assert names(tmp_path) == ["out"]


def test_wrong_kind_in_the_stream_keeps_the_rest(
    crystals: list[Sample], molecules: list[Sample], tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match="CIF holds crystals"):
        write_samples([crystals[0], molecules[0]], tmp_path / "out.cif")
    assert len(read_structures(tmp_path / "out.cif")) == 1


def test_names_that_mean_something_to_ase(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "water.xyz", molecule("H2O"))
    (tmp_path / "water.xyz").rename(tmp_path / "water@300K.xyz")
    assert len(read_structures(tmp_path / "water@300K.xyz")) == 1
    (tmp_path / "notes.bak").write_text("nothing of interest")
    with pytest.raises(InputError, match=r"notes\.bak.*kind of file is not known.*Rename"):
        read_structures(tmp_path / "notes.bak")


def test_objects_of_other_packages_can_be_written(crystals: list[Sample], tmp_path: Path) -> None:
    """What `generate` returns, and what `read_structures` returns, can be written as it is."""
    mixed = [crystals[0], crystals[1].to_ase(), crystals[2].to_pymatgen()]
    assert write_samples(mixed, tmp_path / "out.cif").written == 3
    found = read_structures(tmp_path / "out.cif")
    assert [atoms.info["adit"]["index"] for atoms in found] == [0, 1, 2]
    with pytest.raises(TypeError, match="cannot convert 'str'"):
        write_samples(["NaCl"], tmp_path / "no.cif")  # type: ignore[list-item]
    assert names(tmp_path) == ["out.cif"]


def test_an_sdf_has_the_smiles_of_each_molecule(tmp_path: Path) -> None:
    samples = [Sample.from_ase(molecule(name)) for name in ("CH3CH2OH", "C6H6")]
    write_samples(samples, tmp_path / "two.sdf")
    found = [mol.GetProp("SMILES") for mol in Chem.SDMolSupplier(str(tmp_path / "two.sdf"))]
    assert found == ["CCO", "c1ccccc1"]
