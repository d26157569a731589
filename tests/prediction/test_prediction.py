"""A search: which cells, which structures are one, what competes, and nothing lost at Ctrl-C."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from adit_plugins import predict
from adit_plugins.hull import Hull
from adit_plugins.prediction.cells import cell_of, fitting_cells
from adit_plugins.prediction.known import read_seeds
from adit_plugins.prediction.ranking import ENERGY_WINDOW, Contestant, distinct, ranked
from adit_plugins.prediction.search import FIRST_ROUND
from adit_plugins.relax import RelaxResult, relax

SIZES = range(1, 21)


def contestant(atoms: Atoms, energy_per_atom: float, name: str) -> Contestant:
    energy = energy_per_atom * len(atoms)
    result = RelaxResult(atoms, True, "converged", 1, energy, energy_per_atom, 0.01, "made up")
    return Contestant(result, sample_ids=(name,))


def shaken(atoms: Atoms, seed: int) -> Atoms:
    moved = atoms.copy()
    moved.rattle(0.01, seed=seed)
    return moved


@pytest.mark.parametrize(
    ("formula", "num_atoms", "cells"),
    [
        ("NaCl", None, list(range(2, 21, 2))),
        ("LiFePO4", None, [7, 14]),
        ("Na2MnFe(CN)6", [16, 32], [16]),  # what is beyond is left out, and said
        ("Ti2O4", None, [6, 12, 18]),  # as it was written
    ],
)
def test_a_cell_holds_a_multiple_of_the_formula(
    formula: str, num_atoms: list[int] | None, cells: list[int]
) -> None:
    found, said = fitting_cells(formula, SIZES, num_atoms)
    assert found == cells
    assert "up to 20 atoms" in said
    assert ("Left out: 32" in said) == (num_atoms == [16, 32])


@pytest.mark.parametrize(
    ("formula", "num_atoms", "parts"),
    [
        ("Ca10(PO4)6(OH)2", None, ["44 atoms", "up to 20", "at most 20"]),
        ("Ti20O40", None, ["60 atoms", "up to 20", "TiO2, of 3 atoms"]),
        ("TiO2", [4], ["num_atoms=4", "3 atoms", "3, 6, 9, 12, 15 and 18 atoms"]),
        ("TiO2", [21], ["21", "out of reach", "18"]),
    ],
)
def test_a_formula_that_does_not_fit(
    formula: str, num_atoms: list[int] | None, parts: list[str]
) -> None:
    with pytest.raises(ValueError, match="atoms") as error:
        fitting_cells(formula, SIZES, num_atoms)
    for part in parts:
        assert part in str(error.value)


def test_any_run_of_samples_has_the_share_of_each_size() -> None:
    histogram = [0, 0, 100, 0, 600, 0, 300]
    shares = np.array([100 / 2, 600 / 4, 300 / 6])
    for start in (0, 1000):
        drawn = [cell_of(i, [2, 4, 6], histogram) for i in range(start, start + 50)]
        counts = [drawn.count(size) for size in (2, 4, 6)]
        assert np.abs(counts - 50 * shares / shares.sum()).max() < 2


def test_equal_structures_are_one_and_polymorphs_are_not() -> None:
    salt, blende = bulk("NaCl", "rocksalt", 5.6), bulk("NaCl", "zincblende", 6.1)
    pool = [
        contestant(blende, -3.37, "d"),
        contestant(shaken(salt * (2, 1, 1), 0), -3.399, "b"),
        contestant(salt, -3.4, "a"),
        contestant(salt, -3.4 + 2 * ENERGY_WINDOW, "e"),  # equal, but not in its energy
        contestant(shaken(salt, 1), -3.395, "c"),
    ]
    found = distinct(pool)
    assert [each.sample_ids for each in found] == [("a", "b", "c"), ("d",), ("e",)]
    predictions, problems = ranked(found, Hull.load())
    assert not problems
    assert [each.space_group for each in predictions] == [225, 216, 225]
    assert [len(each.structure) for each in predictions] == [2, 2, 2]
    assert [each.num_found for each in predictions] == [3, 1, 1]
    assert predictions[1].energy_above_lowest == pytest.approx(0.03)
    assert predictions[0].energy == pytest.approx(-6.8)
    # NaCl's own density at this lattice constant, by hand: 4 formula units in 5.6^3.
    assert predictions[0].density == pytest.approx(4 * 58.44 / 0.602214 / 5.6**3, rel=1e-3)


def test_a_seed_takes_the_elements_of_the_formula(tmp_path: Path) -> None:
    perovskite = Atoms(
        "SrTiO3", cell=[3.9] * 3, pbc=True,
        scaled_positions=[[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
    )  # fmt: skip
    path = tmp_path / "seeds.extxyz"
    ase.io.write(path, [perovskite, bulk("MgO", "rocksalt", 4.2)])
    made = read_seeds(path, "BaSnO3")
    assert [atoms.get_chemical_formula() for _, atoms in made] == ["BaO3Sn"] * 2  # either place
    name, first = made[0]
    assert "Sr to Ba" in name and "Ti to Sn" in name
    assert first.symbols[0] == "Ba" and first.get_volume() > perovskite.get_volume()
    with pytest.raises(ValueError, match="MgO, SrTiO3"):
        read_seeds(path, "Al2O3")


@pytest.fixture
def settings(told_checkpoint: str) -> dict[str, Any]:
    """A small network, and a potential that takes milliseconds."""
    return {
        "checkpoint": told_checkpoint, "num_steps": 2, "device": "cpu",
        "prefilter": "cheap_potential:make", "max_steps": 20,
    }  # fmt: skip


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_known_structures_compete_by_a_real_potential(tmp_path: Path, told_checkpoint: str) -> None:
    path = tmp_path / "known.extxyz"
    ase.io.write(path, [bulk("NaCl", "rocksalt", 5.6), bulk("MgO", "rocksalt", 4.2)])
    found = predict(
        "NaCl", 3, reference=path, checkpoint=told_checkpoint, num_steps=2, max_steps=40
    )
    best = found[0]  # a network of random weights finds nothing so low
    assert len(best.known_as) == 1 and best.space_group == 225 and best.num_found == 0
    assert best.potential == "mace-adit"
    assert best.energy_above_hull is not None and abs(best.energy_above_hull) < 0.1
    assert sum(each.num_found for each in found) == found.about.num_relaxed <= 3
    assert any("no sample ended in" in note for note in found.notes)
    assert "Fm-3m" in found._repr_html_() or "225" in found._repr_html_()


def test_ctrl_c_keeps_what_is_finished_and_resume_ends_in_the_same_table(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    all_of_it = predict("NaCl", 6, out=whole, **settings)
    assert sum(each.num_found for each in all_of_it) == all_of_it.about.num_relaxed

    def press(stage: str, done: int, _total: int) -> None:
        if (stage, done) == ("relaxed", 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict("NaCl", 6, out=broken, progress=press, **settings)
    content = json.loads((broken / "predictions.json").read_text())
    assert content["stopped"] == "interrupted"
    assert len(ase.io.read(broken / "relaxed.extxyz", ":")) == 3
    with (broken / "relaxed.extxyz").open("a") as file:
        file.write("4\nLattice=")  # half a frame, as a crash leaves it
    with pytest.raises(ValueError, match="--resume"):
        predict("NaCl", 6, out=broken, **settings)
    with pytest.raises(ValueError, match="max_steps"):
        predict("NaCl", 6, out=broken, resume=True, **{**settings, "max_steps": 5})
    predict("NaCl", 4, out=broken, resume=True, **settings)
    predict("NaCl", 6, out=broken, resume=True, **settings)
    assert len(table(broken)) == len(table(whole))
    for one, other in zip(table(broken), table(whole), strict=True):
        for name in ("rank", "file", "num_atoms", "num_found", "converged"):
            assert one[name] == other[name]
        # Samples come back from their file, of eight decimals.
        assert float(one["energy_per_atom"]) == pytest.approx(
            float(other["energy_per_atom"]), abs=1e-4
        )
    cifs = sorted(path.name for path in (broken / "cif").glob("*.cif"))
    assert cifs == sorted(Path(row["file"]).name for row in table(whole))
    assert (broken / "report.html").stat().st_size > 100_000


def test_the_second_potential_ranks_first(settings: dict[str, Any]) -> None:
    found = predict("NaCl", 5, relaxer="cheap_potential:make_pessimist", keep=2, **settings)
    refined = [each.refined for each in found]
    assert refined == sorted(refined, reverse=True) and 1 <= sum(refined) <= 2
    assert {each.potential for each in found if each.refined} == {"pessimist"}
    lowest = predict("NaCl", 5, **settings)[0]  # by the first potential, of all
    for each in found:
        if not each.refined:
            above = each.energy_per_atom - lowest.energy_per_atom
            assert each.energy_above_lowest == pytest.approx(above)
    assert sum(each.num_found for each in found) == found.about.num_relaxed


def test_what_competes_and_what_is_refined_is_not_relaxed_again(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, out = tmp_path / "known.extxyz", tmp_path / "out"
    ase.io.write(reference, [bulk("NaCl", kind, 5.6) for kind in ("rocksalt", "zincblende")])
    # Steps of which each ends elsewhere, so that a mistaken start would show.
    more = {**settings, "max_steps": 3, "relaxer": "cheap_potential:make_pessimist", "keep": 4}
    whole = predict("NaCl", 6, reference=reference, out=tmp_path / "whole", **more)

    def press(stage: str, done: int, _total: int) -> None:
        if (stage, done) == ("by cheap_potential:make_pessimist", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict("NaCl", 6, reference=reference, out=out, progress=press, **more)
    assert len(ase.io.read(out / "refined.extxyz", ":")) == 2
    with (out / "refined.extxyz").open("a") as file:
        file.write("4\nLattice=")  # half a frame, as a crash leaves it
    relaxed: list[str] = []

    def counted(structures: list[Atoms], relaxer: str, *args: Any, **more: Any) -> Any:
        relaxed.extend([relaxer] * len(structures))
        return relax(structures, relaxer, *args, **more)

    monkeypatch.setattr("adit_plugins.prediction.store.relax", counted)
    again = predict("NaCl", 6, reference=reference, out=out, resume=True, **more)
    assert relaxed == ["cheap_potential:make_pessimist"] * 2
    assert [each.names for each in again] == [each.names for each in whole]
    assert [each.refined for each in again] == [each.refined for each in whole]
    for one, other in zip(again, whole, strict=True):
        assert one.energy_per_atom == pytest.approx(other.energy_per_atom, abs=1e-4)
    # Other settings of the second stage are another relaxation; both stay.
    predict("NaCl", 6, reference=reference, out=out, resume=True, **{**more, "keep": 5})
    predict("NaCl", 6, out=out, resume=True, **{**more, "relaxer": "cheap_potential:make"})
    predict("NaCl", 6, reference=reference, out=out, resume=True, **{**more, "keep": 5})
    assert relaxed.count("cheap_potential:make_pessimist") == 3


def test_minutes_end_a_search_and_a_system_draws_compositions(settings: dict[str, Any]) -> None:
    found = predict(num=None, minutes=1e-6, chemical_system="Na-Cl", **{**settings, "max_steps": 0})
    assert found.about.stopped == "minutes" and found.about.num_samples == FIRST_ROUND
    assert any(f"{len({each.formula for each in found})} formulas" in n for n in found.notes)
    assert len({each.formula for each in found}) > 1
    assert "NaCl" in (found.about.known_phases or {})
    above = [each.energy_above_hull for each in found]
    assert above == sorted(above, key=lambda value: value if value is not None else np.inf)


@pytest.mark.parametrize(
    ("request_", "part"),
    [
        ({"formula": "NaX"}, "'X'"),
        ({"formula": "Na4Cl4"}, "up to 7"),
        ({}, "formula"),
        ({"formula": "NaCl", "num": None}, "no end"),
        ({"formula": "NaCl", "minutes": 0.0}, "minutes=0"),
        ({"formula": "NaCl", "kind": "molecule"}, "crystal"),
        ({"formula": "HeLi"}, "He"),
        ({"formula": "NaCl", "num_atoms": 3}, "num_atoms=3"),
        ({"chemical_system": "Na-Cl", "num_atoms": 4}, "num_atoms"),
    ],
)
def test_what_cannot_be_is_refused(
    settings: dict[str, Any], request_: dict[str, Any], part: str
) -> None:
    with pytest.raises(ValueError, match=part):
        predict(**settings, **request_)
