"""What the shipped table's gaps are likely to cost."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest

from adit_plugins.hull import thinness
from adit_plugins.hull.calibration import calibration
from adit_plugins.hull.table import Hull
from adit_plugins.hull.thinness import likely_too_low_by, thin_note


def test_a_thin_system_costs_more_than_a_well_known_one() -> None:
    hull = Hull.load()
    thin = likely_too_low_by(hull.energy_above_hull("RbPtPuAuXe", 0.0))
    known = likely_too_low_by(hull.energy_above_hull("LiMnPO4", 0.0))
    assert thin is not None and known is not None
    assert 0.2 > thin > known >= 0
    assert likely_too_low_by(hull.energy_above_hull("NaCl", 0.0)) is None  # taken as known
    assert likely_too_low_by(Hull({"NaCl": -2.0}).energy_above_hull("NaCl", 0.0)) is None


def test_there_is_a_number_for_each_class() -> None:
    content = json.loads((files("adit_plugins") / "data" / thinness.FILE).read_text())
    assert len(content["rises"]) == len(thinness.EDGES) + 1
    assert all(0 <= rise < 0.2 for rise in content["rises"])


def test_what_is_calibrated_belongs_to_the_shipped_table() -> None:
    content = json.loads((files("adit_plugins") / "data" / thinness.FILE).read_text())
    assert content["table"] == calibration()["table"] == thinness.table_digest()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("#1", 0.0), ("#2", None), ("#3", 0.0199)], ""),
        ([("#1", 0.031), ("#2", 0.05), ("#3", 0.0312)],
         "E hull is likely too low, as few phases are known there, by about 50 meV/atom: #2; by "
         "about 31 meV/atom: #1, #3."),
    ],
)  # fmt: skip
def test_the_note_names_the_rows(rows: list[tuple[str, float | None]], said: str) -> None:
    assert thin_note(rows) == said
