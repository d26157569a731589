"""Crystals in two splits, and what a data card counts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from pymatgen.core import Lattice, Structure
from test_datasets import rock_salt, rutile

from adit_model.data import PreparedData
from adit_plugins.cli import main
from adit_plugins.datasets import DatasetError, overlap, prepare
from adit_plugins.datasets.card import card_of
from adit_plugins.datasets.crystals import crystals
from adit_plugins.datasets.overlap import overlapping, structure_of


def cesium_chloride(a: float) -> Structure:
    return Structure(Lattice.cubic(a), ["Cs", "Cl"], [[0, 0, 0], [0.5] * 3])


def splits_table(folder: Path) -> Path:
    """Rock salt in test, and strained as a primitive cell in train; rutile in val and train."""
    same = rock_salt().get_primitive_structure()
    same.scale_lattice(same.volume * 1.05)
    other = Structure(Lattice.cubic(3.4), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3])
    rows = [
        (rock_salt(), "test", 5.0),
        (same, "train", 4.0),
        (other, "train", 3.0),
        (rutile(), "val", 2.0),
        (rutile(), "train", 1.0),
        (rutile(), "test", 0.5),
        (cesium_chloride(4.1), "train", 6.0),
        (cesium_chloride(4.1), "train", 7.0),
    ]
    table = pd.DataFrame({
        "cif": [s.to(fmt="cif") for s, _, _ in rows],
        "split": [split for _, split, _ in rows],
        "band_gap": [gap for *_, gap in rows],
    })  # fmt: skip
    table.to_csv(folder / "table.csv")
    return folder / "table.csv"


WANTED = [False, True, False, True, True, False, False, False]


@pytest.mark.parametrize("nearest", [overlap.NEAREST, 0])
def test_what_equals_a_held_out_crystal_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nearest: int
) -> None:
    """Whatever its cell; duplicates within a split are left alone. Also by invariants first."""
    data = crystals(splits_table(tmp_path))
    if nearest == 0:
        monkeypatch.setattr(overlap, "NEAREST", 1)
        more = pd.read_csv(tmp_path / "table.csv")
        more = pd.concat([more, more[more.index == 2].assign(split="test")])
        more.to_csv(tmp_path / "table.csv", index=False)
        data = crystals(tmp_path / "table.csv")
    wanted = WANTED if nearest else [False, True, True, True, True, False, False, False, False]
    assert overlapping(data).tolist() == wanted


def test_distinct_splits_leave_it_out_and_keep_the_rest(tmp_path: Path) -> None:
    said: list[str] = []
    source = splits_table(tmp_path)
    (path,) = prepare(
        ["crystals"], tmp_path / "out", source, report=said.append, distinct_splits=True
    )
    data, every = PreparedData.load(path), crystals(source)
    assert said == [
        "crystals: 3 of 8 crystals equal one that is held out of training and are left out"
    ]
    kept = [i for i, equal in enumerate(WANTED) if not equal]
    assert data.split.tolist() == every.split[kept].tolist()
    assert data.labels["band_gap"].tolist() == every.labels["band_gap"][kept].tolist()
    (starts, old_starts) = ([0, *each.num_atoms.cumsum(0).tolist()] for each in (data, every))
    for place, row in enumerate(kept):
        same = structure_of(every, row, old_starts[row])
        assert structure_of(data, place, starts[place]) == same
    assert not overlapping(data).any()
    with pytest.raises(DatasetError, match="leave out --shard-size"):
        prepare(["crystals"], tmp_path / "x", source, shard_size=2, distinct_splits=True)


def test_a_card_counts_what_is_there(tmp_path: Path) -> None:
    (path,) = prepare(["crystals"], tmp_path / "out", splits_table(tmp_path))
    result = CliRunner().invoke(main, ["data", "card", str(path), "--compare-splits"])
    assert result.exit_code == 0, result.output
    card = json.loads(result.stdout)
    assert (card["structures"], card["splits"]) == (8, {"train": 5, "val": 1, "test": 2})
    assert card["atoms"] == {"fewest": 2, "mean": 4.2, "most": 8}
    assert card["elements"] == 5 and card["most_common_elements"][0] == "O"
    assert card["different_compositions"] == 4  # of the cells: NaCl twice, Na4Cl4 is its own
    assert card["labels"]["band_gap"]["known"] == 8
    assert card["equal_to_one_held_out"] == {"train": 2, "val": 1}
    molecules = PreparedData.load(path)
    with pytest.raises(DatasetError, match="has no crystals"):
        card_of(PreparedData(**{**vars(molecules), "kind": "molecule"}), compared=True)
    assert np.isfinite(card["labels"]["density"]["high"])
