"""Variations of the lowest structures: which, what counts, when it ends, and after Ctrl-C."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import pytest
from ase.build import bulk

from adit_plugins import ADiTGenerator, predict
from adit_plugins.prediction.ensemble import CHILDREN, PARENTS, children
from adit_plugins.prediction.ranking import Contestant, distinct
from adit_plugins.relax import RelaxResult


def contestant(name: str, structure: str, lattice: float, energy: float) -> Contestant:
    atoms = bulk("NaCl", structure, lattice)
    result = RelaxResult(atoms, True, "converged", 1, 2 * energy, energy, 0.01, "made up")
    return Contestant(result, sample_ids=(name,))


@pytest.fixture
def settings(told_checkpoint: str) -> dict[str, Any]:
    """A small network, and a potential that takes milliseconds."""
    return {
        "checkpoint": told_checkpoint, "num_steps": 2, "device": "cpu", "num_atoms": 2,
        "prefilter": "cheap_potential:make", "max_steps": 5,
    }  # fmt: skip


def test_the_lowest_are_varied_with_their_elements(told_checkpoint: str) -> None:
    generator = ADiTGenerator(checkpoint=told_checkpoint, num_steps=2, formula="NaCl", seed=3)
    pool = [
        contestant("a", "rocksalt", 5.6, -3.4), contestant("b", "zincblende", 6.1, -3.3),
        *(contestant(f"c{i}", "rocksalt", 7.0 + i, -2.0) for i in range(PARENTS)),
    ]  # fmt: skip
    made = list(children(generator, pool, 1))
    assert len(made) == CHILDREN
    assert {str(atoms.symbols) for atoms in made} == {"NaCl"}
    told = [atoms.info["adit"] for atoms in made]
    assert [each["index"] for each in told] == list(range(CHILDREN, 2 * CHILDREN))
    assert [each["variation_of"] for each in told[:4]] == ["a", "b", "c0", "c1"]
    assert {each["strength"] for each in told} == {0.2, 0.4, 0.6}
    assert len({tuple(atoms.cell.ravel().round(6)) for atoms in made}) == CHILDREN
    again = list(children(generator, pool, 1))
    assert all((a.positions == b.positions).all() for a, b in zip(made, again, strict=True))
    assert not list(children(generator, [], 0))


def test_variations_that_come_back_are_not_counted() -> None:
    lowest = contestant("a", "rocksalt", 5.6, -3.4)
    back = Contestant(contestant("", "rocksalt", 5.61, -3.39).result, variation_ids=("v",))
    (found,) = distinct([lowest, back])
    assert found.sample_ids == ("a",) and found.variation_ids == ("v",)
    assert found.names == ("a", "v")


def test_it_ends_when_nothing_lower_comes_and_goes_on_after_ctrl_c(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adit_plugins.prediction.search.PATIENCE", 1)  # the rounds are alike
    for module in ("search", "ensemble"):
        monkeypatch.setattr(f"adit_plugins.prediction.{module}.CHILDREN", 4)
    whole = predict("NaCl", 4, ensemble=True, out=tmp_path / "whole", **settings)
    about = whole.about
    assert about.stopped in ("settled", "rounds") and about.num_samples == 4
    assert about.num_variations >= 4
    assert sum(each.num_found for each in whole) == about.num_relaxed <= 4
    assert any(f"{about.num_variations} variations" in note for note in about.notes)

    def press(stage: str, done: int, _total: int) -> None:
        if (stage, done) == ("variations relaxed", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict("NaCl", 4, ensemble=True, out=tmp_path / "broken", progress=press, **settings)
    assert len(ase.io.read(tmp_path / "broken" / "varied-relaxed.extxyz", ":")) == 2
    again = predict("NaCl", 4, ensemble=True, out=tmp_path / "broken", resume=True, **settings)
    assert again[0].energy_per_atom == pytest.approx(whole[0].energy_per_atom, abs=1e-3)
    assert again.about.num_variations >= 4


def test_minutes_end_it_too(settings: dict[str, Any]) -> None:
    found = predict("NaCl", 2, ensemble=True, minutes=1e-6, **settings)
    assert found.about.stopped == "minutes" and found.about.num_variations <= CHILDREN
