"""The OpenBabel rule is the published one to the letter; checks of molecules end in time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from pymatgen.core import Molecule
from rdkit import Chem
from rdkit.rdBase import BlockLogs

from adit_plugins.structures.bonds import openbabel_bonds
from adit_plugins.validity.molecules import (
    MoleculeReport,
    check_molecules,
    openbabel_smiles,
    parts_until_one_fails,
)
from adit_plugins.validity.posebusters_checks import bust_geometry, strain_energy, thresholds


def published_smiles(atoms: Atoms, path: Path) -> str | None:
    """arXiv:2503.03965's evaluation: pymatgen writes a PDB file by OpenBabel, RDKit reads it."""
    Molecule(atoms.numbers, atoms.positions).to(str(path), fmt="pdb")
    with BlockLogs():
        mol = Chem.MolFromPDBFile(str(path), removeHs=False)
        if mol is None:
            return None
        fragments = Chem.GetMolFrags(mol, asMols=True)
        return Chem.MolToSmiles(max(fragments, key=lambda each: each.GetNumAtoms()))


def our_smiles(atoms: Atoms) -> str | None:
    try:
        mol = openbabel_bonds(list(atoms.symbols), atoms.positions)
    except ValueError:
        return None
    fragments = Chem.GetMolFrags(mol, asMols=True)
    return Chem.MolToSmiles(max(fragments, key=lambda each: each.GetNumAtoms()))


def test_openbabel_rule_is_the_published_one(tmp_path: Path) -> None:
    pytest.importorskip("openbabel")
    rng = np.random.default_rng(0)
    names = ["CH3NO2", "C6H6", "CH3CONH2", "C5H5N", "HCOOCH3", "bicyclobutane", "C2H6NH", "CH3CN"]
    answers = []
    for name in names * 4:
        atoms = molecule(name)
        atoms.positions += rng.normal(size=(len(atoms), 3)) * rng.choice([0.0, 0.1, 0.2, 0.3])
        expected = published_smiles(atoms, tmp_path / "molecule.pdb")
        assert our_smiles(atoms) == expected
        answers.append(expected is not None)
    assert 0.3 < np.mean(answers) < 1  # both answers occur, or the comparison means nothing


def test_openbabel_rule_wants_the_rest_to_be_sound_too() -> None:
    pytest.importorskip("openbabel")
    unsound = molecule("ClF3")  # RDKit takes no chlorine with three bonds
    unsound.translate([8, 0, 0])
    assert openbabel_smiles(molecule("CH3CH2OH") + unsound) is None


def test_reports_come_as_they_are_finished() -> None:
    seen: list[tuple[int, MoleculeReport]] = []
    molecules = [molecule("CH4"), Atoms("X"), molecule("CH3")]
    reports = check_molecules(
        molecules, posebusters=False, on_result=lambda *found: seen.append(found)
    )
    assert seen == list(enumerate(reports))
    assert [report.strict_valid for report in reports] == [True, False, False]
    assert [bool(report.reason) for report in reports] == [False, True, True]


def test_a_molecule_that_takes_too_long_fails_what_it_had_not_reached() -> None:
    (report,) = check_molecules([molecule("CH3CH2OH")], workers=1, time_limit=1e-4)
    assert not (report.posebusters or {}).get("internal_energy", False)
    assert not report.strict_valid or report.posebusters is not None


def test_strain_grows_with_the_distortion() -> None:
    strains = []
    for factor in (1.0, 1.1, 1.2):
        atoms = molecule("C2H6")
        atoms.positions *= factor
        strains.append(strain_energy(openbabel_bonds(list(atoms.symbols), atoms.positions)))
    assert strains == sorted(strains, key=lambda each: each or 0.0)
    assert strains[0] is not None
    assert 0 <= strains[0] < 0.2  # eV
    assert strains[2] is not None
    assert strains[2] > 1


def test_posebusters_runs_with_its_own_thresholds() -> None:
    limits = thresholds()
    assert limits["Geometry: threshold_clash"] == 0.3
    assert limits["Energy ratio: threshold_energy_ratio"] == 100
    assert limits["Energy ratio: ensemble_number_conformations"] == 50
    butane = molecule("trans-butane")
    checks = bust_geometry(openbabel_bonds(list(butane.symbols), butane.positions))
    assert all(checks.verdicts.values())
    assert checks.not_done == []


def test_the_energy_is_left_out_where_another_check_fails() -> None:
    squeezed = molecule("CH3CH2OH")
    squeezed.positions *= 0.7
    reports = [list(parts_until_one_fails(each)) for each in (molecule("CH3CH2OH"), squeezed)]
    assert "internal_energy" in (reports[0][-1].posebusters or {})
    checks = reports[1][-1].posebusters or {}
    assert "internal_energy" not in checks and not all(checks.values())
    whole = check_molecules(squeezed, workers=0)[0].posebusters or {}
    assert {name: whole[name] for name in checks} == checks
