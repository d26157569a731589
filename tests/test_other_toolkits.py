"""ASE, pymatgen, RDKit, SMACT and PoseBusters, each by its own door, where only the wheel is.

Each script imports nothing of ours that its reader would not have to import; commands are theirs.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from fresh_environment import run

ASE = """
import sys
import ase.db, ase.io
from ase.io.trajectory import Trajectory

assert not {"torch", "pymatgen", "adit_model"} & sys.modules.keys()
frames = list(ase.io.iread("joint.adit", index=slice(0, 3)))
assert [atoms.info["adit"]["index"] for atoms in frames] == [0, 1, 2]
assert frames[0].pbc.all()
again = ase.io.read("joint.adit@2:3")[0]
assert (again.numbers == frames[2].numbers).all()
(molecule,) = ase.io.read("joint.adit@0:1", kind="molecule", seed=3, num_steps=2)
settings = molecule.info["adit"]
assert not molecule.pbc.any()
assert [settings[name] for name in ("seed", "num_steps")] == [3, 2]
assert len(ase.io.read("joint.adit", ":", num=5)) == 5

# A composition on request goes through ASE as every other setting does.
for atoms in ase.io.iread("joint.adit", index=slice(0, 4), elements=["Li", "O"]):
    assert set(atoms.symbols) <= {"Li", "O"}
(salt,) = ase.io.read("joint.adit@0:1", formula="NaCl")
assert salt.symbols.formula.reduce()[0].format("hill") == "ClNa"
assert not {"O", "F"} & set(ase.io.read("joint.adit@5", exclude_elements=["O", "F"]).symbols)
for atoms in ase.io.iread("joint.adit", index=slice(0, 4), chemical_system="C-Li"):
    assert set(atoms.symbols) == {"C", "Li"} or len(atoms) < 2

from adit_plugins import stream

with Trajectory("three.traj", "w") as trajectory, ase.db.connect("three.db") as database:
    for atoms in stream("joint.adit", 3):
        ase.io.write("three.extxyz", atoms, append=True)
        trajectory.write(atoms)
        database.write(atoms, seed=atoms.info["adit"]["seed"])
assert database.count(seed=0) == len(ase.io.read("three.traj", ":")) == 3
assert ase.io.read("three.extxyz", ":")[2].info["adit"]["id"] == "tiny/0/2"

from ase.calculators.calculator import get_calculator_class

copper = ase.Atoms("Cu", cell=[[0, 1.8, 1.8], [1.8, 0, 1.8], [1.8, 1.8, 0]], pbc=True)
copper.calc = get_calculator_class("adit-chgnet")()
assert -6 < copper.get_potential_energy() < -2  # -4.1 eV in the Materials Project
ase.io.write("copper.json", copper)
"""

PYMATGEN = """
import json
from monty.json import MontyDecoder
from pymatgen.alchemy.materials import TransformedStructure
from pymatgen.alchemy.transmuters import StandardTransmuter
from pymatgen.core import Lattice, Molecule, Structure

crystals = [Structure.from_file("samples.aditjson", index=i) for i in range(2)]
assert [each.properties["adit"]["id"] for each in crystals] == ["tiny/0/0", "tiny/0/1"]
crystals[0].to("again.aditjson")
assert Structure.from_file("again.aditjson") == crystals[0]
assert Molecule.from_file("molecules.aditjson").properties["adit"]["kind"] == "molecule"

# The saved generator is MSON: monty makes it again from its JSON, import and all.
generator = json.loads(open("joint.adit").read(), cls=MontyDecoder)
assert type(generator).__name__ == "ADiTGenerator"
assert generator.generate(1)[0].properties["adit"]["id"] == "tiny/0/0"
assert json.loads(generator.to_json(), cls=MontyDecoder) == generator

from adit_plugins import symmetrized
from adit_plugins.hosts.filters import (
    LematFilter, NovelFilter, SmactFilter, StructureValidFilter, UniqueFilter,
)
from adit_plugins.hosts.transformations import ADiTVariationTransformation

salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0] * 3, [0.5] * 3])
salt = salt.get_primitive_structure()
vary = ADiTVariationTransformation(strength=0.4, num=5, generator=generator)
transmuter = StandardTransmuter([TransformedStructure(salt)], [vary], extend_collection=4)
assert len(transmuter) == 4
assert all(each.final_structure.properties["adit"]["strength"] == 0.4 for each in transmuter)
ranked = vary.apply_transformation(salt, return_ranked_list=3)
assert [each["structure_valid"] for each in ranked] == sorted(
    [each["structure_valid"] for each in ranked], reverse=True
)

wrong = Structure(Lattice.cubic(8.0), ["Na", "Na", "Cl"], [[0] * 3, [0.3] * 3, [0.6] * 3])
crushed = Structure(Lattice.cubic(2.0), ["Na", "Cl"], [[0] * 3, [0.1, 0, 0]])
exotic = salt.copy()
exotic.replace_species({"Na": "Fr", "Cl": "At"})
transmuter = StandardTransmuter(
    [TransformedStructure(each) for each in (salt, salt * (1, 1, 2), exotic, crushed, wrong)]
)
for each, left in (
    (StructureValidFilter(), 4), (SmactFilter(), 3), (UniqueFilter(), 2), (NovelFilter(), 1),
    (LematFilter(), 1),
):
    transmuter.apply_filter(each)
    assert len(transmuter) == left, each
assert transmuter.transformed_structures[0].final_structure.formula == "Fr1 At1"

noisy = salt.copy()
noisy.perturb(0.02, seed=0)
assert symmetrized(noisy, tolerance=0.1).get_space_group_info(1e-5)[1] == 225
"""

RDKIT = """
import json
from rdkit import Chem

found = list(Chem.SDMolSupplier("molecules.sdf", removeHs=False))
assert len(found) > 2 and None not in found
for mol in found:
    assert mol.GetNumConformers() == 1 and mol.GetNumBonds() >= mol.GetNumAtoms() - 2
    assert json.loads(mol.GetProp("adit"))["kind"] == "molecule"

from adit_plugins import to_batch, to_sample

sample = to_sample(found[0])
assert Chem.MolToSmiles(sample.to_rdkit()) == Chem.MolToSmiles(found[0])
assert to_batch(found).atomic_numbers.shape[0] == len(found)
"""


@pytest.fixture(scope="module")
def place(installed: Path, tiny_checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what users bring: a saved generator, and files of samples."""
    folder = tmp_path_factory.mktemp("toolkits")
    run(installed / "python", "-c",
        "from adit_plugins import ADiTGenerator\n"
        f"ADiTGenerator(checkpoint={tiny_checkpoint!r}, num_steps=4, batch_size=4)"
        ".save('joint.adit')", cwd=folder)  # fmt: skip
    return folder


def adit_generate(installed: Path, place: Path, *options: str) -> None:
    run(installed / "adit", "generate", *options, cwd=place)


def test_ase_reads_streams_writes_and_calculates(installed: Path, place: Path) -> None:
    run(installed / "python", "-c", ASE, cwd=place)


def test_ases_own_commands(installed: Path, place: Path) -> None:
    ase = (installed / "python", "-m", "ase")
    run(*ase, "convert", "-n", "0:2", "joint.adit", "two.extxyz", cwd=place)
    assert "tiny/0/1" in (place / "two.extxyz").read_text()
    rows = run(*ase, "gui", "--terminal", "--graph", "i, A.volume", "joint.adit@0:2", cwd=place)
    assert [line.split()[0] for line in rows.splitlines()] == ["0.0", "1.0"]
    (place / "cu.xyz").write_text(
        '1\nLattice="0 1.8 1.8 1.8 0 1.8 1.8 1.8 0" Properties=species:S:1:pos:R:3\nCu 0 0 0\n'
    )
    run(*ase, "run", "adit-chgnet", "cu.xyz", "-o", "copper.db", cwd=place)
    assert "-4." in run(*ase, "db", "copper.db", "-c", "energy", cwd=place)


def test_pymatgen_reads_varies_and_filters(
    installed: Path, place: Path, tiny_checkpoint: str
) -> None:
    common = ("--checkpoint", tiny_checkpoint, "--num", "2", "--num-steps", "4", "--out")
    adit_generate(installed, place, *common, "samples.aditjson")
    adit_generate(installed, place, "--kind", "molecule", *common, "molecules.aditjson")
    run(installed / "python", "-c", PYMATGEN, cwd=place)


def test_rdkit_and_posebusters_take_the_molecules(installed: Path, place: Path) -> None:
    adit_generate(installed, place, "--kind", "molecule", "--num", "8", "--num-steps", "20",
                  "--out", "molecules.sdf")  # fmt: skip
    run(installed / "python", "-c", RDKIT, cwd=place)
    bust = "import sys; sys.argv[0] = 'bust'; from posebusters.cli import main; main()"
    report = run(installed / "python", "-c", bust, "molecules.sdf", "--outfmt", "csv", cwd=place)
    header, *rows = [line for line in report.splitlines() if "," in line]
    assert "bond_lengths" in header and "sanitization" in header
    assert len(rows) > 2
