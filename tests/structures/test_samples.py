"""Conversions between Sample, ASE, pymatgen, RDKit and AtomBatch keep what they should."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from numpy.testing import assert_allclose, assert_array_equal
from pymatgen.core import DummySpecies, Lattice, Molecule, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from rdkit import Chem
from rdkit.Chem import AllChem
from scipy.spatial.transform import Rotation

from adit_plugins.structures.bonds import perceive_bonds
from adit_plugins.structures.samples import KINDS, Sample, from_batch, to_batch, to_sample
from adit_plugins.structures.symmetrizing import symmetrized

PROVENANCE = {
    "id": "adit-joint/0/17",
    "checkpoint": "adit-joint",
    "kind": "crystal",
    "seed": 0,
    "index": 17,
    "guidance_scale": 2.0,
    "num_atoms": None,
}


@pytest.fixture
def crystal() -> Sample:
    """A triclinic cell in no special orientation, with atoms outside of it."""
    lattice = Lattice.from_parameters(4.1, 5.2, 6.3, 77, 85, 101).matrix
    lattice = lattice @ Rotation.from_euler("xyz", [0.3, -1.0, 2.0]).as_matrix()
    frac = np.array([[0.0, 0.0, 0.0], [-0.25, 1.5, 0.75], [0.1, 0.2, 0.999]])
    return Sample("crystal", np.array([11, 17, 8]), frac @ lattice, lattice, PROVENANCE)


@pytest.fixture
def ethanol() -> Sample:
    atoms = molecule("CH3CH2OH")
    provenance = PROVENANCE | {"kind": "molecule"}
    return Sample("molecule", atoms.numbers, atoms.positions + 7.0, None, provenance)


def assert_same(a: Sample, b: Sample, tolerance: float = 1e-9) -> None:
    """Equal up to lattice translations of single atoms."""
    assert a.kind == b.kind
    assert a.provenance == b.provenance
    assert_array_equal(a.atomic_numbers, b.atomic_numbers)
    difference = a.positions - b.positions
    if a.lattice is not None:
        assert_array_equal(a.lattice, b.lattice)
        frac = np.linalg.solve(a.lattice.T, difference.T).T
        difference = (frac - frac.round()) @ a.lattice
    assert_allclose(difference, 0.0, atol=tolerance)


def test_ase_round_trip(crystal: Sample, ethanol: Sample) -> None:
    for sample in (crystal, ethanol):
        atoms = sample.to_ase()
        assert atoms.pbc.tolist() == [sample.kind == "crystal"] * 3
        assert_same(Sample.from_ase(atoms), sample)


def test_pymatgen_round_trip(crystal: Sample, ethanol: Sample) -> None:
    assert isinstance(crystal.to_pymatgen(), Structure)
    assert isinstance(ethanol.to_pymatgen(), Molecule)
    for sample in (crystal, ethanol):
        assert_same(Sample.from_pymatgen(sample.to_pymatgen()), sample)


def test_pymatgen_dictionary_is_json_and_keeps_provenance(crystal: Sample) -> None:
    text = json.dumps(crystal.to_pymatgen().as_dict())
    assert_same(to_sample(Structure.from_dict(json.loads(text))), crystal)


def test_provenance_survives_the_adaptor_both_ways(crystal: Sample, ethanol: Sample) -> None:
    for sample in (crystal, ethanol):
        atoms = AseAtomsAdaptor.get_atoms(sample.to_pymatgen())
        assert_same(to_sample(atoms), sample)
        back = AseAtomsAdaptor.get_structure if sample.lattice is not None else None
        back = back or AseAtomsAdaptor.get_molecule
        assert_same(to_sample(back(sample.to_ase())), sample)


def test_provenance_survives_extxyz(crystal: Sample, ethanol: Sample) -> None:
    for sample in (crystal, ethanol):
        buffer = io.StringIO()
        ase.io.write(buffer, sample.to_ase(), format="extxyz")
        buffer.seek(0)
        read = to_sample(ase.io.read(buffer, format="extxyz"))
        assert read.provenance == sample.provenance
        assert_allclose(read.positions, sample.positions, atol=1e-7)


def test_rdkit_round_trip(ethanol: Sample) -> None:
    mol = ethanol.to_rdkit()
    assert Chem.MolToSmiles(Chem.RemoveHs(mol)) == "CCO"
    assert_same(Sample.from_rdkit(mol), ethanol)


def test_converted_objects_do_not_share_provenance(crystal: Sample) -> None:
    crystal.to_ase().info["adit"]["id"] = "changed"
    crystal.to_pymatgen().properties["adit"]["id"] = "changed"
    assert crystal.id == "adit-joint/0/17"


def test_frac_coords_lie_in_the_cell(crystal: Sample) -> None:
    frac = crystal.frac_coords
    assert frac is not None
    assert_allclose(frac, [[0, 0, 0], [0.75, 0.5, 0.75], [0.1, 0.2, 0.999]], atol=1e-12)
    tiny = Sample("crystal", np.array([1]), np.full((1, 3), -1e-18), np.eye(3)).frac_coords
    assert tiny is not None
    assert (tiny < 1).all()


def test_flat_cells_stay_convertible() -> None:
    """A poor model makes them, and filters must be able to look at them."""
    flat = np.array([[1.0, 0, 0], [0, 1, 0], [1, 1, 0]])
    sample = Sample("crystal", np.array([3, 3]), np.array([[0.0, 0, 0], [0.5, 0.5, 0]]), flat)
    structure = sample.to_pymatgen()
    assert structure.volume == 0
    assert_allclose(structure[1].coords % 1, [0.5, 0.5, 0], atol=1e-9)


def test_batch_round_trip_of_a_mixed_list(crystal: Sample, ethanol: Sample) -> None:
    forms = [crystal, ethanol.to_rdkit(), crystal.to_ase(), ethanol.to_pymatgen(), bulk("Cu")]
    batch = to_batch(forms)
    assert batch.num_atoms.tolist() == [3, 9, 3, 9, 1]
    assert batch.periodic.tolist() == [True, False, True, False, True]
    assert (batch.atomic_numbers[~batch.mask] == 0).all()
    assert (batch.lattice[1] == 0).all()
    assert (batch.frac_coords[1] == 0).all()
    provenance = [crystal.provenance, ethanol.provenance] * 2 + [{}]
    for before, after in zip(forms, from_batch(batch, provenance), strict=True):
        sample = to_sample(before)
        assert_array_equal(after.atomic_numbers, sample.atomic_numbers)
        assert_allclose(
            after.to_ase().get_all_distances(mic=sample.kind == "crystal"),
            sample.to_ase().get_all_distances(mic=sample.kind == "crystal"),
            atol=1e-5,
        )
        assert after.provenance == sample.provenance
    assert_allclose(batch.positions[1, :9], ethanol.positions, atol=1e-6)


def test_batch_fractional_coordinates_stay_below_one_in_float32() -> None:
    almost = Sample("crystal", np.array([1]), np.full((1, 3), 1 - 1e-12), np.eye(3))
    assert (to_batch([almost]).frac_coords < 1).all()


def test_batch_follows_permutation_rotation_and_translation(crystal: Sample) -> None:
    order = np.array([2, 0, 1])
    rotation = Rotation.from_euler("xyz", [1.0, 0.5, -0.7]).as_matrix()
    assert crystal.lattice is not None
    shift = np.array([0.3, 0.6, 0.9])
    moved = Sample(
        "crystal",
        crystal.atomic_numbers[order],
        (crystal.positions[order] + shift @ crystal.lattice) @ rotation,
        crystal.lattice @ rotation,
    )
    before, after = to_batch([crystal]), to_batch([moved])
    assert_array_equal(after.atomic_numbers[0], before.atomic_numbers[0][order])
    difference = after.frac_coords[0].numpy() - before.frac_coords[0].numpy()[order] - shift
    assert_allclose(difference - difference.round(), 0, atol=1e-5)
    gram = [b.lattice[0].numpy() @ b.lattice[0].numpy().T for b in (before, after)]
    assert_allclose(gram[0], gram[1], rtol=1e-5)


def _disordered() -> Structure:
    return Structure(Lattice.cubic(4), [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]])


def _flat_mol() -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles("CC"))
    AllChem.Compute2DCoords(mol)
    return mol


def _embedded(smiles: str, hydrogens: bool = True) -> Chem.Mol:
    mol = Chem.MolFromSmiles(smiles)
    mol = Chem.AddHs(mol) if hydrogens else mol
    assert AllChem.EmbedMolecule(mol, randomSeed=1) == 0
    return mol


IMPOSSIBLE = {
    "some directions": lambda: fcc111("Cu", (1, 1, 2), vacuum=5),
    "no atoms": lambda: Atoms(cell=[1, 1, 1], pbc=True),
    "no volume": lambda: Atoms("H", pbc=True),
    "not finite": lambda: Atoms("H", positions=[[np.nan, 0, 0]]),
    "dummy atom)": lambda: Atoms("X"),
    "number 100": lambda: Atoms(numbers=[100]),
    "isotopes": lambda: Atoms("H", masses=[2.014]),
    "disordered": _disordered,
    "is a dummy": lambda: Structure(Lattice.cubic(4), [DummySpecies("X")], [[0, 0, 0]]),
    "isotope (D)": lambda: Molecule(["D", "H"], [[0, 0, 0], [0, 0, 0.74]]),
    "charge +1": lambda: Molecule(["H", "H"], [[0, 0, 0], [0, 0, 1]], charge=1),
    "charge -1": lambda: _embedded("CC(=O)[O-]"),
    "no 3D conformer": _flat_mol,
    "implicit hydrogens": lambda: _embedded("CCO", hydrogens=False),
    "isotopes cannot": lambda: _embedded("[13CH4]"),
}


@pytest.mark.parametrize("message", IMPOSSIBLE)
def test_impossible_items_are_named_by_index(message: str) -> None:
    with pytest.raises(ValueError, match=r"^item 1: ") as caught:
        to_batch([bulk("Cu"), IMPOSSIBLE[message]()])
    assert message in str(caught.value)


def test_numbers_that_are_not_whole_are_refused() -> None:
    with pytest.raises(ValueError, match=r"whole numbers.*1\.5"):
        Sample("molecule", [1.5], [[0, 0, 0]])  # type: ignore[arg-type]


@pytest.mark.parametrize("foreign", [5, True, "yes", "[1]", [1], {"id": [1]}, {"seed": "a"}, None])
def test_a_key_of_somebody_else_is_no_provenance(foreign: Any) -> None:
    atoms = Atoms("H")
    atoms.info["adit"] = foreign
    assert Sample.from_ase(atoms).provenance == {}
    structure = Structure(Lattice.cubic(4), ["Po"], [[0, 0, 0]], properties={"adit": foreign})
    assert Sample.from_pymatgen(structure).provenance == {}
    assert "space_group" in symmetrized(structure).properties["adit"]


def test_unknown_types_and_empty_lists_are_refused() -> None:
    with pytest.raises(TypeError, match="item 0: cannot convert 'str'"):
        to_batch(["Cu"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="empty"):
        to_batch([])
    with pytest.raises(ValueError, match="2 provenances for 1 structures"):
        from_batch(to_batch([bulk("Cu")]), [{}, {}])


def test_oxidation_states_are_left_behind() -> None:
    structure = Structure(Lattice.cubic(4), ["Na+", "Cl-"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert to_sample(structure).atomic_numbers.tolist() == [11, 17]


def test_kinds_are_those_of_the_network() -> None:
    from adit_model.config import KINDS as MODEL_KINDS

    assert KINDS == MODEL_KINDS


def test_bonds_do_not_depend_on_pose_or_order() -> None:
    mol = _embedded("CC(=O)Oc1ccccc1C(=O)O")
    numbers = np.array([a.GetAtomicNum() for a in mol.GetAtoms()])
    positions = mol.GetConformer().GetPositions()
    rng = np.random.default_rng(0)
    for rotation in Rotation.random(3, rng=rng).as_matrix():
        order = rng.permutation(len(numbers))
        found = perceive_bonds(numbers[order], positions[order] @ rotation + 3.0)
        assert Chem.MolToSmiles(Chem.RemoveHs(found)) == "CC(=O)Oc1ccccc1C(=O)O"
        assert [a.GetAtomicNum() for a in found.GetAtoms()] == numbers[order].tolist()


def test_chirality_comes_from_the_geometry() -> None:
    mol = _embedded("C[C@H](N)C(=O)O")
    numbers = [a.GetAtomicNum() for a in mol.GetAtoms()]
    positions = mol.GetConformer().GetPositions()
    mirrored = perceive_bonds(numbers, positions * [1, 1, -1])
    assert Chem.MolToSmiles(Chem.RemoveHs(perceive_bonds(numbers, positions))) == "C[C@H](N)C(=O)O"
    assert Chem.MolToSmiles(Chem.RemoveHs(mirrored)) == "C[C@@H](N)C(=O)O"


def test_bonds_across_strained_rings_are_not_invented() -> None:
    # In bicyclo[1.1.1]pentane the bridgeheads are 1.87 angstrom apart; the usual rule joins them.
    mol = _embedded("C1C2CC1C2")
    found = perceive_bonds(
        [a.GetAtomicNum() for a in mol.GetAtoms()], mol.GetConformer().GetPositions()
    )
    assert found.GetNumBonds() == mol.GetNumBonds()


@pytest.mark.parametrize("numbers", [[16] * 40, [7] * 60])
def test_bond_search_is_bounded(numbers: list[int]) -> None:
    """A chain of N or S atoms has 2**n valence assignments, none of them neutral."""
    positions = np.arange(len(numbers))[:, None] * np.array([[2.0 if 16 in numbers else 1.4, 0, 0]])
    began = time.monotonic()
    with pytest.raises(ValueError, match="no bond assignment fits"):
        perceive_bonds(numbers, positions)
    assert time.monotonic() - began < 20


def test_geometries_without_bonds_are_refused(crystal: Sample) -> None:
    with pytest.raises(ValueError, match=r"two atoms are 0\.10 angstrom apart"):
        perceive_bonds([1, 1], [[0, 0, 0], [0, 0, 0.1]])
    with pytest.raises(ValueError, match="no bond assignment fits"):
        perceive_bonds([6, 1], [[0, 0, 0], [0, 0, 1.1]])
    with pytest.raises(ValueError, match="not finite"):
        perceive_bonds([1, 1], [[0, 0, 0], [0, 0, np.nan]])
    with pytest.raises(ValueError, match="crystal has no RDKit form"):
        crystal.to_rdkit()


def test_importing_the_package_imports_no_torch() -> None:
    code = (
        "import sys, adit_plugins; assert 'ase' not in sys.modules; "
        "adit_plugins.Sample, adit_plugins.ADiTGenerator, adit_plugins.write_samples; "
        "assert 'torch' not in sys.modules; "
        "assert set(adit_plugins.__all__) <= set(dir(adit_plugins))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
