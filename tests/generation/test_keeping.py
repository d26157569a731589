"""What `adit generate` keeps: the rules of validity that one can choose among."""

from __future__ import annotations

import pytest
from ase import Atoms
from ase.build import bulk, molecule
from rdkit import Chem
from rdkit.Chem import AllChem

from adit_plugins.generation import Selection
from adit_plugins.generation.keeping import check_rules
from adit_plugins.structures.samples import Sample, to_sample


def drawn(smiles: str) -> Sample:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=1) == 0
    AllChem.UFFOptimizeMolecule(mol)
    return to_sample(mol)


@pytest.mark.parametrize(
    ("smiles", "broken"),
    [
        ("CCO", set()),
        ("C[N+](=O)[O-]", {"uncharged"}),  # nitromethane, charges side by side
        ("C[P+](C)(C)[CH2-]", set()),  # an ylide that is drawn without charges
        ("[C-]#[N+]C", {"uncharged", "no-ylides"}),
    ],
)
def test_rules_of_molecules_are_asked_one_by_one(smiles: str, broken: set[str]) -> None:
    for rule in ("no-ylides", "uncharged"):
        selection = Selection(rules=(rule,))
        kept = list(selection.of([drawn(smiles)]))
        assert bool(kept) == (rule not in broken), rule
        assert dict(selection.thrown) == ({f"by {rule}": 1} if rule in broken else {})


def test_posebusters_rejects_what_is_valid_by_its_bonds_and_strained() -> None:
    good = molecule("CH3CH2OH")
    strained = good.copy()
    strained.positions *= 1.2  # the bonds are found still; relaxed conformers lie far below
    samples = [Sample.from_ase(atoms) for atoms in (strained, good)]
    assert len(list(Selection(valid_only=True).of(samples))) == 2
    selection = Selection(rules=("posebusters",), unique=True)
    assert list(selection.of(samples)) == samples[1:]
    assert selection.describe() == {"made": 2, "kept": 1, "by posebusters": 1}


def test_crystals_can_be_asked_for_balanced_charges() -> None:
    samples = [Sample.from_ase(bulk("NaCl", "rocksalt", a=a)) for a in (5.6, 0.9)]
    odd = Atoms(
        "NaCl2", cell=[4, 4, 4], pbc=True, scaled_positions=[[0] * 3, [0.5] * 3, [0, 0.5, 0]]
    )
    samples.append(Sample.from_ase(odd))
    selection = Selection(rules=("charges",))
    assert list(selection.of(samples)) == samples[:1]
    assert selection.thrown == {"invalid": 1, "by charges": 1}


def test_an_unknown_rule_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no rule 'strain' for molecules.*strict, no-ylides"):
        check_rules(["strain"], "molecule")
    assert check_rules(["posebusters", "strict"], "molecule") == ("strict", "posebusters")
