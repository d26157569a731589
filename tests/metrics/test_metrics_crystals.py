"""Crystals get the verdicts a person would give, and no entry is lost on the way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from mutations import CRYSTALS, damaged
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from smact.screening import smact_validity

from adit_plugins.hull.table import Hull, element_references
from adit_plugins.matching.fingerprints import Fingerprints
from adit_plugins.matching.matcher import find_duplicates, is_match
from adit_plugins.metrics.crystals import CrystalMetrics, evaluate_crystals, judge_crystal
from adit_plugins.metrics.reconstruction import add_reconstruction
from adit_plugins.metrics.stability import add_stability
from adit_plugins.relax.results import RelaxResult, finished
from adit_plugins.structures.samples import Sample
from adit_plugins.validity.crystals import is_composition_valid
from adit_plugins.validity.lemat import check_lemat

NACL = bulk("NaCl", "rocksalt", 5.64)


def structure(atoms: Atoms) -> Structure:
    found = AseAtomsAdaptor.get_structure(atoms)
    assert isinstance(found, Structure)
    return found


def counts(metrics: CrystalMetrics) -> dict[tuple[str, str], tuple[int, int]]:
    return {(r.name, r.of): (r.numerator, r.denominator) for r in metrics.rates}


def variants(atoms: Atoms) -> list[Atoms]:
    """Doubled, rotated, translated and in another order."""
    rotated, moved = atoms.copy(), atoms.copy()
    rotated.rotate(33, (1, 2, 3), rotate_cell=True)
    moved.positions += [0.7, 0.3, 0.2]
    moved.wrap()
    return [atoms.repeat((2, 1, 1)), rotated, moved, atoms[::-1]]


def test_a_strangers_set_gets_the_verdicts_of_a_person() -> None:
    collision = NACL.copy()
    collision.positions[1] = collision.positions[0] + [0.3, 0, 0]
    unbalanced = Atoms("NaCl2", cell=[5, 5, 5], pbc=True,
                       scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0, 0]])  # fmt: skip
    thin = Atoms("Fe", cell=[0.3, 4, 4], pbc=True)
    too_many = bulk("Cu", "fcc", 3.6, cubic=True).repeat(9)
    crystals = [NACL, CRYSTALS[1], *variants(NACL), collision, unbalanced, thin, too_many, None]
    crystals.append(molecule("H2O"))
    reasons = [None] * len(crystals)
    reasons[-2] = "torn in two"  # type: ignore[call-overload]
    metrics = evaluate_crystals(crystals, reasons=reasons, workers=0)
    found = counts(metrics)
    assert found["readable", "given"] == (9, 12)
    assert found["structurally valid", "given"] == (7, 12)
    assert found["composition valid", "given"] == (8, 12)
    assert found["valid", "given"] == (6, 12)
    assert found["unique among valid", "valid"] == (2, 6)
    assert [row["duplicate_of"] for row in metrics.rows[:6]] == [None, None, 0, 0, 0, 0]
    reasons_given = [row["reason"] for row in metrics.rows]
    assert all(bool(r) != row["valid"] for r, row in zip(reasons_given, metrics.rows, strict=True))
    assert "closer than 0.5" in reasons_given[6]
    assert "charges" in reasons_given[7]
    assert "2916 atoms" in reasons_given[9]
    assert reasons_given[10:] == ["torn in two", "it is a molecule (not periodic)"]
    assert metrics.rows[0]["space_group"] == 225
    assert metrics.rows[0]["density"] == pytest.approx(2.16, abs=0.02)


def test_processes_give_what_one_process_gives() -> None:
    crystals = [damaged(atoms, 0.05, seed) for seed in range(8) for atoms in CRYSTALS]
    alone = evaluate_crystals(crystals, workers=0)
    together = evaluate_crystals(crystals, workers=2)
    assert together.rows == alone.rows
    assert together.rates == alone.rates
    assert together.values == alone.values


def test_buckets_and_reduction_change_no_answer() -> None:
    """Every pair through StructureMatcher, unreduced, gives the same."""
    crystals = [structure(atoms) for atoms in CRYSTALS[:6]]
    crystals += [structure(each) for atoms in CRYSTALS[:4] for each in variants(atoms)]
    crystals += [structure(damaged(CRYSTALS[4], scale, 1)) for scale in (0.1, 0.3, 0.8)]
    matcher = StructureMatcher(stol=0.5, angle_tol=10, ltol=0.3)
    expected: list[int | None] = []
    for i, crystal in enumerate(crystals):
        first = (j for j in range(i) if expected[j] is None and matcher.fit(crystals[j], crystal))
        expected.append(next(first, None))
    assert find_duplicates(crystals) == expected
    assert expected.count(None) < len(crystals) / 2


def test_novelty_against_structures_and_in_both_settings(tmp_path: Path) -> None:
    stretched = Atoms("NaCl", cell=[3.3, 3.3, 3.95], pbc=True,
                      scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]])  # fmt: skip
    cubic = bulk("NaCl", "cesiumchloride", 3.5)
    ase.io.write(tmp_path / "known.extxyz", [cubic, CRYSTALS[1]])
    metrics = evaluate_crystals([stretched, CRYSTALS[3]], tmp_path / "known.extxyz", workers=0)
    assert [row["novel"] for row in metrics.rows] == [False, True]
    assert [row["novel_lemat"] for row in metrics.rows] == [True, True]
    assert "known.extxyz (2 crystals) by StructureMatcher" in metrics.notes[0]
    assert is_match(structure(stretched), structure(cubic))
    assert not is_match(structure(stretched), structure(cubic), ltol=0.1)


def test_references_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No reference 'nowhere'"):
        evaluate_crystals([NACL], "nowhere", workers=0)
    ase.io.write(tmp_path / "molecules.xyz", molecule("H2O"))
    with pytest.raises(ValueError, match="holds no crystals"):
        evaluate_crystals([NACL], tmp_path / "molecules.xyz", workers=0)
    with pytest.raises(ValueError, match="of molecules, not of crystals"):
        evaluate_crystals([NACL], Fingerprints.build(["C"]), workers=0)
    with pytest.raises(ValueError, match="1 reasons for 2 crystals"):
        evaluate_crystals([NACL, NACL], reasons=["x"], workers=0)


def test_an_empty_set_and_a_hopeless_one_have_no_shares() -> None:
    assert all(rate.share is None for rate in evaluate_crystals([], workers=0).rates)
    metrics = evaluate_crystals([None], workers=0)
    assert counts(metrics)["valid", "given"] == (0, 1)
    assert metrics.rows[0]["reason"] == "cannot be read"
    assert set(metrics.values.values()) == {None}


def test_training_like_sets_are_nearer_than_others() -> None:
    near = evaluate_crystals([damaged(each, 0.01) for each in CRYSTALS], workers=0).values
    far = evaluate_crystals([bulk("Cu", "fcc", 3.6)] * 3, workers=0).values
    elements = "elements distance (Jensen-Shannon)"
    assert 0 < near[elements] < far[elements] <= 1  # type: ignore[operator]
    assert far["number of elements distance (Wasserstein)"] > 1  # type: ignore[operator]


def test_smact4_is_what_smact_4_says() -> None:
    rng = np.random.default_rng(1)
    symbols = ["Na", "Cl", "Fe", "O", "Ti", "N", "S", "La", "Xe", "Pu", "C", "Au", "F", "P"]
    formulas = [
        "".join(f"{s}{rng.integers(1, 4)}" for s in rng.choice(symbols, size=3, replace=False))
        for _ in range(60)
    ]
    ours = [is_composition_valid(formula, "smact4") for formula in formulas]
    assert ours == [smact_validity(Composition(formula)) for formula in formulas]
    assert 0.1 < np.mean(ours) < 0.9


@pytest.mark.parametrize(
    ("crystal", "charge", "distance", "plausible"),
    [
        (structure(NACL), True, True, True),
        (Structure(Lattice.cubic(3), ["Na", "Cl"], [[0] * 3, [0.2, 0, 0]]), True, False, True),
        (Structure(Lattice.cubic(60), ["Na", "Cl"], [[0] * 3, [0.5] * 3]), True, True, False),
        (Structure(Lattice.cubic(4.5), ["Na", "F", "F", "F"],
                   [[0] * 3, [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]), False, True, True),
        (structure(bulk("Cu", "fcc", 3.6)), True, True, True),
    ],
    ids=["salt", "collision", "gas", "charged", "metal"],
)  # fmt: skip
def test_lemat(crystal: Structure, charge: bool, distance: bool, plausible: bool) -> None:
    report = check_lemat(crystal)
    assert (report.charge, report.distance, report.plausible) == (charge, distance, plausible)
    assert report.valid == (charge and distance and plausible)


class Levels:
    """A potential that puts crystals 0.05 eV/atom above the hull; copper fails."""

    name = "levels"

    def relax(self, batch: Sequence[Atoms], fmax: float, max_steps: int) -> list[RelaxResult]:
        return [self._one(atoms) for atoms in batch]

    def _one(self, atoms: Atoms) -> RelaxResult:
        formula = atoms.get_chemical_formula()
        if formula == "Cu":
            return RelaxResult.failure(atoms.copy(), "exploded", self.name)
        references = element_references()
        level = sum(references[symbol] for symbol in atoms.symbols) / len(atoms)
        level += Hull.load().energy_above_hull(formula, 0.0).hull_energy_per_atom + 0.05
        zeros = np.zeros((len(atoms), 3))
        return finished(atoms, atoms.copy(), level * len(atoms), zeros, np.zeros(6),
                        reason="converged", num_steps=1, potential=self.name)  # fmt: skip


def test_stable_and_sun_rates_are_of_all_crystals() -> None:
    thin = Atoms("Fe", cell=[0.3, 4, 4], pbc=True)
    crystals = [CRYSTALS[1], CRYSTALS[1], bulk("Cu", "fcc", 3.6), thin, None]
    metrics = evaluate_crystals(crystals, reference=[NACL], workers=0)
    add_stability(metrics, crystals, Levels, workers=0)
    found = counts(metrics)
    assert found["relaxed", "structurally valid"] == (2, 3)
    assert found["metastable", "given"] == (2, 5)
    assert found["stable", "given"] == (0, 5)
    assert found["metastable S.U.N.", "given"] == (1, 5)
    assert found["hull coverage", "on the hull's scale"] == (2, 2)
    assert metrics.distributions["energy_above_hull"] == pytest.approx([0.05, 0.05])
    [note] = [r.note for r in metrics.rates if r.name == "metastable"]
    assert "levels, not of DFT" in note
    assert "Materials Project" in note


def test_reconstruction_counts_pairs_and_everyone() -> None:
    targets = [Sample.from_ase(atoms) for atoms in (NACL, CRYSTALS[1], CRYSTALS[3])]
    made = [
        Sample.from_ase(damaged(NACL, 0.1)),
        Sample.from_ase(CRYSTALS[3]),  # right, but in the wrong place
        None,
    ]
    metrics = evaluate_crystals(made, workers=0)
    add_reconstruction(metrics, made, targets, workers=0)
    found = counts(metrics)
    assert found["match rate", "targets"] == (1, 3)
    assert found["METRe", "targets"] == (2, 3)
    values = metrics.values
    assert 0 < values["RMSE of the matched pairs"] < 0.1  # type: ignore[operator]
    assert values["cRMSE of METRe"] == pytest.approx(
        (values["RMSE of METRe"] * 2 + 0.5) / 3  # type: ignore[operator]
    )
    with pytest.raises(ValueError, match="no readable crystal"):
        add_reconstruction(metrics, made, [None], workers=0)


def test_judging_never_raises() -> None:
    lattices = [np.eye(3) * 1e-3, np.eye(3) * 1e6, np.diag([1, 1, 1e5]), -np.eye(3) * 4]
    # moyopy hangs on this one
    lattices.append(1.58 * np.array([[-1, 1, 1], [1, -1, 1e9], [1, 1, -1]]))
    # and on this one, of one atom, as its operations within the tolerance have no end
    lattices.append(np.array([[0.692, 0, -0.584], [-0.642, 0.532, 0.433], [0, 0, 5.169]]))
    rng = np.random.default_rng(0)
    for lattice in lattices:
        for numbers in ([1], [99, 2, 43], rng.integers(1, 99, 30)):
            positions = rng.random((len(numbers), 3)) @ lattice
            row = judge_crystal(Sample("crystal", np.array(numbers), positions, lattice))
            assert row["valid"] or row["reason"]
            assert all(not isinstance(v, float) or math.isfinite(v) for v in row.values())
