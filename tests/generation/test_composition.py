"""Compositions on request, and variations of a structure."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from click.testing import CliRunner
from pymatgen.core import Composition, Element

from adit_plugins import ADiTGenerator
from adit_plugins.cli import main
from adit_plugins.generation.composition import CompositionRequest
from adit_plugins.structures.reading import read_structures
from adit_plugins.structures.samples import Sample


def generator(checkpoint: str, **recipe: object) -> ADiTGenerator:
    return ADiTGenerator(checkpoint=checkpoint, num_steps=3, device="cpu", **recipe)


def symbols(sample: Sample) -> set[str]:
    return set(sample.to_ase().get_chemical_symbols())


@pytest.mark.parametrize("kind", ["crystal", "molecule"])
def test_no_element_outside_the_request_ever_appears(tiny_checkpoint: str, kind: str) -> None:
    free = {s for x in generator(tiny_checkpoint, kind=kind).samples(20) for s in symbols(x)}
    assert len(free) > 2  # else the requests below would be no restriction
    only = generator(tiny_checkpoint, kind=kind, elements=["C", "O"]).samples(20)
    assert {s for x in only for s in symbols(x)} == {"C", "O"}
    none_of = generator(tiny_checkpoint, kind=kind, exclude_elements=sorted(free)).samples(20)
    assert not {s for x in none_of for s in symbols(x)} & free


def test_a_chemical_system_holds_each_element(tiny_checkpoint: str) -> None:
    for sample in generator(tiny_checkpoint, chemical_system="Li-P-O").samples(20):
        assert symbols(sample) == {"Li", "P", "O"}


def test_a_formula_fills_cells_in_whole_multiples(tiny_checkpoint: str) -> None:
    made = generator(tiny_checkpoint, formula="Li2O").samples(30)
    assert {s.num_atoms for s in made} == {3, 6}
    assert {s.to_pymatgen().composition.reduced_formula for s in made} == {"Li2O"}
    (six,) = generator(tiny_checkpoint, formula="Li2O", num_atoms=6).samples(1)
    assert six.to_ase().get_chemical_formula() == "Li4O2"
    water = generator(tiny_checkpoint, kind="molecule", formula="H2O").samples(5)
    assert {s.to_ase().get_chemical_formula() for s in water} == {"H2O"}


def test_requested_samples_belong_to_seed_and_index(tiny_checkpoint: str) -> None:
    recipe = generator(tiny_checkpoint, formula="Li2O", seed=3)
    later = recipe.samples(2, start=5)
    among = recipe.samples(7)[5:]
    for one, other in zip(later, among, strict=True):
        assert (one.atomic_numbers == other.atomic_numbers).all()
        np.testing.assert_allclose(one.positions, other.positions, atol=1e-4)
    assert later[0].provenance["formula"] == "Li2O"
    assert ADiTGenerator.from_dict(recipe.as_dict()) == recipe


def test_elements_are_given_to_atoms_by_the_best_sum() -> None:
    """Against all ways to do it, on scores where the greedy choice is wrong."""
    from itertools import permutations

    scores = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 4, 100)) * 3)
    request = CompositionRequest(formula="NaCl")
    chosen = request.choose(scores)
    for each, numbers in zip(scores, chosen, strict=True):
        best = max(
            set(permutations([11, 11, 17, 17])),
            key=lambda way: sum(float(each[i, z]) for i, z in enumerate(way)),
        )
        assert tuple(numbers.tolist()) == best
    system = CompositionRequest(chemical_system="Na-Cl-K").choose(scores)
    for each, numbers in zip(scores, system, strict=True):
        ways = np.stack(np.meshgrid(*[[11, 17, 19]] * 4), -1).reshape(-1, 4)
        fits = [way for way in ways if set(way) == {11, 17, 19}]
        total = [sum(float(each[i, z]) for i, z in enumerate(way)) for way in fits]
        got = sum(float(each[i, z]) for i, z in enumerate(numbers.tolist()))
        assert math.isclose(got, max(total), abs_tol=1e-9)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"elements": ["Xx"]}, "no element 'Xx'"),
        ({"elements": "NaCl"}, "must be a list of symbols"),
        ({"elements": []}, "at least one"),
        ({"formula": "Na0Cl"}, "whole numbers"),
        ({"formula": 5}, "must be text"),
        ({"chemical_system": 5}, "must be text such as 'Li-P-O'"),
        ({"chemical_system": "Li-*-Qq"}, "no element 'Qq'"),
        ({"chemical_system": "Li-O,Li-Qq"}, "no element 'Qq'"),
        ({"chemical_system": "Li-*-*", "num_atoms": 2}, "too small for the 3 elements"),
        ({"chemical_system": "Li-*", "contains": ["O", "P"]}, "2 elements cannot be all"),
        ({"chemical_system": "Li-O,Na-O", "exclude_elements": ["Na"]}, "Na is asked for"),
        ({"formula": "NaCl", "chemical_system": "Na-Cl"}, "one of the two"),
        ({"formula": "NaCl", "exclude_elements": ["Cl"]}, "Cl is asked for and ruled out"),
        ({"formula": "Na0.5Cl"}, "whole numbers"),
        ({"formula": "))"}, "formula"),
        ({"formula": ""}, "formula"),
        ({"chemical_system": "Li--O"}, "no element ''"),
        ({"formula": "Li2O", "num_atoms": 4}, "no whole multiple"),
        ({"chemical_system": "Li-P-O", "num_atoms": 2}, "too small for the 3 elements"),
    ],
)
def test_impossible_requests_are_refused(recipe: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ADiTGenerator(**recipe)  # type: ignore[arg-type]


def test_what_people_hold_is_taken_for_text() -> None:
    taken = ADiTGenerator(formula=Composition("Li2O"))  # type: ignore[arg-type]
    assert taken.composition.counts() == {3: 2, 8: 1}
    for system, text in (
        (["Li", "O"], "Li-O"), ({Element("O"), Element("Li")}, "Li-O"),
        (["Li-Fe-O", "Li-Mn-O"], "Li-Fe-O, Li-Mn-O"),
    ):  # fmt: skip
        assert ADiTGenerator(chemical_system=system).chemical_system == text  # type: ignore[arg-type]


def test_wildcards_need_the_elements_first(tiny_checkpoint: str) -> None:
    for system in ("Li-*-O", "Li-O Na-O"):
        with pytest.raises(ValueError, match="are drawn first"):
            generator(tiny_checkpoint, chemical_system=system).samples(1)


def test_a_formula_larger_than_the_model_is_refused(tiny_checkpoint: str) -> None:
    with pytest.raises(ValueError, match=r"a multiple of 21 atoms.*of \d to 7 atoms"):
        generator(tiny_checkpoint, formula="Li20O").samples(1)
    with pytest.raises(ValueError, match=r"no molecule fits .*--kind crystal"):
        generator(tiny_checkpoint, formula="Li20O", kind="molecule").check()


def test_the_command_line_takes_requests(tiny_checkpoint: str, tmp_path: object) -> None:
    out = f"{tmp_path}/x.extxyz"
    arguments = ["generate", "--checkpoint", tiny_checkpoint, "--num", "4", "--num-steps", "2"]
    done = CliRunner().invoke(main, [*arguments, "--elements", "Na,Cl K", "--out", out])
    assert done.exit_code == 0, done.output
    assert {s for a in read_structures(out) for s in a.get_chemical_symbols()} <= {"Na", "Cl", "K"}
    wrong = CliRunner().invoke(main, [*arguments, "--formula", "NaQq", "--out", out])
    assert wrong.exit_code == 2
    assert "'Qq'" in wrong.stderr


def test_variations_stay_near_and_grow_with_strength() -> None:
    """With the release: its autoencoder gives back what it was given."""
    recipe = ADiTGenerator(num_steps=20, device="cpu", precision="float32")
    start = bulk("NaCl", "rocksalt", 5.69, cubic=True)
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.io.ase import AseAtomsAdaptor

    original = AseAtomsAdaptor.get_structure(start)
    near = recipe.variations(start, 6, 0.02)
    matches = [StructureMatcher().fit(x.to_pymatgen(), original) for x in near]
    assert sum(matches) >= 5
    far = recipe.variations(start, 6, 1.0)  # rock salt again, but made from nothing
    spread = [np.std([x.to_ase().get_volume() for x in each]) for each in (near, far)]
    assert spread[1] > 1.3 * spread[0]
    assert {x.num_atoms for x in near + far} == {2}  # the primitive cell
    assert near[0].provenance["strength"] == 0.02
    assert "Cl4Na4" in near[0].provenance["variation_of"]


def test_variations_of_a_molecule_keep_the_formula_on_request() -> None:
    recipe = ADiTGenerator(num_steps=5, device="cpu", formula="C2H6O", kind="molecule")
    for sample in recipe.variations(molecule("CH3CH2OH"), 3, 0.5):
        assert sample.kind == "molecule"
        assert sample.to_ase().get_chemical_formula() == "C2H6O"
        assert sample.provenance["kind"] == "molecule"


@pytest.mark.parametrize("strength", [0, -1, 1.5, math.nan, True, "much"])
def test_a_wrong_strength_is_named(tiny_checkpoint: str, strength: object) -> None:
    with pytest.raises(ValueError, match="strength must be above 0"):
        generator(tiny_checkpoint).variations(bulk("Na"), 1, strength)  # type: ignore[arg-type]


def test_structures_beyond_the_model_are_refused(tiny_checkpoint: str) -> None:
    big = bulk("NaCl", "rocksalt", 5.69, cubic=True) * (2, 1, 1)
    big.rattle(0.2, seed=1)
    with pytest.raises(ValueError, match=r"1\.\.7"):
        generator(tiny_checkpoint).variations(big, 1, 0.5)
