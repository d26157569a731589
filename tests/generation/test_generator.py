"""The generator: reproducible, lazy, independent of the batch size, and a recipe in JSON."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule as ase_molecule
from monty.json import MontyDecoder
from numpy.testing import assert_allclose, assert_array_equal
from pymatgen.core import Molecule, Structure

import adit_plugins
from adit_model import ADiT, precision
from adit_model.checkpoints.folder import CheckpointError
from adit_model.precision import faster_precision
from adit_plugins import ADiTGenerator, Sample, processes
from adit_plugins.generation.parallel import FEWEST, _Chunk, _failure, _make, num_processes
from adit_plugins.generation.recipe import AT_ONCE


@pytest.fixture
def recipe(tiny_checkpoint: str) -> dict[str, Any]:
    return {"checkpoint": tiny_checkpoint, "num_steps": 3, "device": "cpu"}


def assert_equal(first: list[Sample], second: list[Sample]) -> None:
    assert [s.id for s in first] == [s.id for s in second]
    for a, b in zip(first, second, strict=True):
        assert a.kind == b.kind
        assert_array_equal(a.atomic_numbers, b.atomic_numbers)
        assert_allclose(a.positions, b.positions, atol=1e-3)
        if a.lattice is not None:
            assert_allclose(a.lattice, b.lattice, atol=1e-3)


@pytest.mark.parametrize(("kind", "form"), [("crystal", Structure), ("molecule", Molecule)])
def test_generate_gives_pymatgen_objects(
    recipe: dict[str, Any], kind: Any, form: type[Structure | Molecule]
) -> None:
    structures = ADiTGenerator(kind=kind, seed=5, **recipe).generate(3)
    assert [type(s) for s in structures] == [form] * 3
    for index, structure in enumerate(structures):
        provenance = structure.properties["adit"]
        assert provenance["id"] == f"tiny/5/{index}"
        assert provenance["kind"] == kind
        assert provenance["num_steps"] == 3
        assert provenance["version"] == adit_plugins.__version__
        assert provenance["checkpoint_hash"] == ADiT.from_pretrained(recipe["checkpoint"]).hash
        json.dumps(provenance)


def test_the_number_has_a_default(recipe: dict[str, Any]) -> None:
    assert len(ADiTGenerator(**recipe).generate()) == 16


@pytest.mark.parametrize("kind", ["crystal", "molecule"])
def test_samples_do_not_depend_on_batch_size_or_start(recipe: dict[str, Any], kind: Any) -> None:
    whole = ADiTGenerator(kind=kind, batch_size=64, **recipe).samples(12)
    assert_equal(ADiTGenerator(kind=kind, batch_size=5, **recipe).samples(12), whole)
    assert_equal(ADiTGenerator(kind=kind, batch_size=1, **recipe).samples(4, start=6), whole[6:10])


def test_samples_are_divided_into_equal_parts(recipe: dict[str, Any]) -> None:
    generator = ADiTGenerator(**recipe)
    most = AT_ONCE["cpu"]
    assert generator.at_once() < most  # endless: the first ones come soon
    assert generator.at_once(most) == most
    assert generator.at_once(most + 1) == most // 2 + 1  # not all of them and a batch of one
    assert ADiTGenerator(batch_size=7, **recipe).at_once(most) == 7
    steered = ADiTGenerator(steer="density", particles=4, **recipe)
    assert steered.at_once(most) == most // 4


def test_processes_make_the_same_samples(recipe: dict[str, Any]) -> None:
    seen: list[tuple[int, int | None]] = []
    made = ADiTGenerator(workers=2, seed=4, **recipe).samples(
        5, start=3, progress=lambda done, of: seen.append((done, of))
    )
    assert_equal(made, ADiTGenerator(seed=4, **recipe).samples(5, start=3))
    counts = [done for done, _ in seen]
    assert counts == sorted(counts)
    assert seen[-1] == (5, 5)


def test_what_is_wrong_in_a_process_is_said_here(
    recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adit_plugins.generation.settings.MOST_GUIDANCE", 1e40)
    broken = _Chunk(ADiTGenerator(guidance_scale=1e30, **recipe), range(4, 6))
    end = list(_make([broken]))[-1].value
    assert isinstance(_failure(broken, end.problem), ValueError)
    assert "not finite" in str(_failure(broken, end.problem))
    assert "at samples 4..5; take fewer workers" in str(_failure(broken, processes.DIED))


def test_processes_are_used_where_they_pay(
    recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "available_cores", lambda: 4)
    automatic = ADiTGenerator(workers=None, **recipe)
    assert [num_processes(automatic, n) for n in (None, 1, FEWEST, 3 * FEWEST, 10**5)] == [
        0, 0, 0, 3, 4
    ]  # fmt: skip
    assert num_processes(ADiTGenerator(**recipe), 10**5) == 0  # a script may have no main guard
    with pytest.raises(ValueError, match="steer='module:function'"):
        ADiTGenerator(workers=2, steer=len, **recipe)


def test_automatic_precision_is_recorded_as_what_it_was(
    recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    salt = Atoms("NaCl", [[0, 0, 0], [2.8, 2.8, 2.8]], cell=[5.6] * 3, pbc=True)
    generator = ADiTGenerator(**recipe)
    fixed = {name: ADiTGenerator(precision=name, **recipe) for name in ("float32", "bfloat16")}
    assert faster_precision(torch.device("cpu")) in fixed
    for name, other in fixed.items():
        monkeypatch.setattr(precision, "faster_precision", lambda _, name=name: name)
        for mine, wanted in (
            (generator.samples(2), other.samples(2)),
            (generator.variations(salt, 2), other.variations(salt, 2)),
            (generator.complete(salt, 2, fixed=[0]), other.complete(salt, 2, fixed=[0])),
        ):
            assert_equal(mine, wanted)
            assert mine[0].provenance.get("precision", "float32") == name
    for make in (
        lambda each: each.samples(2),
        lambda each: each.variations(salt, 2),
        lambda each: each.complete(salt, 2, fixed=[0]),
    ):
        exact, rounded = (make(each)[0].positions for each in fixed.values())
        assert abs(exact - rounded).max() > 0  # what is recorded is what was done


def test_the_random_state_of_torch_has_no_influence(recipe: dict[str, Any]) -> None:
    torch.manual_seed(1)
    first = ADiTGenerator(**recipe).samples(3)
    torch.manual_seed(2)
    assert_equal(ADiTGenerator(**recipe).samples(3), first)


def test_seeds_and_kinds_give_different_samples(recipe: dict[str, Any]) -> None:
    positions = [
        ADiTGenerator(kind=kind, seed=seed, num_atoms=4, **recipe).samples(1)[0].positions
        for kind in ("crystal", "molecule")
        for seed in (0, 1)
    ]
    for i, a in enumerate(positions):
        for b in positions[i + 1 :]:
            assert abs(a - b).max() > 1e-3


def test_num_atoms_fixes_the_size(recipe: dict[str, Any]) -> None:
    samples = ADiTGenerator(num_atoms=5, **recipe).samples(4)
    assert {s.num_atoms for s in samples} == {5}
    assert samples[0].provenance["num_atoms"] == 5


def test_ids_make_the_same_samples_again(recipe: dict[str, Any]) -> None:
    made = ADiTGenerator(seed=3, **recipe).samples(6) + ADiTGenerator(seed=8, **recipe).samples(2)
    wanted = [made[i] for i in (7, 2, 5, 2)]
    again = ADiTGenerator(batch_size=2, **recipe).sample_ids([s.id for s in wanted])
    assert_equal(again, wanted)
    assert again[0].provenance["seed"] == 8


@pytest.mark.parametrize("text", ["", "tiny/0", "tiny/0/-1", "tiny/x/1", "/0/1", "tiny/0/1.5"])
def test_malformed_ids_are_refused(recipe: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match="form checkpoint/seed/index"):
        ADiTGenerator(**recipe).sample_ids([text])


def test_ids_of_another_checkpoint_are_refused(recipe: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is of checkpoint 'other', this generator has 'tiny'"):
        ADiTGenerator(**recipe).sample_ids(["tiny/0/0", "other/0/0"])


def test_stream_is_endless_lazy_and_made_in_chunks(recipe: dict[str, Any]) -> None:
    made: list[tuple[int, int | None]] = []
    stream = ADiTGenerator(batch_size=4, **recipe).stream(
        as_="ase", progress=lambda done, total: made.append((done, total))
    )
    assert made == []
    atoms = next(stream)
    assert isinstance(atoms, Atoms)
    assert made[-1] == (4, None)
    indices = [a.info["adit"]["index"] for a in islice(stream, 9)]
    assert indices == list(range(1, 10))
    assert made[-1] == (12, None)


def test_progress_counts_to_the_number_asked_for(recipe: dict[str, Any]) -> None:
    made: list[tuple[int, int | None]] = []
    ADiTGenerator(batch_size=3, **recipe).samples(7, 2, lambda done, of: made.append((done, of)))
    counts = [done for done, _ in made]
    assert counts == sorted(counts)
    assert made[-1] == (7, 7)


def test_recipe_survives_json(recipe: dict[str, Any]) -> None:
    generator = ADiTGenerator(kind="molecule", guidance_scale=1.5, seed=7, num_atoms=6, **recipe)
    generator.samples(1)  # the loaded network must not enter the recipe
    decoded = MontyDecoder().decode(generator.to_json())
    assert decoded == generator
    assert isinstance(decoded, ADiTGenerator)
    assert_equal(decoded.samples(2), generator.samples(2))


def test_guidance_is_the_checkpoints_own_unless_given(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    folder = shutil.copytree(recipe["checkpoint"], tmp_path / "guided")
    config = json.loads((folder / "config.json").read_text())
    config["guidance_scales"] = {"molecule": 1.5}
    (folder / "config.json").write_text(json.dumps(config))
    recipe |= {"checkpoint": str(folder)}
    own, given, none = (
        ADiTGenerator(kind="molecule", **recipe | extra).samples(2)
        for extra in ({}, {"guidance_scale": 1.5}, {"guidance_scale": 1.0})
    )
    assert_equal(own, given)
    assert [sample.provenance["guidance_scale"] for sample in own] == [1.5, 1.5]
    assert not np.allclose(own[0].positions, none[0].positions)
    crystals = ADiTGenerator(**recipe)  # the checkpoint says nothing of them
    assert crystals.samples(1)[0].provenance["guidance_scale"] == 1.0
    varied = crystals.variations(own[0], 1, 0.5)[0]
    assert varied.provenance["guidance_scale"] == 1.5
    config["guidance_scales"] = {"molecules": 1.5}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"guidance_scales.*crystal.*molecules"):
        ADiT.from_pretrained(folder)


def test_generators_share_one_network(recipe: dict[str, Any]) -> None:
    assert ADiTGenerator(**recipe).model is ADiTGenerator(kind="molecule", **recipe).model


def test_weights_trained_anew_are_loaded_anew(recipe: dict[str, Any], tmp_path: Path) -> None:
    folder = shutil.copytree(recipe["checkpoint"], tmp_path / "run")
    generator = ADiTGenerator(**recipe | {"checkpoint": folder})
    before = generator.model.hash
    changed = ADiT(generator.model.config)
    changed.save_pretrained(folder)
    later = time.time_ns() + 10**9  # file systems may keep whole seconds only
    for path in Path(folder).iterdir():
        os.utime(path, ns=(later, later))
    assert generator.model.hash != before


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("kind", "glass", "Known: crystal, molecule"),
        ("num_steps", 0, "at least 1"),
        ("num_steps", 2.5, "integer"),
        ("batch_size", -1, "at least 1"),
        ("seed", -1, "at least 0"),
        ("num_atoms", 0, "at least 1"),
        ("guidance_scale", float("nan"), "from 0 to 100"),
        ("guidance_scale", -1.0, "from 0 to 100"),
        ("guidance_scale", "2", "from 0 to 100"),
        ("sampler", "magic", "Known: ancestral, euler"),
    ],
)
def test_impossible_fields_name_value_and_allowed(field: str, value: Any, allowed: str) -> None:
    with pytest.raises(ValueError, match=allowed) as caught:
        ADiTGenerator(**{field: value})
    assert str(value) in str(caught.value)


def test_impossible_calls_are_refused_before_the_weights_are_loaded() -> None:
    generator = ADiTGenerator(checkpoint="no-such-checkpoint")
    for num in (0, -3, 1.5, True):
        with pytest.raises(ValueError, match=r"num is .* at least 1"):
            generator.generate(num)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Known: sample, ase, pymatgen"):
        generator.stream(3, as_="cif")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="start is -1"):
        generator.samples(1, start=-1)
    with pytest.raises(ValueError, match="no-such-checkpoint"):
        generator.generate(1)
    with pytest.raises(ValueError, match=r"No device 'abacus' here\. Known: cpu"):
        ADiTGenerator(device="abacus").generate(1)
    with pytest.raises(ValueError, match="no such file of ids"):
        generator.sample_ids(["ids.txt"])


def test_numbers_of_numpy_are_numbers(recipe: dict[str, Any]) -> None:
    recipe |= {"seed": np.int64(3), "guidance_scale": np.float32(1.5), "batch_size": 10**30}
    generator = ADiTGenerator(**recipe)
    assert ADiTGenerator.from_dict(json.loads(generator.to_json())) == generator
    assert len(generator.generate(np.int64(2))) == 2  # type: ignore[arg-type]


def test_outputs_that_are_not_finite_name_the_samples_and_the_guidance(
    recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adit_plugins.generation.settings.MOST_GUIDANCE", 1e40)
    recipe["guidance_scale"] = 1e38
    with pytest.raises(ValueError, match=r"not finite at guidance_scale=1e\+38 .*0\.\.1 of seed"):
        ADiTGenerator(**recipe).generate(2)


def test_one_id_need_not_be_a_list(recipe: dict[str, Any]) -> None:
    (sample,) = ADiTGenerator(**recipe).sample_ids("tiny/0/1")
    assert sample.id == "tiny/0/1"


def test_sizes_beyond_the_model_are_refused(recipe: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"num_atoms must be 1\.\.7"):
        ADiTGenerator(num_atoms=500, **recipe).generate(1)


def test_steps_are_the_checkpoints_own_unless_given(tiny_checkpoint: str, tmp_path: Path) -> None:
    folder = tmp_path / "few"
    shutil.copytree(tiny_checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    config["sampling"] = {"crystal": {"num_steps": 4}}
    (folder / "config.json").write_text(json.dumps(config))
    generator = ADiTGenerator(checkpoint=str(folder), device="cpu")
    (sample,) = generator.samples(1)
    assert sample.provenance["num_steps"] == 4 == generator.steps()
    (same,) = replace(generator, num_steps=4).samples(1)
    assert (same.positions == sample.positions).all()
    assert generator.steps("molecule") == 50
    (near,) = generator.variations(ase_molecule("H2O"), 1)
    assert near.provenance["num_steps"] == 50
    assert ADiTGenerator.from_dict(generator.as_dict()).num_steps is None
