"""Completions: what is given stays exactly, what is added is what was asked for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from click.testing import CliRunner
from pymatgen.core import Lattice, Structure
from scipy.spatial.transform import Rotation

from adit_plugins import ADiTGenerator, read_structures
from adit_plugins.cli import main
from adit_plugins.generation.filling import Filling
from adit_plugins.generation.placing import CrystalPlacer, MoleculePlacer, assigned
from adit_plugins.structures.samples import Sample, to_batch, to_sample

SKEWED = Atoms(  # far from its Niggli cell, with an atom outside
    "LiOF", [[0.1, 0.2, 0.3], [2.0, 1.7, 1.1], [9.0, 4.0, -3.0]],
    cell=[[3.5, 0, 0], [3.4, 3.8, 0.2], [-3.0, 1.0, 4.4]], pbc=True,
)  # fmt: skip
METHANOL = molecule("CH3OH")


def generator(checkpoint: str, **recipe: Any) -> ADiTGenerator:
    return ADiTGenerator(**({"checkpoint": checkpoint, "num_steps": 3} | recipe))


@pytest.mark.parametrize("fixture", ["told_checkpoint", "tiny_checkpoint"])
@pytest.mark.parametrize(("start", "added"), [(SKEWED, "LiF2"), (METHANOL, "HF")])
def test_what_is_given_stays_exactly(
    fixture: str, start: Atoms, added: str, request: pytest.FixtureRequest
) -> None:
    recipe = generator(request.getfixturevalue(fixture), seed=3)
    original = to_sample(start)
    made = recipe.complete(start, 3, elements=added)
    for sample in made:
        size = original.num_atoms
        assert sample.atomic_numbers[:size].tolist() == original.atomic_numbers.tolist()
        assert (sample.positions[:size] == original.positions).all()
        assert sample.kind == original.kind
        if original.lattice is not None:
            assert (sample.lattice == original.lattice).all()
        others = Atoms(numbers=sample.atomic_numbers[size:]).get_chemical_formula()
        assert Counter(others) == Counter(Atoms(added).get_chemical_formula())
        assert sample.provenance["num_given"] == size
        assert sample.provenance["num_atoms"] == sample.num_atoms
    assert len({sample.id for sample in made}) == 3
    assert abs(made[0].positions[-1] - made[1].positions[-1]).max() > 1e-3
    again = recipe.complete(start, 2, elements=added)
    for sample, other in zip(made, again, strict=False):
        assert abs(sample.positions - other.positions).max() < 1e-4


TASKS: list[tuple[Any, dict[str, Any], Any]] = [
    (SKEWED, {"elements": ["Na", "F"], "num_atoms": 5}, lambda a: set(a) <= {11, 9} and a[1:]),
    (SKEWED, {"elements": ["Na"]}, lambda a: set(a) == {11}),
    (SKEWED, {"num_atoms": [4, 6]}, lambda a: len(a) in (1, 3)),
    (SKEWED, {"replace": ["O"]}, lambda a: len(a) == 1 and a != [8]),
    (SKEWED, {"replace": "O", "elements": ["O"]}, lambda a: a == [8]),
    (SKEWED, {"fixed": [2, 0]}, lambda a: len(a) == 1 and a != [8]),
    (METHANOL, {"replace": ["H"]}, lambda a: len(a) == 4),
    (METHANOL, {"fixed": [0, 1], "num_atoms": 7, "elements": ["H"]}, lambda a: a == [1] * 5),
    (METHANOL, {}, lambda a: len(a) in (1, 2)),
]  # fmt: skip


@pytest.mark.parametrize("fixture", ["told_checkpoint", "tiny_checkpoint"])
@pytest.mark.parametrize(("start", "asked", "fits"), TASKS)
def test_what_is_added_is_what_was_asked_for(
    fixture: str, start: Atoms, asked: dict[str, Any], fits: Any, request: pytest.FixtureRequest
) -> None:
    recipe = generator(request.getfixturevalue(fixture), seed=1)
    for sample in recipe.complete(start, 5, **asked):
        size = sample.provenance["num_given"]
        assert fits(sorted(sample.atomic_numbers[size:].tolist())), sample
        free = "elements" not in asked
        if free and fixture == "told_checkpoint" and sample.kind == "molecule":
            assert sample.atomic_numbers.sum() % 2 == 0  # no radical


def test_the_sizes_of_completions_vary(told_checkpoint: str) -> None:
    made = generator(told_checkpoint).complete(SKEWED, 12, num_atoms=[4, 5, 7])
    assert {sample.num_atoms for sample in made} == {4, 5, 7}
    balanced = generator(told_checkpoint, charge_balanced=True)
    from adit_plugins.validity.crystals import is_composition_valid

    for sample in balanced.complete(SKEWED, 6, num_atoms=[4, 5]):
        assert is_composition_valid(sample.to_pymatgen().composition)


@pytest.mark.parametrize(
    "cell", [[4, 4, 4, 90, 90, 90], [3, 3, 5, 90, 90, 120], [3, 4, 5, 70, 80, 85]]
)
def test_atoms_of_a_crystal_are_found_across_its_faces(cell: list[float]) -> None:
    random = np.random.default_rng(0)
    lattice = Lattice.from_parameters(*cell).matrix
    numbers, frac, given = np.array([3, 8, 8, 9, 9, 9]), random.random((6, 3)), [0, 1, 3, 4]
    placer = CrystalPlacer(numbers[given], frac[given], lattice)
    order = random.permutation(6)
    predicted = (placer.motion.apply(frac) + 0.01 * random.normal(size=(6, 3)))[order] % 1.0
    found = placer(numbers[order], predicted, None)
    assert order[found.atoms].tolist() == given
    np.testing.assert_allclose(found.motion.undo(found.motion.apply(frac)), frac, atol=1e-9)


def test_the_origin_of_a_host_makes_no_difference(told_checkpoint: str) -> None:
    host = bulk("NaCl", "rocksalt", 5.6)
    moved = host.copy()
    moved.positions += [0.7, 1.1, 0.4]
    recipe = generator(told_checkpoint)
    pairs = zip(*(recipe.complete(h, 3, elements="F") for h in (host, moved)), strict=True)
    for first, second in pairs:
        offset = second.to_ase()
        offset.positions -= [0.7, 1.1, 0.4]
        offset += Atoms("F", [first.positions[-1]])
        assert offset.get_distance(2, 3, mic=True) < 1e-3


def test_a_fragment_is_found_in_any_orientation_but_not_its_mirror_image() -> None:
    random = np.random.default_rng(1)
    whole = molecule("C3H4_D2d")
    whole.numbers[3:] = [9, 17, 1, 35]
    given = [0, 1, 2, 3, 4]
    placer = MoleculePlacer(whole.numbers[given], whole.positions[given])
    for seed in range(8):
        turn = Rotation.random(random_state=seed).as_matrix()
        order = random.permutation(len(whole))
        predicted = (whole.positions @ turn + random.normal(size=3))[order]
        found = placer(whole.numbers[order], predicted, None)
        assert order[found.atoms].tolist() == given
        np.testing.assert_allclose(found.motion.matrix, turn, atol=1e-6)
        mirrored = placer(whole.numbers[order], predicted * [1, 1, -1], None)
        assert np.linalg.det(mirrored.motion.matrix) > 0
    with pytest.raises(ValueError, match="lacks atoms"):
        assigned(np.zeros((2, 2)), np.array([1, 1]), np.array([1, 6]))


@pytest.mark.parametrize("start", [SKEWED, bulk("NaCl", "rocksalt", 5.6, cubic=True), METHANOL])
def test_a_whole_structure_put_into_itself_comes_back(start: Atoms) -> None:
    original = to_sample(start)
    few = (len(start) + 1) // 2
    half = Sample(
        original.kind, original.atomic_numbers[:few], original.positions[:few], original.lattice
    )
    filling = Filling(half)
    predicted = original
    if filling.cell is not None:
        frac = original.positions @ np.linalg.inv(filling.basis @ start.cell.array)
        predicted = Sample("crystal", original.atomic_numbers, frac @ filling.cell, filling.cell)
    edited = filling([7], to_batch([predicted]), 0.5)
    from adit_plugins.structures.samples import from_batch

    numbers, positions = filling.restored(7, from_batch(edited)[0])
    size = half.num_atoms
    assert (positions[:size] == half.positions).all() and (
        numbers[:size] == half.atomic_numbers
    ).all()
    again = Atoms(numbers=numbers, positions=positions, cell=start.cell, pbc=start.pbc)
    missing = start[few:]
    for atom in missing:
        index = len(again)
        both = again + Atoms([atom], cell=start.cell, pbc=start.pbc)
        others = [i for i in range(size, index) if both.numbers[i] == atom.number]
        assert both.get_distances(index, others, mic=True).min() < 1e-3


WRONG: list[tuple[Atoms, dict[str, Any], str]] = [
    (SKEWED, {"replace": ["Co"]}, "replace names Co, of which .* has none"),
    (SKEWED, {"replace": ["Li", "O", "F"]}, "no atom is given"),
    (SKEWED, {"fixed": [0, 3]}, r"fixed must be different indices of atoms, 0\.\.2"),
    (SKEWED, {"num_atoms": 3}, "must be above 3, as 3 are given"),
    (SKEWED, {"num_atoms": 6, "elements": "Li"}, "must be 4, as 3 are given"),
    (SKEWED, {"num_atoms": 50, "elements": "Li47"}, r"1\.\.7 for crystals"),
    (SKEWED, {"num_atoms": [50, 60]}, r"num_atoms=\[50, 60\]"),
    (SKEWED, {"elements": ["Xx"]}, "no element 'Xx'"),
    (SKEWED, {"elements": []}, "at least one"),
    (METHANOL, {"elements": ["Fe"], "num_atoms": 8}, "Fe"),
]


@pytest.mark.parametrize(("start", "asked", "words"), WRONG)
def test_what_cannot_be_completed_says_so(
    told_checkpoint: str, start: Atoms, asked: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        generator(told_checkpoint).complete(start, 1, **asked)
    with pytest.raises(ValueError, match="leave out steer"):
        generator(told_checkpoint, steer="density").complete(SKEWED, 1)


def test_the_command_line_completes(told_checkpoint: str, tmp_path: Path) -> None:
    host, out = tmp_path / "host.cif", tmp_path / "filled.extxyz"
    Structure(Lattice.cubic(4.0), ["F", "Na"], [[0, 0, 0], [0.5, 0.5, 0.5]]).to_file(str(host))
    base = ["complete", str(host), "--checkpoint", told_checkpoint, "--num-steps", "2"]
    more = ["--num", "3", "--out", str(out)]
    result = CliRunner().invoke(main, [*base, *more, "--add", "Li2"])
    assert result.exit_code == 0, result.output
    assert "3 completions in" in result.output
    for atoms in read_structures(out):
        assert atoms.get_chemical_symbols() == ["F", "Na", "Li", "Li"]
    result = CliRunner().invoke(main, [*base, *more, "--replace", "Na", "--num-atoms", "2-3"])
    assert result.exit_code == 0, result.output
    assert all(len(a) in (2, 3) and 11 not in a.numbers for a in read_structures(out))
    several = tmp_path / "several.extxyz"
    ase.io.write(several, [METHANOL, METHANOL])
    for wrong, words in (
        ([*base, "--out", str(out), "--add", "Li", "--elements", "Li"], "leave out --elements"),
        ([*base, "--out", str(out), "--num-atoms", "x"], "no number or range"),
        (["complete", str(several), "--out", str(out)], "holds 2 structures"),
    ):
        result = CliRunner().invoke(main, wrong)
        assert result.exit_code != 0
        assert words in result.output + str(result.exception)
