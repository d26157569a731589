"""Elements first: the prior draws them, the network is told them, and requests go that way."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from monty.json import MontyDecoder
from pymatgen.core import Composition

from adit_model import ADiT
from adit_plugins import ADiTGenerator
from adit_plugins.cli import main
from adit_plugins.structures.samples import Sample
from adit_plugins.validity.crystals import is_composition_valid


def generator(told_checkpoint: str, **recipe: Any) -> ADiTGenerator:
    return ADiTGenerator(**({"checkpoint": told_checkpoint, "num_steps": 2} | recipe))


def elements(sample: Sample) -> list[int]:
    return sample.atomic_numbers.tolist()


@pytest.mark.parametrize("kind", ["crystal", "molecule"])
def test_samples_consist_of_what_the_prior_drew(told_checkpoint: str, kind: str) -> None:
    recipe = generator(told_checkpoint, kind=kind, seed=3)
    samples = recipe.samples(12)
    drawn = recipe.model.draw_elements(12, kind, seed=3)
    assert [elements(sample) for sample in samples] == drawn
    assert len(set(map(tuple, drawn))) > 6
    for sample in samples:
        assert sample.provenance["elements_first"] is True
        assert 0 <= sample.provenance["elements_agreement"] <= 1


def test_a_sample_depends_on_its_seed_and_index_alone(told_checkpoint: str) -> None:
    recipe = generator(told_checkpoint, contains=["Li"], seed=1)
    every = recipe.samples(9)
    alone = recipe.samples(1, start=7)[0]
    again = recipe.sample_ids([every[7].id])[0]
    for other in (alone, again):
        assert elements(other) == elements(every[7])
        assert abs(other.positions - every[7].positions).max() < 1e-4
    loaded = MontyDecoder().decode(recipe.to_json())
    assert loaded == recipe
    assert elements(loaded.samples(1, start=7)[0]) == elements(every[7])


REQUESTS: list[tuple[dict[str, Any], Any]] = [
    ({"formula": "LiO2"}, lambda c: c.reduced_formula == "LiO2"),
    ({"chemical_system": "Li-O-F"}, lambda c: c.chemical_system == "F-Li-O"),
    (
        {"elements": ["Li", "Na", "Cl"]},
        lambda c: set(c.chemical_system.split("-")) <= {"Li", "Na", "Cl"},
    ),
    ({"exclude_elements": ["O", "F"]}, lambda c: not {"O", "F"} & {e.symbol for e in c}),
    ({"contains": ["Na", "C"], "num_atoms": 5}, lambda c: {"Na", "C"} <= {e.symbol for e in c}),
]


def test_wildcards_and_systems_that_take_turns(told_checkpoint: str) -> None:
    def made(**request: Any) -> list[set[str]]:
        samples = generator(told_checkpoint, **request).samples(12)
        return [{e.symbol for e in sample.to_pymatgen().composition} for sample in samples]

    wild = made(chemical_system="Li-*-O")
    assert all(len(each) == 3 and {"Li", "O"} <= each for each in wild)
    assert len(set(map(frozenset, wild))) > 1
    assert all(len(each) == 2 for each in made(chemical_system="*-*"))
    turns = made(chemical_system="Li-O-F, Na-Cl")
    assert turns == [{"Li", "O", "F"}, {"Na", "Cl"}] * 6
    again = generator(told_checkpoint, chemical_system="Li-O-F, Na-Cl").samples(1, start=7)
    assert {e.symbol for e in again[0].to_pymatgen().composition} == {"Na", "Cl"}
    with pytest.raises(ValueError, match="Pu is asked for"):  # of the second, before the first
        generator(told_checkpoint, chemical_system="Li-O,Pu-O").check()


@pytest.mark.parametrize(("request_", "fits"), REQUESTS)
def test_every_sample_fits_its_request(told_checkpoint: str, request_: dict, fits: Any) -> None:
    for first in (None, False):
        samples = generator(told_checkpoint, elements_first=first, **request_).samples(10)
        for sample in samples:
            assert fits(sample.to_pymatgen().composition), (first, sample)
            assert request_.get("num_atoms", sample.num_atoms) == sample.num_atoms
            assert sample.provenance.get("elements_first", False) is (first is None)


def test_charge_balanced_compositions_and_how_they_are_recorded(told_checkpoint: str) -> None:
    plain = generator(told_checkpoint).samples(20)
    balanced = generator(told_checkpoint, charge_balanced=True).samples(20)
    valid = [is_composition_valid(s.to_pymatgen().composition) for s in plain]
    assert 0 < sum(valid) < 20
    assert all(is_composition_valid(s.to_pymatgen().composition) for s in balanced)
    assert balanced[0].provenance["charge_balanced"] is True
    for place, good in enumerate(valid):  # a draw that holds is kept as it is
        if good:
            assert elements(plain[place]) == elements(balanced[place])
    with pytest.raises(ValueError, match=r"no charge-balanced composition.*NaF2"):
        generator(told_checkpoint, charge_balanced=True, formula="NaF2").samples(1)
    with pytest.raises(ValueError, match="crystals"):
        generator(told_checkpoint, charge_balanced=True, kind="molecule")


def test_conditions_change_samples_and_are_checked(told_checkpoint: str) -> None:
    plain = generator(told_checkpoint).samples(6)
    asked = generator(told_checkpoint, conditions={"band_gap": 3.0, "space_group": 225})
    told = asked.samples(6)
    assert any(elements(a) != elements(b) for a, b in zip(plain, told, strict=True))
    assert told[0].provenance["conditions"] == {"band_gap": 3.0, "space_group": 225}
    for conditions, words in (
        ({"band_gap": 9.0}, r"band_gap.*0 to 8 eV.*training data.*9"),
        ({"space_group": 231}, r"space_group.*0\.\.230.*231"),
        ({"colour": 1}, r"No condition 'colour'.*band_gap, space_group"),
    ):
        with pytest.raises(ValueError, match=words):
            generator(told_checkpoint, conditions=conditions).samples(1)
    with pytest.raises(ValueError, match="one of crystals"):
        generator(told_checkpoint, kind="molecule", conditions={"band_gap": 1.0}).samples(1)
    with pytest.raises(ValueError, match=r"number or None.*'wide'"):
        generator(told_checkpoint, conditions={"band_gap": "wide"})


def test_the_draw_of_elements_is_led_by_a_condition(told_checkpoint: str) -> None:
    told = {"band_gap": 3.0}
    plain = generator(told_checkpoint, conditions=told)
    led = generator(told_checkpoint, conditions=told, condition_guidance={"band_gap": 4})
    first, second = plain.samples(6), led.samples(6)
    assert any(elements(a) != elements(b) for a, b in zip(first, second, strict=True))
    assert second[0].provenance["condition_guidance"] == {"band_gap": 4.0}
    assert ADiTGenerator.from_dict(led.as_dict()) == led
    for scales, words in (
        ({"space_group": 2.0}, "space_group.*tell band_gap"),
        ({"band_gap": -1.0}, "finite numbers of at least 0.*band_gap.*-1"),
        (2.0, "finite numbers of at least 0 by condition"),
    ):
        with pytest.raises(ValueError, match=words):
            generator(told_checkpoint, conditions=told, condition_guidance=scales)
    with pytest.raises(ValueError, match="needs them first"):
        generator(
            told_checkpoint, conditions=told, condition_guidance={"band_gap": 2.0},
            elements_first=False,
        )  # fmt: skip


def test_the_denoiser_listens_to_each_condition(told_checkpoint: str) -> None:
    model = ADiT.from_pretrained(told_checkpoint, device="cpu")
    assert model.denoiser is not None
    x, t = torch.randn(2, 3, 8), torch.full((2,), 0.6)
    kind = {"kind": torch.ones(2, dtype=torch.long)}
    plain = model.denoiser(x, t, kind)
    told = {
        "elements": torch.tensor([[3, 8, 8], [11, 17, 17]]),
        "band_gap": torch.tensor([1.0, 5.0]),
        "space_group": torch.tensor([225, 1]),
    }
    for name, values in told.items():
        assert not torch.allclose(model.denoiser(x, t, kind | {name: values}), plain, atol=1e-4)
    none = {
        "elements": torch.zeros(2, 3, dtype=torch.long),
        "band_gap": torch.full((2,), torch.nan),
    }
    torch.testing.assert_close(model.denoiser(x, t, kind | none), plain)


def test_checkpoints_that_cannot_go_elements_first_say_so(tiny_checkpoint: str) -> None:
    recipe = ADiTGenerator(checkpoint=tiny_checkpoint, num_steps=2)
    assert "elements_first" not in recipe.samples(1)[0].provenance
    for wrong in ({"elements_first": True}, {"charge_balanced": True}):
        with pytest.raises(ValueError, match="no prior over elements"):
            ADiTGenerator(checkpoint=tiny_checkpoint, **wrong).samples(1)
    with pytest.raises(ValueError, match="elements_first must be one of"):
        ADiTGenerator(elements_first="yes")  # type: ignore[arg-type]


def test_variations_keep_the_elements(told_checkpoint: str) -> None:
    recipe = generator(told_checkpoint)
    start = recipe.samples(1)[0]
    for near in recipe.variations(start, 3, 0.6):
        assert Counter(elements(near)) == Counter(elements(start))


def test_bfloat16_gives_nearly_the_same_samples(told_checkpoint: str) -> None:
    plain, fast = (
        generator(told_checkpoint, precision=precision).samples(4)
        for precision in ("float32", "bfloat16")
    )
    for one, other in zip(plain, fast, strict=True):
        assert elements(one) == elements(other)  # the prior keeps its precision
        difference = abs(one.positions - other.positions).max()
        assert 0 < difference < 0.5
    assert fast[0].provenance["precision"] == "bfloat16"
    with pytest.raises(ValueError, match="one of auto, float32, bfloat16"):
        ADiTGenerator(precision="float16")  # type: ignore[arg-type]


def test_the_doctor_says_what_can_be_asked_for(
    told_checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adit_model.checkpoints import folder as checkpoint

    monkeypatch.setattr(checkpoint, "WEIGHTS_FOLDER", Path(told_checkpoint).parent)
    monkeypatch.setattr(checkpoint, "DEFAULT_NAME", Path(told_checkpoint).name)
    found = CliRunner().invoke(main, ["doctor"]).output
    assert "--condition band_gap=VALUE, 0 to 8 eV of crystals" in found
    assert "--condition space_group=CLASS, 1 to 230 of crystals" in found
    assert "elements first" in found


def test_the_command_line_takes_requests_and_conditions(
    told_checkpoint: str, tmp_path: Path
) -> None:
    out = tmp_path / "samples.json"
    base = ["generate", "--checkpoint", told_checkpoint, "--num", "3", "--num-steps", "2"]
    asked = ["--contains", "Li,O", "--condition", "band_gap=2", "--charge-balanced"]
    asked += ["--condition-guidance", "band_gap=1.5"]
    result = CliRunner().invoke(main, [*base, "--out", str(out), *asked])
    assert result.exit_code == 0, result.output
    for each in json.loads(out.read_text()):
        composition = Composition(Counter(s["species"][0]["element"] for s in each["sites"]))
        assert {"Li", "O"} <= {e.symbol for e in composition}
        assert each["properties"]["adit"]["conditions"] == {"band_gap": 2}
        assert each["properties"]["adit"]["condition_guidance"] == {"band_gap": 1.5}
    for wrong, words in (
        (["--condition", "band_gap"], "NAME=NUMBER"),
        (["--condition", "band_gap=x"], "NAME=NUMBER"),
        (["--condition", "band_gap=99"], "0 to 8 eV"),
        (["--condition-guidance", "band_gap=none"], "NAME=NUMBER, such as band_gap=2"),
        (["--condition-guidance", "band_gap=2"], "tell nothing"),
        (["--kind", "molecule", "--elements", "Fe"], "Fe"),
    ):
        result = CliRunner().invoke(main, [*base, "--out", str(tmp_path / "no.json"), *wrong])
        assert result.exit_code != 0
        assert words in result.output + str(result.exception)
    assert not (tmp_path / "no.json").exists()
