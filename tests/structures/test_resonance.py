"""A molecule has one key however its charges are drawn, and closed shells are valid."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase import Atoms
from ase.build import molecule
from ase.collections import g2
from rdkit import Chem
from rdkit.Chem import AllChem

from adit_plugins.matching.fingerprints import Fingerprints
from adit_plugins.metrics.molecules import evaluate_molecules
from adit_plugins.structures.bonds import canonical_smiles
from adit_plugins.validity.molecules import examine

# Two drawings of one molecule each; InChI, which normalises too, agrees.
PAIRS = [
    ("C[S+](C)[O-]", "CS(C)=O"), ("O=[S+][O-]", "O=S=O"), ("C[S+2]([O-])([O-])C", "CS(C)(=O)=O"),
    ("[S+]#C[S-]", "S=C=S"), ("C[P+](C)(C)[O-]", "CP(C)(C)=O"), ("CN(=O)=O", "C[N+](=O)[O-]"),
    ("C[N-][N+]#N", "CN=[N+]=[N-]"), ("CN=N#N", "CN=[N+]=[N-]"), ("[O-][N+]#N", "[N-]=[N+]=O"),
    ("[CH2-][N+]#N", "C=[N+]=[N-]"),
]  # fmt: skip
# Closed shells without a conventional drawing: three bonds on chlorine, and two carbenes.
NOT_DRAWN = {"ClF3", "CH2_s1A1d", "SiH2_s1A1d"}
# Triplets of which the positions say nothing; O2's and SO's were never told from closed shells.
TRIPLETS = {"O2", "SO", "S2"}


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_two_drawings_have_one_key(one: str, other: str) -> None:
    mols = [Chem.MolFromSmiles(each) for each in (one, other)]
    assert len({canonical_smiles(mol) for mol in mols if mol is not None}) == 1
    assert canonical_smiles(Chem.MolFromSmiles(other)) == Chem.CanonSmiles(other)
    inchis = {Chem.MolToInchi(mol) for mol in mols if mol is not None}
    assert len(inchis) == 1


def test_different_molecules_keep_different_keys() -> None:
    keys = [canonical_smiles(Chem.MolFromSmiles(each)) for _, each in PAIRS]
    assert len(set(keys)) == len(set(PAIRS)) - 1  # methyl azide is there twice
    assert canonical_smiles(Chem.MolFromSmiles("C[N+](C)(C)[O-]")) == "C[N+](C)(C)[O-]"


def of_smiles(smiles: str) -> Atoms:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    AllChem.MMFFOptimizeMolecule(mol)
    numbers = [atom.GetAtomicNum() for atom in mol.GetAtoms()]
    return Atoms(numbers=numbers, positions=mol.GetConformer().GetPositions())


@pytest.mark.parametrize(
    "smiles",
    ["CS(C)=O", "O=S=O", "[N-]=[N+]=Nc1ccccc1", "CCN=[N+]=[N-]", "[C-]#[N+]c1ccccc1",
     "O=[N+]([O-])c1ccccc1", "[O-][n+]1ccccc1", "CS(=O)(=O)c1ccccc1", "O=P(O)(O)c1ccccc1"],
)  # fmt: skip
def test_a_geometry_gives_the_smiles_of_its_molecule(smiles: str) -> None:
    report, _ = examine(of_smiles(smiles))
    assert report.strict_valid, report.reason
    assert report.smiles == Chem.CanonSmiles(smiles)


@pytest.mark.parametrize("smiles", ["[NH3+]CC(=O)[O-]", "[CH2]C[CH2]", "[CH3]"])
def test_charges_far_apart_and_radicals_stay_invalid(smiles: str) -> None:
    assert not examine(of_smiles(smiles))[0].strict_valid


def test_closed_shells_of_g2_are_valid_and_open_shells_are_not() -> None:
    wrong = set()
    for name in g2.names:
        atoms = molecule(name)
        if len(atoms) > 1:
            closed = not atoms.get_initial_magnetic_moments().any()
            if examine(atoms)[0].strict_valid != closed:
                wrong.add(name)
    assert wrong == NOT_DRAWN | TRIPLETS


def test_metals_without_valence_rules_are_no_molecules() -> None:
    assert not examine(Atoms("U2", [[0, 0, 0], [0, 0, 2.5]]))[0].strict_valid


def test_a_known_molecule_is_not_novel_however_the_reference_draws_it(tmp_path: Path) -> None:
    found = [of_smiles("CS(C)=O"), molecule("SO2"), molecule("CH3CH2OH")]
    for text in ("CS(C)=O\nO=S=O\nCCO\n", "C[S+](C)[O-]\nO=[S+][O-]\nCCO\n", "\ufeffCS(C)=O\n"):
        (tmp_path / "known.smi").write_text(text, encoding="utf-8")
        metrics = evaluate_molecules(found, tmp_path / "known.smi", fast=True, workers=0)
        novel = [row["novel_strict"] for row in metrics.rows]
        assert sum(novel) == 3 - text.count("\n"), text


def test_fingerprints_are_of_the_normalised_molecule() -> None:
    known = Fingerprints.build([one for one, _ in PAIRS if one not in ("CN(=O)=O", "CN=N#N")])
    for one, other in PAIRS:
        if one not in ("CN(=O)=O", "CN=N#N"):  # RDKit reads no nitrogen with five bonds
            assert known.contains(one)
            assert known.contains(other) or other == "C[N+](=O)[O-]"
