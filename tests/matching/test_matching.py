"""Duplicates and novelty: what must not matter does not, what must matter does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from adit_plugins.datasets.crystals import canonical_crystal
from adit_plugins.matching.fingerprints import Fingerprints
from adit_plugins.matching.matcher import duplicate_labels, find_duplicates, is_match, rms_distance
from adit_plugins.structures.symmetry import symmetry_dataset, unskewed


def rock_salt(a: float = 5.64, anion: str = "Cl") -> Structure:
    sites = [[0, 0, 0], [0.5, 0.5, 0.5]]
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), ["Na", anion], sites)


def cesium_chloride() -> Structure:
    return Structure(Lattice.cubic(3.3), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def zinc_blende() -> Structure:
    sites = [[0, 0, 0], [0.25, 0.25, 0.25]]
    return Structure.from_spacegroup("F-43m", Lattice.cubic(5.6), ["Na", "Cl"], sites)


def turned(structure: Structure, seed: int = 0) -> Structure:
    """The same crystal: other cell, other origin, other order, slightly noisy."""
    rng = np.random.default_rng(seed)
    same = structure.copy()
    same.translate_sites(range(len(same)), rng.random(3))
    same.make_supercell([[1, 1, 0], [0, 1, 0], [0, 0, 1]])
    same.perturb(0.01)
    return Structure.from_sites([same[i] for i in rng.permutation(len(same))])


def test_duplicates_point_to_the_first_unique_one() -> None:
    structures = [
        rock_salt(),
        cesium_chloride(),
        rock_salt().get_primitive_structure(),
        rock_salt(anion="Br"),
        turned(rock_salt()),
        turned(cesium_chloride()),
        rock_salt(5.9),  # StructureMatcher compares shapes: the volume is scaled away
    ]
    assert find_duplicates(structures) == [None, None, 0, None, 0, 1, 0]
    assert find_duplicates([]) == []


@pytest.mark.parametrize("times", [50, 1000])
def test_a_very_skewed_cell_is_reduced_by_no_more_work(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors of up to 4,000 angstrom describe rock salt's cell of 45 cubic angstrom."""
    plain = rock_salt().get_primitive_structure()
    skewed = plain.copy()
    skewed.make_supercell([[1, 0, 0], [times, 1, 0], [0, times, 1]], to_unit_cell=False)
    assert skewed.volume == pytest.approx(plain.volume, rel=1e-3)
    assert max(skewed.lattice.abc) > 40 * max(plain.lattice.abc)
    seen: list[float] = []
    niggli = Lattice.get_niggli_reduced_lattice

    def watched(lattice: Lattice, *args: Any, **options: Any) -> Lattice:
        seen.append(max(lattice.abc))  # its steps grow with the lengths
        return niggli(lattice, *args, **options)

    monkeypatch.setattr(Lattice, "get_niggli_reduced_lattice", watched)
    assert is_match(plain, skewed)
    assert rms_distance(plain, skewed) == pytest.approx(0, abs=1e-3)
    assert Fingerprints.build([plain]).contains(skewed)
    assert symmetry_dataset(skewed).number == 225
    assert canonical_crystal(skewed)["cell"] == pytest.approx(
        canonical_crystal(plain)["cell"], abs=1e-3
    )
    assert seen and max(seen) < 10


def test_ordinary_cells_are_reduced_as_they_are() -> None:
    structure = turned(rock_salt())
    assert unskewed(structure) is structure


def test_a_degenerate_cell_matches_nothing_and_raises_nothing() -> None:
    flat = Structure(Lattice([[3, 0, 0], [3, 0, 0], [0, 0, 3]]), ["Na", "Cl"], [[0] * 3, [0.5] * 3])
    assert not is_match(flat, cesium_chloride())
    assert find_duplicates([cesium_chloride(), flat]) == [None, None]
    assert not Fingerprints.build([cesium_chloride()]).contains(flat)


def test_a_cell_of_next_to_nothing_matches_nothing_in_little_memory() -> None:
    empty = Structure(Lattice.cubic(4e6), ["Na", "Cl"], [[0, 0, 0], [1e-6, 0, 0]])
    assert find_duplicates([empty, empty.copy()]) == [None, None]
    assert not Fingerprints.load("crystal").contains(empty)


def test_duplicate_labels() -> None:
    assert duplicate_labels(["CCO", None, "C", "CCO", None, "CCO"]) == [
        None,
        None,
        None,
        0,
        None,
        0,
    ]


@pytest.mark.parametrize("structure", [rock_salt(), cesium_chloride(), zinc_blende()])
def test_fingerprints_know_a_crystal_in_any_setting(structure: Structure) -> None:
    known = Fingerprints.build([structure])
    for seed in range(3):
        assert known.contains(turned(structure, seed))
    assert known.contains(structure.get_primitive_structure())
    bigger = structure.copy()
    bigger.scale_lattice(structure.volume * 1.15)
    assert known.contains(bigger)


def test_fingerprints_tell_polymorphs_compositions_and_order_apart() -> None:
    known = Fingerprints.build([rock_salt()])
    assert not known.contains(cesium_chloride())
    assert not known.contains(rock_salt(anion="Br"))
    # stol 0.5 is so wide that zinc blende counts as rock salt; the fingerprints follow it.
    assert is_match(rock_salt(), zinc_blende())
    assert known.contains(zinc_blende())
    # Heusler and inverse Heusler: the same sites, other elements on them.
    sites = [[0, 0, 0], [0.25, 0.25, 0.25], [0.5, 0.5, 0.5], [0.75, 0.75, 0.75]]
    cell = Lattice.from_parameters(4.2, 4.2, 4.2, 60, 60, 60)
    full = Structure(cell, ["Al", "Fe", "Mn", "Fe"], sites)
    inverse = Structure(cell, ["Al", "Fe", "Fe", "Mn"], sites)
    assert not is_match(full, inverse)
    assert not Fingerprints.build([full]).contains(inverse)
    assert Fingerprints.build([full, inverse]).contains(inverse)


def test_fingerprints_agree_with_structure_matcher_on_disturbed_crystals() -> None:
    rng = np.random.default_rng(0)
    agree = []
    originals = [rock_salt().get_primitive_structure(), cesium_chloride()]
    for noise in np.repeat([0.02, 0.1, 0.8], 8):
        original = originals[rng.integers(2)]
        moved = Structure(
            original.lattice,
            original.species,
            original.cart_coords + noise * rng.normal(size=(len(original), 3)),
            coords_are_cartesian=True,
        )
        agree.append(Fingerprints.build([original]).contains(moved) == is_match(original, moved))
    assert np.mean(agree) >= 0.75


def test_molecules_do_not_depend_on_writing_hydrogens_or_stereo() -> None:
    known = Fingerprints.build(["C[C@H](N)C(=O)O", "c1ccccc1"])
    assert len(known) == 2
    for smiles in ("OC(=O)C(C)N", "C[C@@H](N)C(=O)O", "C1=CC=CC=C1", "[H]c1ccccc1"):
        assert known.contains(smiles)
    assert not known.contains("CCO")
    with pytest.raises(ValueError, match="'C1CC'"):
        known.contains("C1CC")


def test_saved_tables_come_back_whole(tmp_path: Path) -> None:
    crystals = Fingerprints.build([rock_salt(), cesium_chloride(), rock_salt(anion="Br")])
    molecules = Fingerprints.build(["CCO", "CCN"])
    crystals.save(tmp_path / "crystals.npz")
    molecules.save(tmp_path / "molecules.npz")
    loaded = Fingerprints.load(tmp_path / "crystals.npz")
    assert (loaded.kind, len(loaded)) == ("crystal", 3)
    assert loaded.contains(turned(cesium_chloride()))
    assert not loaded.contains(rock_salt(anion="I"))
    loaded = Fingerprints.load(tmp_path / "molecules.npz")
    assert loaded.contains("OCC")
    assert not loaded.contains("CCC")


def test_bad_tables_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'crystals'\. Known: crystal, molecule"):
        Fingerprints.load("crystals")
    good = tmp_path / "good.npz"
    Fingerprints.build(["CCO"]).save(good)
    (tmp_path / "cut.npz").write_bytes(good.read_bytes()[:80])
    with pytest.raises(ValueError, match=r"cut\.npz' is no table of fingerprints"):
        Fingerprints.load(tmp_path / "cut.npz")
    with pytest.raises(ValueError, match="No structures"):
        Fingerprints.build([])


def test_shipped_tables_know_the_training_sets() -> None:
    molecules = Fingerprints.load("molecule")
    assert len(molecules) > 110_000
    # Rows 1 and 2 of QM9 are ammonia and water; row 0, methane, is in its test set.
    assert molecules.contains("N")
    assert molecules.contains("O")
    assert not molecules.contains("C")
    assert not molecules.contains("CCCCCCCCCCCCCC")
    crystals = Fingerprints.load("crystal")
    assert len(crystals) > 15_000
    assert not crystals.contains(rock_salt(anion="Xe"))
