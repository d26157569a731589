"""Steering by any function: particles compete, by known weights, and samples stay reproducible."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from click.testing import CliRunner

from adit_model import ADiT
from adit_model.samplers import SamplingSettings, Steering
from adit_model.samplers.particles import _Slot
from adit_plugins import ADiTGenerator
from adit_plugins.cli import main
from adit_plugins.generation.steering import Named, find_score
from adit_plugins.hull.energies import place
from adit_plugins.hull.table import Hull
from adit_plugins.relax.run import load_relaxer


def generator(checkpoint: str, **recipe: Any) -> ADiTGenerator:
    return ADiTGenerator(**({"checkpoint": checkpoint, "num_steps": 6} | recipe))


def density(atoms: Atoms) -> float:
    return float(atoms.get_masses().sum() / atoms.get_volume()) * 1.66053906660


def test_particles_are_drawn_by_their_weights() -> None:
    scores = np.array([0.0, 1.0, 0.5, math.nan])
    expected = np.exp(-2.0 * scores[:3]) / np.exp(-2.0 * scores[:3]).sum()
    counts = np.zeros(4)
    for seed in range(2000):
        slot = _Slot([0, 5, seed], 2.0, np.zeros(4), [[i] for i in range(4)])
        kept = slot.resample(scores)
        counts += np.bincount(kept, minlength=4)
        assert slot.effective_sample_size == [round(1 / np.square(expected).sum(), 3)]
        assert [line[0] for line in slot.lineage] == kept.tolist()
    assert counts[3] == 0
    np.testing.assert_allclose(counts[:3] / counts.sum(), expected, atol=0.01)


def test_only_what_a_particle_gains_counts_the_second_time() -> None:
    slot = _Slot([0, 0, 0], 5.0, np.zeros(2), [[0], [1]])
    slot.resample(np.array([1.0, 1.0]))
    assert slot.effective_sample_size == [2.0]
    slot.resample(np.array([0.5, 0.5]))
    slot.resample(np.array([0.5, math.nan]))
    assert slot.effective_sample_size == [2.0, 2.0, 1.0]
    slot.resample(np.array([math.nan, math.nan]))
    assert slot.effective_sample_size[-1] is None and slot.failed == 3


@pytest.mark.parametrize("fixture", ["told_checkpoint", "tiny_checkpoint"])
def test_steered_samples_are_lower_or_higher(fixture: str, request: pytest.FixtureRequest) -> None:
    checkpoint = request.getfixturevalue(fixture)
    plain = [density(atoms) for atoms in generator(checkpoint).stream(24, as_="ase")]
    steered = generator(checkpoint, steer=density).samples(24)
    low = [density(sample.to_ase()) for sample in steered]
    assert mean(low) < mean(plain)
    for sample, value in zip(steered, low, strict=True):
        report = sample.provenance["steering"]
        assert report["score"] == pytest.approx(value, rel=1e-4)
        times = len(report["effective_sample_size"])
        assert times == 4 and len(report["lineage"]) == times + 1
        assert all(1 <= size <= 4 for size in report["effective_sample_size"])
        assert set(report["lineage"]) <= set(range(4)) and 1 <= report["ancestors"] <= 4
    high = [density(s.to_ase()) for s in generator(checkpoint, steer="-density").samples(24)]
    assert mean(high) > mean(plain)


def test_without_pressure_the_first_particle_is_the_plain_sample(told_checkpoint: str) -> None:
    recipe = generator(told_checkpoint)
    model = recipe.model
    elements = model.draw_elements(5)
    plain = model.draw(5, settings=SamplingSettings(4), elements=elements)
    steering = Steering(lambda batch: [0.0] * len(batch), particles=3)
    every = [each for each in elements for _ in range(3)]
    steered = model.draw(5, settings=SamplingSettings(4), elements=every, steering=steering)
    torch.testing.assert_close(steered.batch.positions, plain.batch.positions)
    assert steered.steering is not None and steered.steering[0]["lineage"][0] == 0


@pytest.mark.parametrize("kind", ["crystal", "molecule"])
def test_a_steered_sample_depends_on_its_seed_and_index_alone(
    told_checkpoint: str, kind: str
) -> None:
    recipe = generator(told_checkpoint, kind=kind, seed=2, steer=lambda a: a.positions[0, 0])
    every = recipe.samples(7)
    few = generator(told_checkpoint, kind=kind, seed=2, steer=recipe.steer, batch_size=3)
    for other in (few.samples(1, start=5)[0], few.sample_ids([every[5].id])[0], few.samples(7)[5]):
        assert other.atomic_numbers.tolist() == every[5].atomic_numbers.tolist()
        assert abs(other.positions - every[5].positions).max() < 1e-4
        assert other.provenance["steering"]["lineage"] == every[5].provenance["steering"]["lineage"]


def test_requests_and_conditions_hold_for_every_particle(told_checkpoint: str) -> None:
    asked = {"contains": ["Li"], "charge_balanced": True, "conditions": {"band_gap": 2.0}}
    for sample in generator(told_checkpoint, steer="volume", **asked).samples(5):
        assert 3 in sample.atomic_numbers
        assert sample.provenance["steer"] == "volume" and sample.provenance["particles"] == 4


def test_failures_are_the_worst_and_counted(told_checkpoint: str) -> None:
    def picky(atoms: Atoms) -> float:
        if 8 in atoms.numbers:
            raise RuntimeError("no oxygen, please")
        return math.nan if 9 in atoms.numbers else 1.0

    samples = generator(told_checkpoint, steer=picky, seed=1, num_atoms=2).samples(20)
    reports = [sample.provenance["steering"] for sample in samples]
    assert sum(report["failed"] for report in reports) > 20
    for sample, report in zip(samples, reports, strict=True):
        fine = not {8, 9} & set(sample.atomic_numbers.tolist())
        assert report["score"] == (1.0 if fine else None)
    assert sum(report["score"] == 1.0 for report in reports) > 10

    def never(atoms: Atoms) -> float:
        raise RuntimeError("the licence has expired")

    words = r"steer=never gave no finite number.*RuntimeError: the licence has expired"
    with pytest.raises(ValueError, match=words):
        generator(told_checkpoint, steer=never).samples(2)
    with pytest.raises(ValueError, match="TypeError"):
        generator(told_checkpoint, steer=lambda atoms: None).samples(1)


def test_names_mean_what_they_say() -> None:
    salt = Atoms("NaCl", [[0, 0, 0], [2.8, 0, 0]], cell=[5.6, 4, 4], pbc=True)
    assert find_score("density", "crystal")([salt])[0] == pytest.approx(density(salt))
    assert find_score("volume=40", "crystal")([salt])[0] == pytest.approx(5.6 * 8 - 40)
    water = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    assert find_score("-TPSA", "molecule")([water])[0] == pytest.approx(-31.5)
    gold = Atoms("Au", cell=[4.1, 4.1, 4.1], pbc=True)
    from ase.calculators.emt import EMT

    reference = gold.copy()
    reference.calc = EMT()
    assert find_score("emt", "crystal")([gold])[0] == reference.get_potential_energy()
    own = find_score("test_steering:density", "crystal")
    assert own([salt])[0] == density(salt)
    assert Named.read("density=4").score(3.0) == 1.0 == Named.read("density=4").score(5.0)


def test_the_height_of_a_crystal_is_that_of_its_place_on_the_hull() -> None:
    """On the scale of the potential's energies, whichever that is."""
    crystal = bulk("MgO", "rocksalt", a=4.3)
    (result,) = load_relaxer("mace-adit").relax([crystal], 0.05, 0)
    expected = place(result, Hull.load())[1].energy_above_hull
    assert find_score("energy_above_hull", "crystal")([crystal])[0] == pytest.approx(expected)


def test_the_small_potential_scores_crystals_on_the_hull() -> None:
    from ase.build import bulk

    score = find_score("energy_above_hull", "crystal")
    salt, stretched = bulk("NaCl", "rocksalt", 5.69), bulk("NaCl", "rocksalt", 6.6)
    low, high = score([salt, stretched])
    assert abs(low) < 0.05 < high - 0.05
    assert score([stretched])[0] == pytest.approx(high, abs=1e-4)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"steer": "colour"}, r"No score 'colour'. Known: density, volume, energy_above_hull.*chgnet"),
    ({"steer": "TPSA"}, "describes molecules"),
    ({"steer": "density", "kind": "molecule"}, "a score of crystals"),
    ({"steer": "no_such_module:f"}, "No score 'no_such_module:f'"),
    ({"steer": "density=x"}, "NAME=TARGET"),
    ({"steer": 3}, "function or a name"),
    ({"steer": "density", "sampler": "euler"}, "sampler='ancestral'"),
    ({"steer": "density", "particles": 1}, "particles is 1"),
    ({"steer": "density", "steer_weight": -1}, "above 0"),
    ({"steer_weight": 1.0}, "needs steer"),
]


@pytest.mark.parametrize(("recipe", "words"), WRONG)
def test_what_cannot_be_steered_says_so(
    told_checkpoint: str, recipe: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        generator(told_checkpoint, **recipe).samples(1)


def test_recipes_keep_names_and_refuse_code(told_checkpoint: str, tmp_path: Path) -> None:
    recipe = generator(told_checkpoint, steer="-density", conditions={"band_gap": 2.0})
    saved = recipe.save(tmp_path / "dense.adit")
    assert ADiTGenerator.load(saved) == recipe
    recipe.check()
    for code in (density, "test_steering:density"):
        with pytest.raises(ValueError, match="names no code"):
            generator(told_checkpoint, steer=code).save(tmp_path / "code.adit")
    content = json.loads(saved.read_text()) | {"steer": "os:getcwd"}
    saved.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="names code to run"):
        ADiTGenerator.load(saved)
    with pytest.raises(ValueError, match="not steered"):
        recipe.variations(recipe.samples(1)[0], 1)


def test_the_command_line_steers(told_checkpoint: str, tmp_path: Path) -> None:
    out = tmp_path / "dense.json"
    base = ["generate", "--checkpoint", told_checkpoint, "--num", "2", "--num-steps", "4"]
    steer = ["--steer=-density", "--particles", "3", "--steer-weight", "0.5"]
    result = CliRunner().invoke(main, [*base, "--out", str(out), *steer])
    assert result.exit_code == 0, result.output
    for each in json.loads(out.read_text()):
        told = each["properties"]["adit"]
        assert told["steer"] == "-density" and told["steering"]["weight"] == 0.5
        assert told["steering"]["particles"] == 3


def test_draw_refuses_what_does_not_fit_together(told_checkpoint: str) -> None:
    model = ADiT.from_pretrained(told_checkpoint, device="cpu")
    steering = Steering(lambda batch: [0.0] * len(batch), particles=2)
    with pytest.raises(ValueError, match="as many elements"):
        model.draw(1, elements=[[3, 8], [3, 8, 8]], steering=steering)
    with pytest.raises(ValueError, match="ancestral"):
        model.draw(1, settings=SamplingSettings(sampler="heun"), num_atoms=2, steering=steering)
    with pytest.raises(ValueError, match="rise between 0 and 1"):
        Steering(lambda batch: [], times=(0.5, 0.4))
