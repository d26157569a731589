"""Structures to latents and back, in the form of the training data and out of it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.spacegroup import crystal

from adit_model.checkpoints import CheckpointNotice
from adit_plugins import ADiTGenerator, Sample
from adit_plugins.generation.training_form import training_form
from adit_plugins.structures.samples import Convertible, to_sample


def turned() -> Atoms:
    atoms = bulk("ZnS", "zincblende", 5.4, cubic=True)
    atoms.rotate(33, (1, 2, 3), rotate_cell=True)
    return atoms


def left_handed() -> Atoms:
    atoms = bulk("Ti") * (1, 2, 1)
    atoms.cell = atoms.cell.array[[1, 0, 2]]
    return atoms


def skewed() -> Atoms:
    atoms = Atoms("LiFeO2", pbc=True, cell=[5, 6, 7, 70, 80, 95])
    atoms.set_scaled_positions([[0.1, 0.2, 0.3], [0.5, 0.51, 0.6], [0.9, 0.1, 0.7], [0.3, 0.8, 0]])
    atoms.cell = np.array([[1, 1, 0], [0, 1, 0], [0, -3, 1]]) @ atoms.cell.array
    return atoms


STRUCTURES = [
    bulk("NaCl", "rocksalt", 5.6, cubic=True), bulk("MgO", "rocksalt", 4.2) * (2, 1, 3), turned(),
    left_handed(), skewed(), molecule("CH3CH2OH"),
]  # fmt: skip


def largest_gap(first: Sample, second: Sample) -> float:
    """Between the atoms of two structures in angstrom, of the nearest images in a crystal."""
    gaps = first.positions - second.positions
    if first.lattice is not None:
        frac = gaps @ np.linalg.inv(first.lattice)
        gaps = (frac - np.round(frac)) @ first.lattice
    return float(np.linalg.norm(gaps, axis=-1).max())


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_way_back_restores_cell_order_and_place(structure: Atoms) -> None:
    given = to_sample(structure)
    form = training_form(given)
    back = form.restored(form.sample)
    assert (back.atomic_numbers == given.atomic_numbers).all()
    assert largest_gap(given, back) < 1e-6
    if given.lattice is not None and back.lattice is not None:
        assert np.allclose(back.lattice, given.lattice, atol=1e-6)


def test_atoms_that_move_move_in_every_cell() -> None:
    """What the decoder gets wrong comes back in the frame of what was given."""
    given = to_sample(turned() * (1, 1, 2))
    form = training_form(given)
    moved = form.sample.positions.copy()
    moved[0] += [0.1, 0.05, 0.0]
    back = form.restored(Sample("crystal", form.sample.atomic_numbers, moved, form.sample.lattice))
    gaps = np.linalg.norm(back.positions - given.positions, axis=1)
    alike = form.sites == 0
    assert alike.sum() == 8
    assert gaps[alike] == pytest.approx(np.hypot(0.1, 0.05)) and gaps[~alike].max() < 1e-6


def test_latents_are_those_of_the_atoms_that_were_given(tiny_checkpoint: str) -> None:
    generator = ADiTGenerator(checkpoint=tiny_checkpoint)
    salt, ethanol = STRUCTURES[0], STRUCTURES[-1]
    several, alone = generator.encode([salt, ethanol]), generator.encode(salt)
    assert [each.shape[0] for each in several] == [8, 9]
    assert np.allclose(several[0], alone[0], atol=1e-5)
    sodium = alone[0][salt.numbers == 11]
    assert np.ptp(sodium, axis=0).max() == 0 and np.abs(sodium[0] - alone[0][1]).max() > 1e-3
    order = np.random.default_rng(0).permutation(8)
    assert np.allclose(generator.encode(salt[order])[0], alone[0][order], atol=1e-5)


def test_reconstructions_have_the_form_of_the_input(tiny_checkpoint: str) -> None:
    generator = ADiTGenerator(checkpoint=tiny_checkpoint)
    for given, back in zip(STRUCTURES, generator.reconstruct(STRUCTURES), strict=True):
        assert back.num_atoms == len(given)
        assert back.provenance["reconstruction_of"].startswith("Sample(")


@pytest.mark.parametrize("structures", [[], "NaCl", [bulk("Cu"), 3]])
def test_what_is_no_structure_is_refused(tiny_checkpoint: str, structures: Any) -> None:
    generator = ADiTGenerator(checkpoint=tiny_checkpoint)
    if structures == []:
        assert generator.encode([]) == [] and generator.reconstruct([]) == []
        return
    with pytest.raises(TypeError, match="item"):
        generator.encode(structures)


def test_the_release_knows_salt_in_any_cell() -> None:
    """The conventional cell as a file has it is not what the network was trained on."""
    generator = ADiTGenerator()
    salt = bulk("NaCl", "rocksalt", 5.6, cubic=True)
    (back,) = generator.reconstruct(salt)
    assert (back.atomic_numbers == salt.numbers).all()
    assert _error(generator, [salt]) < 0.2


def test_the_large_autoencoder_knows_forty_atoms_and_makes_nothing() -> None:
    sites = [(0.25, 0.25, 0.25), (-0.034, 0, 0.25), (0.39, 0.154, 0.382)]
    bixbyite = crystal(
        ["In", "In", "O"],
        sites,
        spacegroup=206,
        cellpar=[10.12] * 3 + [90] * 3,
        primitive_cell=True,
    )
    generator = ADiTGenerator(checkpoint="adit-large")
    (back,) = generator.reconstruct(bixbyite)
    assert len(bixbyite) == 40 and (back.atomic_numbers == bixbyite.numbers).all()
    assert _error(generator, [bixbyite]) < 0.2
    with pytest.raises(ValueError, match="holds only an autoencoder; train a denoiser"):
        generator.generate(1)


def test_structures_beyond_the_training_data_are_told_of() -> None:
    generator = ADiTGenerator()
    rng = np.random.default_rng(0)
    glass = Atoms("Si24", scaled_positions=rng.random((24, 3)), cell=[7, 8, 9], pbc=True)
    with pytest.warns(CheckpointNotice, match="1 of 2 crystals have up to 24 atoms.*at most 20"):
        assert [len(each) for each in generator.encode([glass, bulk("Cu")])] == [24, 1]
    with pytest.warns(CheckpointNotice, match="24 atoms"):
        generator.reconstruct(glass)


def _error(generator: ADiTGenerator, structures: Sequence[Convertible]) -> float:
    pairs = zip(map(to_sample, structures), generator.reconstruct(list(structures)), strict=True)
    return max(largest_gap(first, second) for first, second in pairs)
