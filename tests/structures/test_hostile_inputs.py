"""Files of strangers: they name no code, stay in their folder, and unpack to a bounded size."""

from __future__ import annotations

import bz2
import copy
import gzip
import json
import lzma
import os
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from pymatgen.core import Lattice, Molecule, Structure
from pymatgen.electronic_structure.core import Magmom

from adit_plugins import read_structures
from adit_plugins.campaign import Campaign, Settings, StructuresSource
from adit_plugins.campaign.sources import source_of
from adit_plugins.campaign.store import Store
from adit_plugins.datasets import DatasetError, molecules
from adit_plugins.generation.generator import ADiTGenerator
from adit_plugins.hull.table import Hull
from adit_plugins.matching.fingerprints import Fingerprints
from adit_plugins.structures import untrusted as inputs
from adit_plugins.structures.entries import InputError
from adit_plugins.structures.reading import iter_entries
from adit_plugins.structures.untrusted import (
    check_unpacked_size,
    structure_from_dict,
    without_classes,
)
from adit_plugins.submissions import lemat_genbench, matbench

SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.69), ["Na", "Cl"], [[0] * 3, [0.5] * 3])
WATER = Molecule(["O", "H", "H"], [[0, 0, 0], [0, 0, 0.96], [0.93, 0, -0.24]])


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A dictionary that names a module which leaves a mark when it is imported."""
    name = f"trap_{os.getpid()}_{tmp_path.name}"
    (tmp_path / "modules").mkdir()
    code = f"""
from pathlib import Path
Path({str(tmp_path / "sprung")!r}).touch()
class X:
    @classmethod
    def from_dict(cls, content): return cls()
def make(*args): return X()
"""
    (tmp_path / "modules" / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    return {"@module": name, "@class": "X"}


@pytest.fixture
def sprung(tmp_path: Path, trap: dict[str, Any]) -> Any:
    return lambda: (tmp_path / "sprung").exists() or trap["@module"] in sys.modules


def with_property(structure: Structure | Molecule, value: Any) -> dict[str, Any]:
    content = json.loads(json.dumps(structure.as_dict(), default=str))
    for site in content["sites"]:
        site["properties"] = {"note": copy.deepcopy(value)}
    return dict(content)


def hidden(trap: dict[str, Any]) -> list[Any]:
    """The ways to name code that monty's decoder follows."""
    return [
        trap,
        {"deeper": [[{"still": trap}]]},
        {"@module": trap["@module"], "@callable": "make"},
        {"@module": trap["@module"], "@callable": "X.make", "@bound": trap},
        {"@module": "numpy", "@class": "array", "@callable": "x", "dtype": "int", "data": [trap]},
        {"@module": "pymatgen.electronic_structure.core", "@class": "Magmom", "moment": trap},
        {"@class": "X", "@module": trap["@module"], "@version": None, "value": 3},
    ]


def test_the_trap_works(trap: dict[str, Any], sprung: Any) -> None:
    """As pymatgen by itself reads such a file."""
    Structure.from_dict(with_property(SALT, trap))
    assert sprung()


def test_no_structure_in_json_names_code(trap: dict[str, Any], sprung: Any, tmp_path: Path) -> None:
    for i, value in enumerate(hidden(trap)):
        contents = [with_property(each, value) for each in (SALT, WATER)]
        path = tmp_path / f"{i}.json"
        path.write_text(json.dumps(contents))
        entries = list(iter_entries(path))
        if i != 5:  # a moment that is no number is damage
            assert [len(entry.atoms or ()) for entry in entries] == [8, 3], entries
        for content, suffix in zip(contents, ("csv", "aditjson"), strict=True):
            (tmp_path / f"{i}.{suffix}").write_text(
                json.dumps(content)
                if suffix == "aditjson"
                else 'structure\n"{}"\n'.format(json.dumps(content).replace('"', '""'))
            )
        list(iter_entries(tmp_path / f"{i}.csv"))
        if i != 5:
            assert Molecule.from_file(tmp_path / f"{i}.aditjson").formula == "H2 O1"
        assert not sprung(), value


def test_no_record_of_a_shard_names_code(trap: dict[str, Any], sprung: Any) -> None:
    record = {"structure": with_property(SALT, trap), "corrected_energy": -27.0}
    assert matbench._prediction(record, {"Na": 0.0, "Cl": 0.0}) == pytest.approx(-27 / 8)
    atoms = lemat_genbench.with_relaxed({"a": bulk("Cu")}, {"a": record})["a"]
    assert len(atoms) == 8
    assert not sprung()


@pytest.mark.parametrize("field", ["checkpoint", "seed", "num_atoms", "added"])
def test_no_recipe_names_code(
    field: str, trap: dict[str, Any], sprung: Any, tmp_path: Path, tiny_checkpoint: str
) -> None:
    recipe = ADiTGenerator(checkpoint=tiny_checkpoint).as_dict() | {field: trap}
    path = tmp_path / "recipe.adit"
    path.write_text(json.dumps(recipe))
    with pytest.raises(ValueError, match=r"got a dictionary|no setting"):
        ADiTGenerator.load(path)
    with pytest.raises(ValueError, match=r"got a dictionary|no setting"):
        source_of({"generators": [recipe], "num": 1, "checkpoint_hash": ""})
    assert not sprung()


@pytest.mark.parametrize("name", ["relaxer", "prefilter"])
@pytest.mark.parametrize("form", ["{}:make", "mace:{}", "mace:/tmp/x", "os:system", "mace:../x"])
def test_no_store_names_code(
    name: str, form: str, trap: dict[str, Any], sprung: Any, tmp_path: Path
) -> None:
    """Neither a module nor a model file, which may be a pickle."""
    source = StructuresSource(lambda start: [bulk("Cu")][start:], total=1)
    settings = Settings(**{name: form.format(trap["@module"])})
    with Campaign.create(tmp_path, source, settings):
        pass
    with pytest.raises(ValueError, match=f"name it once more: --{name} "):
        Campaign.open(tmp_path, source)
    with Store(tmp_path) as store:  # the refusal has let go of it
        assert len(store) == 0
    assert not sprung()


def test_installed_potentials_need_no_second_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = StructuresSource(lambda start: [bulk("Cu")][start:], total=1)
    with Campaign.create(tmp_path, source, Settings("torch-sim:chgnet", prefilter="mace-adit")):
        pass
    with Campaign.open(tmp_path, source) as campaign:
        assert campaign.settings.relaxer == "torch-sim:chgnet"
    (tmp_path / "chgnet").touch()  # now it is a file, perhaps a stranger's
    with pytest.raises(ValueError, match="--relaxer torch-sim:chgnet"):
        Campaign.open(tmp_path, source)


def test_plain_values_of_site_properties_stay(tmp_path: Path) -> None:
    salt = SALT.copy()
    salt.add_site_property("magmom", [Magmom([0, 0, i]) for i in range(8)])
    salt.add_site_property("forces", [np.full(3, float(i)) for i in range(8)])
    salt.to(str(tmp_path / "salt.aditjson"))
    again = Structure.from_file(tmp_path / "salt.aditjson")
    assert again.site_properties["magmom"][3] == Magmom([0, 0, 3])
    assert np.asarray(again.site_properties["forces"][3]).tolist() == [3, 3, 3]


def test_names_of_classes_go_at_any_depth() -> None:
    content = {"@module": "a", "@class": "b", "c": [{"@module": "d", "e": 1}, "@module"]}
    assert without_classes(content) == {"@class": "b", "c": [{"e": 1}, "@module"]}
    with pytest.raises(ValueError, match="it is a list"):
        structure_from_dict([])
    nested: Any = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(ValueError, match="damaged"):
        structure_from_dict({"@class": "Structure", "sites": nested})


@pytest.mark.parametrize("name", ["../secret.cif", "{}/secret.cif", "..", ".", "", "sub/", "sub"])
def test_an_index_does_not_lead_out_of_its_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "sub").mkdir(parents=True)
    ase.io.write(tmp_path / "secret.cif", bulk("Au"))
    ase.io.write(folder / "a.cif", bulk("Cu"))
    (folder / "index.csv").write_text(f"file\na.cif\n{name.format(tmp_path)}\n,\n")
    (entry,) = iter_entries(folder)  # what lies in the folder counts, not what an index says
    assert entry.atoms is not None
    assert entry.atoms.get_chemical_formula() == "Cu"


def bomb(path: Path) -> Path:
    zeros = bytes(inputs.FREE_BYTES + 1)
    if path.suffix == ".npz":
        np.savez_compressed(path, num_atoms=np.frombuffer(zeros, dtype=np.uint8))
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.cif", zeros)
    else:
        pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
        path.write_bytes(pack[path.suffix.lower()](zeros))
    return path


@pytest.mark.parametrize(
    "name", ["a.json.gz", "a.CIF.GZ", "a.extxyz.bz2", "a.cif.xz", "a.zip", "a.npz"]
)
def test_bombs_are_refused_before_they_are_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "FREE_BYTES", 2**21)
    path = bomb(tmp_path / name)
    assert path.stat().st_size < 10_000
    with pytest.raises(InputError, match=r"unpacks to more than 2 MiB, over 100 times"):
        read_structures(path)
    if name == "a.npz":
        with pytest.raises(ValueError, match="unpacks to more"):
            Fingerprints.load(path)
    if name == "a.json.gz":
        with pytest.raises(ValueError, match="unpacks to more"):
            Hull.load(path)


def test_ordinary_archives_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "FREE_BYTES", 1000)
    text = "".join(f"{i} {i**2}\n" for i in range(10_000)).encode()
    for suffix, pack in ((".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)):
        path = tmp_path / f"table{suffix}"
        path.write_bytes(pack(text))
        check_unpacked_size(path)
        path.write_bytes(pack(text)[:1000])  # damage is for the reader to name
        check_unpacked_size(path)


def test_a_giant_in_an_archive_of_molecules_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "qm9.tar.bz2"
    with tarfile.open(path, "w:bz2") as archive:
        member = tarfile.TarInfo("dsgdb9nsd_000001.xyz")
        member.size = 50 * 2**20
        archive.addfile(member, open("/dev/zero", "rb"))  # noqa: PTH123, SIM115
    with pytest.raises(DatasetError, match="52428800 bytes, too many for a molecule"):
        molecules.qm9(path)
