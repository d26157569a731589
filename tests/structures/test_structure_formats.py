"""xyz, SDF, JSON, tables and arrays as their programs write them; one meaning in all formats."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import time
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pandas as pd
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from cif_texts import NACL_SITES, cif
from mutations import CRYSTALS, write_sdf
from pymatgen.core import Lattice, Molecule, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry
from pymatgen.io.ase import AseAtomsAdaptor
from rdkit import Chem
from rdkit.Chem import AllChem

from adit_plugins.structures.entries import Entry, InputError
from adit_plugins.structures.reading import iter_entries
from adit_plugins.structures.xyz import parse_xyz

LATTICE = 'Lattice="0 2.82 2.82 2.82 0 2.82 2.82 2.82 0"'
NACL = "Na 0 0 0\nCl 2.82 2.82 2.82\n"
CIF = cif(NACL_SITES, name="P 1", operators=("x, y, z",))


def frame(comment: str, rows: str = NACL) -> str:
    return f"{rows.count(chr(10))}\n{comment}\n{rows}"


def of_xyz(text: str) -> Entry:
    (entry,) = parse_xyz(io.StringIO(text), "in.xyz")
    return entry


def read(path: Path) -> list[Entry]:
    return list(iter_entries(path, []))


# --- xyz -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "side",
    [
        'energy=-6.8 stress="0.01 0.01 0.01 0 0 0"',
        'energy=-6.8 virial="0.01 0.01 0.01 0 0 0"',
        'energy=-6.8 stress="1 2 3"',
        'energy="1 2 3"',
        'energy="a b"',
        "energy=-6.8 relax=T",
        "energy=-6.8 adit=yes",
        'energy=-6.8 dipole="1 2" free_energy="1 2" magmom="1 2 3 4"',
        'energy=-6.8 stress="nan 0 0 0 0 0 0 0 0"',
        "energy=-6.8 unclosed={1 2",
    ],
)
def test_side_data_never_spoil_a_sound_geometry(side: str) -> None:
    head = f'{LATTICE} Properties=species:S:1:pos:R:3 pbc="T T T"'
    entry = of_xyz(frame(f"{head} {side}"))
    assert entry.atoms is not None, entry.reason
    assert entry.atoms.get_chemical_formula() == "ClNa"
    np.testing.assert_allclose(entry.atoms.cell[0], [0, 2.82, 2.82])
    results = {} if entry.atoms.calc is None else entry.atoms.calc.results
    assert results.get("energy") in ((None,) if "energy=-6.8" not in side else (-6.8,))
    assert not {"stress", "virial", "free_energy"} & set(results)
    assert not {"relax", "adit"} & set(entry.atoms.info)


def test_a_column_that_cannot_be_read_costs_only_itself() -> None:
    rows = "Na 0 0 0 ******** 1 1\nCl 2.82 2.82 2.82 1 1 1\n"
    head = f"{LATTICE} Properties=species:S:1:pos:R:3:forces:R:3 energy=-6.8"
    entry = of_xyz(frame(head, rows))
    assert entry.atoms is not None
    assert entry.atoms.get_potential_energy() == -6.8
    assert "forces" not in entry.atoms.calc.results


QM9 = """3
gdb 3\t799.5\t437.9
O\t-0.0343604951\t 0.9775395708\t 7.6*^-6\t-0.589706
H\t 0.0647664923\t 0.0205721989\t 0.0015346341\t 0.294853
H\t 0.8717903737\t 1.3007924048\t 0.0006931336\t 0.294853
1671.4222\t3803.6305\t3907.698
O\tO
InChI=1S/H2O/h1H2\tInChI=1S/H2O/h1H2
"""
WATER = "0 0 0\n{} 0.96 0 0\n{} -0.24 0.93 0\n"


@pytest.mark.parametrize(
    "text",
    [
        QM9,
        frame("c", "8 " + WATER.format(1, 1)),
        frame("c", "O1 " + WATER.format("H1", "H2")),
        frame("c", "o " + WATER.format("h", "H")),
        frame("c", "O " + WATER.format("H", "H").replace("0.96", "0.96D+00")),
        frame("c", "O " + WATER.format("H", "H")) + "\n\n",
        frame('Lattice="0 0 0 0 0 0 0 0 0" Properties=species:S:1:pos:R:3',
              "O " + WATER.format("H", "H")),
        frame('Properties=Z:I:1:pos:R:3 pbc="F F F"', "8 " + WATER.format(1, 1)),
    ],
)  # fmt: skip
def test_xyz_of_many_hands_is_water(text: str) -> None:
    entry = of_xyz(text)
    assert entry.kind == "molecule"
    assert entry.atoms is not None, entry.reason
    assert entry.atoms.get_chemical_formula() == "H2O"
    assert not entry.atoms.pbc.any()
    assert entry.atoms.get_distance(0, 1) == pytest.approx(0.96, abs=0.02)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (QM9.replace("InChI=1S/H2O/h1H2\tInChI", "H 0 0 0"), "says 3 atoms and has 6"),
        (frame("c", NACL).replace("2\n", "3\n", 1), "says 3 atoms and has 2"),
        (frame("c", "Xx 0 0 0\n"), "no element"),
        (frame("c", "0 0 0 0\n"), "atomic number 0"),
        (frame("c", "Na 0 0\n"), "columns"),
        (frame("c", "Na 0 0 a\n"), "a coordinate is 'a'"),
        (frame("Properties=pos:R:3", "0 0 0\n"), "dummy atom"),
        ("two\nc\n", "not with a number of atoms"),
    ],
)
def test_damaged_frames_say_why(text: str, words: str) -> None:
    entry = of_xyz(text)
    assert entry.atoms is None
    assert words in entry.reason


# --- charge, isotopes, radicals ------------------------------------------------------------------


def write_all(folder: Path, mol: Chem.Mol, atoms: Atoms, info: str) -> list[Path]:
    """One molecule as SDF, mol, extended xyz and, where they can say it, JSON and CIF."""
    block = Chem.MolToMolBlock(mol)
    symbols = [_symbol(atom) for atom in mol.GetAtoms()]
    places = zip(symbols, atoms.positions, strict=True)
    rows = "".join(f"{symbol} {x} {y} {z}\n" for symbol, (x, y, z) in places)
    charge = Chem.GetFormalCharge(mol)
    sites = [{"species": [{"element": _symbol(atom), "occu": 1}], "xyz": xyz.tolist()}
             for atom, xyz in zip(mol.GetAtoms(), atoms.positions, strict=True)]  # fmt: skip
    texts = {
        "in.sdf": block + "$$$$\n",
        "in.mol": block,
        "in.extxyz": frame(f'Properties=species:S:1:pos:R:3 pbc="F F F" {info}', rows),
        "in.json": json.dumps({"@class": "Molecule", "charge": charge, "sites": sites}),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [folder / name for name in texts]


def _symbol(atom: Chem.Atom) -> str:
    return "D" if atom.GetIsotope() == 2 else str(atom.GetSymbol())


def embedded(smiles: str) -> tuple[Chem.Mol, Atoms]:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    numbers = [atom.GetAtomicNum() for atom in mol.GetAtoms()]
    return mol, Atoms(numbers=numbers, positions=mol.GetConformer().GetPositions())


@pytest.mark.parametrize(
    ("smiles", "info", "words"),
    [
        ("[NH4+]", "charge=1", "charge +1"),
        ("C[O-]", "charge=-1", "charge -1"),
        ("[2H]C([2H])([2H])O", "", "isotopes"),
        ("CO", "", ""),
        ("[CH2]C", "multiplicity=2", ""),  # a radical is found out by its geometry, in every format
        ("[79Br]C", "", ""),  # the commonest isotope is the element
    ],
)
def test_charge_isotopes_and_radicals_mean_the_same_in_every_format(
    smiles: str, info: str, words: str, tmp_path: Path
) -> None:
    mol, atoms = embedded(smiles)
    for path in write_all(tmp_path, mol, atoms, info):
        (entry,) = read(path)
        assert entry.kind == "molecule", path
        assert (entry.atoms is None) == bool(words), (path, entry.reason)
        assert words in entry.reason


def test_a_mass_is_an_isotope_only_if_it_is_not_the_commonest() -> None:
    head = 'Properties=species:S:1:pos:R:3:masses:R:1 pbc="F F F"'
    for mass, fine in ((78.9183, True), (79.904, True), (80.916, False)):
        entry = of_xyz(frame(head, f"Br 0 0 0 {mass}\nH 1.41 0 0 1.0078\n"))
        assert (entry.atoms is not None) == fine, entry.reason


# --- JSON ----------------------------------------------------------------------------------------

STRUCTURES = [AseAtomsAdaptor.get_structure(atoms) for atoms in CRYSTALS[:3]]
DICTS = [structure.as_dict() for structure in STRUCTURES]
FORMULAS = [atoms.get_chemical_formula() for atoms in CRYSTALS[:3]]
ENTRIES = [ComputedStructureEntry(s, -1.0, entry_id=f"e{i}").as_dict()
           for i, s in enumerate(STRUCTURES)]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        (DICTS, ["", "", ""]),
        ({f"m{i}": each for i, each in enumerate(DICTS)}, ["m0", "m1", "m2"]),
        ([{"material_id": f"m{i}", "structure": each} for i, each in enumerate(DICTS)],
         ["m0", "m1", "m2"]),
        (ENTRIES, ["e0", "e1", "e2"]),
        ({"structure": {f"m{i}": each for i, each in enumerate(DICTS)}, "x": {}},
         ["m0", "m1", "m2"]),
        ([{"id": i, "cif": s.to(fmt="cif")} for i, s in enumerate(STRUCTURES)], ["0", "1", "2"]),
        ([s.to(fmt="cif") for s in STRUCTURES], ["", "", ""]),
        ([json.dumps(each) for each in ()] or DICTS, ["", "", ""]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["json", "json.gz", "json.bz2", "jsonl"])
def test_json_in_every_arrangement(
    content: Any, ids: list[str], suffix: str, tmp_path: Path
) -> None:
    if suffix == "jsonl" and isinstance(content, list):
        text = "".join(json.dumps(each) + "\n" for each in content)
    else:
        text = json.dumps(content)
    packers = {"json.gz": gzip.compress, "json.bz2": bz2.compress}
    pack = packers.get(suffix, lambda data: data)
    (tmp_path / f"in.{suffix}").write_bytes(pack(text.encode()))
    entries = read(tmp_path / f"in.{suffix}")
    assert [e.atoms.get_chemical_formula() for e in entries if e.atoms is not None] == FORMULAS
    assert [entry.id for entry in entries] == ids
    assert {entry.kind for entry in entries} <= {"crystal", None}


def test_json_is_read_as_pymatgen_means_it(tmp_path: Path) -> None:
    lattice = Lattice.from_parameters(3, 4, 5, 70, 80, 95)
    structure = Structure(lattice, ["Fe2+", "O2-"], [[0.1, 0.2, 0.3], [1.6, -0.5, 0.4]])
    water = Molecule("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    (tmp_path / "in.json").write_text(json.dumps([structure.as_dict(), water.as_dict()]))
    crystal, mol = (entry.atoms for entry in read(tmp_path / "in.json"))
    assert crystal is not None and mol is not None
    assert AseAtomsAdaptor.get_structure(crystal).matches(
        structure.copy().remove_oxidation_states()
    )
    np.testing.assert_allclose(crystal.positions, structure.cart_coords, atol=1e-9)
    np.testing.assert_allclose(mol.positions, water.cart_coords)
    assert crystal.pbc.all() and not mol.pbc.any()


@pytest.mark.parametrize(
    ("species", "words"),
    [
        ([{"element": "Na", "occu": 0.5}, {"element": "K", "occu": 0.5}], "disordered"),
        ([{"element": "Na", "occu": 0.5}], "disordered"),
        ([{"element": "D", "occu": 1}], "isotopes"),
        ([{"element": "X0+", "occu": 1}], "no element"),
    ],
)
def test_json_of_what_cannot_be_represented(
    species: list[dict[str, Any]], words: str, tmp_path: Path
) -> None:
    content = {"lattice": {"matrix": (np.eye(3) * 4).tolist()},
               "sites": [{"species": species, "abc": [0, 0, 0]}]}  # fmt: skip
    (tmp_path / "in.json").write_text(json.dumps(content))
    (entry,) = read(tmp_path / "in.json")
    assert entry.atoms is None
    assert words in entry.reason


def test_no_class_of_a_file_is_looked_up(tmp_path: Path) -> None:
    evil = {"@module": "subprocess", "@class": "Popen", "args": ["touch", str(tmp_path / "x")]}
    content = {**DICTS[0], "properties": {"adit": {}, "evil": evil}}
    content["sites"] = [{**site, "properties": evil} for site in content["sites"]]
    (tmp_path / "in.json").write_text(json.dumps([content, evil]))
    assert [entry.atoms is not None for entry in read(tmp_path / "in.json")] == [True, False]
    assert not (tmp_path / "x").exists()


# --- tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize("heading", ["cif", "CIF", "structure", "LeMatStructs", "cif_string"])
@pytest.mark.parametrize("form", ["cif", "json", "repr"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_holds_structures_in_any_form(
    heading: str, form: str, separator: str, tmp_path: Path
) -> None:
    cells = {
        "cif": [structure.to(fmt="cif") for structure in STRUCTURES],
        "json": [json.dumps(each) for each in DICTS],
        "repr": [str(each) for each in DICTS],
    }[form]
    buffer = io.StringIO()
    rows = [["Material_ID", heading], *([f"m{i}", cell] for i, cell in enumerate(cells))]
    csv.writer(buffer, delimiter=separator).writerows(rows)
    for name, data in (("in.csv", buffer.getvalue().encode()),
                       ("in.csv.gz", gzip.compress(buffer.getvalue().encode()))):  # fmt: skip
        (tmp_path / name).write_bytes(data)
        entries = read(tmp_path / name)
        assert [e.atoms.get_chemical_formula() for e in entries if e.atoms] == FORMULAS
        assert [entry.id for entry in entries] == ["m0", "m1", "m2"]


def test_parquet_and_columns_of_numbers(tmp_path: Path) -> None:
    frame_of = {
        "atomic_numbers": [a.numbers.tolist() for a in CRYSTALS[:3]],
        "frac_coords": [a.get_scaled_positions().ravel().tolist() for a in CRYSTALS[:3]],
        **{key: [a.cell.cellpar()[i] for a in CRYSTALS[:3]]
           for i, key in enumerate(("a", "b", "c", "alpha", "beta", "gamma"))},
        "energy_above_hull": [0.0, None, 0.1],
    }  # fmt: skip
    pd.DataFrame(frame_of).to_parquet(tmp_path / "in.parquet")
    pd.DataFrame(frame_of).to_csv(tmp_path / "in.csv")
    for name in ("in.parquet", "in.csv"):
        entries = read(tmp_path / name)
        assert [e.atoms.get_chemical_formula() for e in entries if e.atoms] == FORMULAS
        assert float(entries[2].columns["energy_above_hull"]) == 0.1


# --- arrays, and formats of ASE ------------------------------------------------------------------


def arrays() -> dict[str, Any]:
    """What CDVAE and DiffCSP save of two crystals: a sample, then the atoms of all."""
    return {
        "frac_coords": torch.tensor([[[0, 0, 0], [0.5] * 3, [0, 0, 0]]], dtype=torch.float32),
        "num_atoms": torch.tensor([[2, 1]]),
        "atom_types": torch.tensor([[55, 17, 29]]),
        "lengths": torch.tensor([[[4.1] * 3, [2.5] * 3]], dtype=torch.float64),
        "angles": torch.tensor([[[90.0] * 3, [60.0] * 3]]),
    }


class Settings:
    """Stands for the settings that DiffCSP saves beside its arrays."""


def test_the_torch_file_of_cdvae_and_diffcsp_is_read_and_not_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "eval_gen.pt"
    torch.save({**arrays(), "eval_setting": Settings(), "time": 1.5}, path)
    np.savez(tmp_path / "in.npz", **{key: value.numpy() for key, value in arrays().items()})
    for each in (path, tmp_path / "in.npz"):
        entries = read(each)
        assert [e.atoms.get_chemical_formula() for e in entries if e.atoms] == ["ClCs", "Cu"]
        first = entries[0].atoms
        assert first is not None
        np.testing.assert_allclose(first.cell.lengths(), 4.1)
    torch.save({"state_dict": {"w": torch.zeros(2)}}, tmp_path / "model.pt")
    with pytest.raises(InputError, match="it has state_dict"):
        read(tmp_path / "model.pt")


POSCAR = """{title}
1.0
5.64 0 0
0 5.64 0
0 0 5.64
{symbols}4 4
Direct
0 0 0{a}
0 .5 .5{a}
.5 0 .5{a}
.5 .5 0{a}
.5 .5 .5{b}
.5 0 0{b}
0 .5 0{b}
0 0 .5{b}
"""


@pytest.mark.parametrize(
    "text",
    [
        POSCAR.format(title="a run", symbols="Na Cl\n", a="", b=""),
        POSCAR.format(title="Na Cl", symbols="", a="", b=""),
        POSCAR.format(title="a run", symbols="Na_pv Cl\n", a="", b=""),
        POSCAR.format(title="a run", symbols="Na/9c1abc Cl/87dd2\n", a="", b=""),
        POSCAR.format(title="a run", symbols="", a=" Na", b=" Cl"),
        POSCAR.format(title="\ufeffa run", symbols="Na Cl\n", a="", b="").replace("\n", "\r\n"),
    ],
)
@pytest.mark.parametrize("name", ["POSCAR", "POSCAR_12", "a.VASP", "b.poscar", "x-CONTCAR.gz"])
def test_poscars_of_many_hands(text: str, name: str, tmp_path: Path) -> None:
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    for source in (tmp_path / name, tmp_path):
        (entry,) = read(source)
        assert entry.atoms is not None, entry.reason
        assert entry.atoms.get_chemical_formula() == "Cl4Na4"


@pytest.mark.parametrize("name", ["POSCAR", "XDATCAR"])
def test_a_number_of_atoms_cannot_fill_the_memory(name: str, tmp_path: Path) -> None:
    text = POSCAR.format(title="a run", symbols="Na Cl\n", a="", b="")
    (tmp_path / name).write_text(text.replace("4 4", "4 999999999"))
    start = time.process_time()
    with pytest.raises(InputError, match="says it has 1000000003 atoms, too many"):
        read(tmp_path / name)
    assert time.process_time() - start < 1


def test_folders_of_edm_and_adit_are_molecules(tmp_path: Path) -> None:
    names = ["CH4", "C2H6", "CH3OH"]
    for folder, kind in (("edm", "txt"), ("adit", "pdb"), ("sdf", "sdf")):
        (tmp_path / folder).mkdir()
        for i, name in enumerate(names):
            path = tmp_path / folder / f"molecule_{i:03d}.{kind}"
            if kind == "sdf":
                write_sdf(path, [molecule(name)])
            else:
                ase.io.write(path, molecule(name), format={"txt": "xyz"}.get(kind))
        (tmp_path / folder / "readme.txt").write_text("what this is\n")
        found = [e.atoms for e in read(tmp_path / folder)]
        assert [len(atoms) for atoms in found if atoms is not None] == [5, 8, 6]
        assert not any(atoms.pbc.any() for atoms in found if atoms is not None)


def test_a_data_base_gives_its_ids(tmp_path: Path) -> None:
    from ase.db import connect

    with connect(tmp_path / "in.db") as database:
        database.write(bulk("Cu"), material_id="mp-30")
    (entry,) = read(tmp_path / "in.db")
    assert entry.id == "mp-30"
