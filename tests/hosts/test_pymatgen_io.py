"""pymatgen's own doors: Structure.from_file, StandardTransmuter, MSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from monty.json import MontyDecoder
from monty.serialization import dumpfn, loadfn
from pymatgen.alchemy.materials import TransformedStructure
from pymatgen.alchemy.transmuters import StandardTransmuter
from pymatgen.core import IStructure, Lattice, Molecule, Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from adit_plugins import ADiTGenerator, read_structures, symmetrized, write_samples
from adit_plugins.hosts.filters import (
    LematFilter,
    NovelFilter,
    SmactFilter,
    StructureValidFilter,
    UniqueFilter,
)
from adit_plugins.hosts.transformations import ADiTVariationTransformation
from adit_plugins.matching.matcher import is_match
from adit_plugins.validity.crystals import is_composition_valid, is_structure_valid


@pytest.fixture(scope="module")
def generator(tiny_checkpoint: str) -> ADiTGenerator:
    return ADiTGenerator(checkpoint=tiny_checkpoint, num_steps=4)


@pytest.fixture(scope="module")
def salt() -> Structure:
    return Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    ).get_primitive_structure()


def test_one_structure_goes_through_pymatgens_files(
    generator: ADiTGenerator, tmp_path: Path
) -> None:
    structure = generator.generate(1)[0]
    structure.add_site_property("magmom", [1.0] * len(structure))
    structure.to(str(tmp_path / "one.aditjson"))
    again = Structure.from_file(tmp_path / "one.aditjson")
    assert again == structure
    assert again.properties["adit"] == structure.properties["adit"]
    assert Structure.from_str(structure.to(fmt="aditjson"), fmt="aditjson") == structure
    IStructure.from_sites(structure, properties=structure.properties).to(
        str(tmp_path / "immutable.aditjson")
    )
    assert Structure.from_file(tmp_path / "immutable.aditjson") == structure


def test_many_structures_are_read_by_their_place(generator: ADiTGenerator, tmp_path: Path) -> None:
    path = tmp_path / "many.aditjson"
    crystals = generator.generate(3)
    molecules = ADiTGenerator(
        kind="molecule", checkpoint=generator.checkpoint, num_steps=4
    ).generate(2)
    assert write_samples([*molecules, *crystals], path).written == 5
    for i, crystal in enumerate(crystals):
        assert Structure.from_file(path, index=i).properties == crystal.properties
    assert Structure.from_file(path, index=-1) == crystals[-1]
    assert len(Structure.from_file(path, primitive=True)) <= len(crystals[0])
    assert Molecule.from_file(path).properties["adit"]["id"] == "tiny/0/0"
    assert len(read_structures(path)) == 5
    with pytest.raises(ValueError, match="no Structure 3: it holds 3 of 5"):
        Structure.from_file(path, index=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "entry 0 is no Structure or Molecule"),
        ('{"@class": "Lattice"}', "'Lattice'"),
        ('{"@class": "Structure"}', "damaged"),
        ("[]", "no Structure 0"),
    ],
)
def test_other_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.aditjson").write_text(text)
    with pytest.raises(ValueError, match=message):
        Structure.from_file(tmp_path / "bad.aditjson")


def test_pymatgen_finds_the_format_without_our_help() -> None:
    code = (
        "from pymatgen.core import Lattice, Structure, Molecule\n"
        "text = Structure(Lattice.cubic(3), ['Po'], [[0] * 3]).to(fmt='aditjson')\n"
        "assert Structure.from_str(text, fmt='aditjson').formula == 'Po1'\n"
        "text = Molecule(['H', 'H'], [[0] * 3, [0, 0, 0.7]]).to(fmt='aditjson')\n"
        "assert Molecule.from_str(text, fmt='aditjson').formula == 'H2'\n"
        "import sys; print([name for name in sys.modules if name in ('torch', 'adit_model.model')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_generator_is_a_good_mson_citizen(generator: ADiTGenerator, tmp_path: Path) -> None:
    dumpfn(generator, tmp_path / "generator.json")
    assert loadfn(tmp_path / "generator.json") == generator


def test_filters_are_the_predicates_in_a_transmuter(salt: Structure, tmp_path: Path) -> None:
    crushed = Structure(Lattice.cubic(2.0), ["Na", "Cl"], [[0, 0, 0], [0.1, 0, 0]])
    unbalanced = Structure(
        Lattice.cubic(8.0), ["Na", "Na", "Cl"], [[0, 0, 0], [0.3] * 3, [0.6] * 3]
    )
    structures = [salt, salt * (1, 1, 2), crushed, unbalanced]
    assert [is_structure_valid(each) for each in structures] == [True, True, False, True]
    assert not is_composition_valid(unbalanced.composition)
    transmuter = StandardTransmuter([TransformedStructure(each) for each in structures])
    for each, left in (
        (StructureValidFilter(), 3),
        (SmactFilter(), 2),
        (LematFilter(), 2),
        (UniqueFilter(), 1),
        (NovelFilter(), 0),  # the model was trained with salt
    ):
        transmuter.apply_filter(each)
        assert len(transmuter) == left, each
        assert json.loads(each.to_json(), cls=MontyDecoder) == each
    with pytest.raises(ValueError, match="No oxidation-state table 'x'"):
        SmactFilter("x")


def test_a_novel_crystal_passes(salt: Structure) -> None:
    novel = salt.copy()
    novel.replace_species({"Na": "Fr", "Cl": "At"})
    assert NovelFilter().test(novel)
    assert not NovelFilter().test(salt)
    with pytest.raises(ValueError, match="crystals are needed"):
        NovelFilter("molecule").test(salt)


def test_variations_chain_with_filters_in_a_transmuter(
    generator: ADiTGenerator, salt: Structure
) -> None:
    vary = ADiTVariationTransformation(strength=0.4, num=5, generator=generator)
    transmuter = StandardTransmuter([TransformedStructure(salt)], [vary], extend_collection=4)
    assert len(transmuter) == 4
    transmuter.apply_filter(StructureValidFilter())
    kept = transmuter.transformed_structures
    assert 0 < len(kept) <= 4
    for each in kept:
        assert is_structure_valid(each.final_structure)
        assert each.final_structure.properties["adit"]["strength"] == 0.4
        assert each.history[0]["strength"] == 0.4
        assert set(each.history[0]["output_parameters"]) == {
            "structure_valid", "composition_valid",
        }  # fmt: skip
        again = TransformedStructure.from_dict(json.loads(json.dumps(each.as_dict())))
        assert again.final_structure == each.final_structure


def test_variations_are_ranked_and_repeatable() -> None:
    cell = Structure.from_spacegroup(
        "Pm-3m", Lattice.cubic(3.9), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0]]
    )
    salt = (cell * (1, 1, 2)).copy()
    salt.replace(0, "Ba")
    release = ADiTGenerator(num_steps=1, precision="float32")  # so that some are not valid
    vary = ADiTVariationTransformation(strength=1.0, num=12, generator=release)
    ranked = vary.apply_transformation(salt, return_ranked_list=True)
    verdicts = [(each["structure_valid"], each["composition_valid"]) for each in ranked]
    assert len(ranked) == 12
    assert len(set(verdicts)) > 1
    assert verdicts == sorted(verdicts, reverse=True)
    assert len(vary.apply_transformation(salt, return_ranked_list=3)) == 3
    again = json.loads(vary.to_json(), cls=MontyDecoder)
    assert again.apply_transformation(salt) == ranked[0]["structure"]
    for strength in (0, 1.5, True):
        with pytest.raises(ValueError, match="strength must be above 0"):
            ADiTVariationTransformation(strength)


def test_symmetrized_output_is_exact_and_keeps_the_provenance(salt: Structure) -> None:
    noisy = salt.copy()
    noisy.perturb(0.02, seed=0)
    noisy.properties["adit"] = {"id": "tiny/0/0"}
    assert SpacegroupAnalyzer(noisy, symprec=1e-3).get_space_group_number() < 225
    exact = symmetrized(noisy, tolerance=0.1)
    assert SpacegroupAnalyzer(exact, symprec=1e-5).get_space_group_number() == 225
    assert exact.properties["adit"] == {
        "id": "tiny/0/0", "space_group": 225, "symmetry_tolerance": 0.1,
    }  # fmt: skip
    assert is_match(noisy, exact)
    assert SpacegroupAnalyzer(symmetrized(noisy, 1e-4), 1e-5).get_space_group_number() < 225
    with pytest.raises(ValueError, match="must be above 0"):
        symmetrized(salt, 0)
    with pytest.raises(ValueError, match="no symmetry of Na1"):
        symmetrized(Structure(Lattice.cubic(600), ["Na"], [[0, 0, 0]]))
