"""Known and predicted phases on one hull."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk
from PIL import Image
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

from adit_plugins.hull.table import Hull
from adit_plugins.prediction.diagram import DIAGRAM, PHASES, known_phases, phase_rows, write_phases
from adit_plugins.prediction.ranking import Prediction

REFERENCE = Hull({"NaCl": -2.1, "Na3Cl": -0.2, "NaO": -1.0})


def prediction(structure: Structure, energy: float | None) -> Prediction:
    """With what a phase diagram takes of it."""
    unset: dict[str, Any] = dict.fromkeys(Prediction.__dataclass_fields__)
    return Prediction(**unset | {"structure": structure, "formation_energy_per_atom": energy})


def salt() -> Structure:
    made: Structure = AseAtomsAdaptor.get_structure(bulk("NaCl", "rocksalt", 5.6))
    return made


def test_predictions_stand_on_the_hull_of_all() -> None:
    low, high, lost = (prediction(salt(), energy) for energy in (-2.2, -2.0, None))
    known = known_phases([low], REFERENCE)
    assert known == {"NaCl": -2.1, "Na3Cl": -0.2}  # no oxygen was asked for
    rows, _ = phase_rows(known, [lost, high, low])
    by_name = {(row["formula"], row["origin"]): row for row in rows}
    assert by_name["NaCl", "predicted"]["rank"] == 3  # of a formula the lowest
    assert by_name["NaCl", "predicted"]["energy_above_hull"] == 0.0
    assert by_name["NaCl", "known"]["energy_above_hull"] == pytest.approx(0.1)
    assert by_name["NaCl", "known"]["decomposes_to"] == "NaCl*"
    # Na3Cl against a mixture of half Na, half NaCl as predicted.
    assert by_name["Na3Cl", "known"]["energy_above_hull"] == pytest.approx(-0.2 + 1.1)
    assert {row["formula"] for row in rows if row["rank"] == ""} >= {"Na", "Cl"}


def test_files_are_written_and_old_ones_go(tmp_path: Path) -> None:
    made = [prediction(salt(), -2.2)]
    written = write_phases(known_phases(made, REFERENCE), made, tmp_path)
    assert written == [tmp_path / PHASES, tmp_path / DIAGRAM]
    with (tmp_path / PHASES).open() as file:
        assert len(list(csv.DictReader(file))) == 5
    with Image.open(tmp_path / DIAGRAM) as picture:
        assert len(set(picture.convert("L").resize((64, 64)).getdata())) > 2  # not empty
    assert write_phases(None, made, tmp_path) == []
    assert not list(tmp_path.iterdir())


def test_elements_alone_or_too_many_have_no_diagram() -> None:
    six = Structure(10 * salt().lattice.matrix, ["Na", "Cl", "K", "Br", "Li", "F"],
                    [[i / 6, 0, 0] for i in range(6)])  # fmt: skip
    assert known_phases([prediction(six, -1.0)], REFERENCE) is None
    sodium = Structure([[4, 0, 0], [0, 4, 0], [0, 0, 4]], ["Na"], [[0, 0, 0]])
    assert known_phases([prediction(sodium, 0.0)], REFERENCE) is None
    assert phase_rows({}, [prediction(salt(), None)]) == ([], None)
