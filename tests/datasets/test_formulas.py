"""Formulas as a data set: compositions for the prior, and tables that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from adit_model.data import CompositionTable, PreparedData, SizeGroups
from adit_plugins.datasets import DatasetError, prepare
from adit_plugins.datasets.formulas import formulas
from adit_plugins.structures.entries import ReadingNotice


def test_formulas_are_compositions_for_the_prior(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "formula": ["Fe2O3", "NaCl", "Ca(OH)2", "KMnO4", "Si", "", "Li0.5CoO2", "H25", "NaCl"],
            "num_atoms": [10, 2, np.nan, 24, 3, 1, 8, 25, 3],
            "energy_above_hull": [0.0, 0.1, np.nan, 0.05, 0.2, 0, 0, 0, 0],
            "split": ["train"] * 8 + ["test"],
        }
    )
    table.to_csv(tmp_path / "mine.csv", index=False)
    with pytest.warns(ReadingNotice) as told:
        (path,) = prepare(["formulas"], tmp_path / "out", tmp_path / "mine.csv")
    said = [str(warning.message) for warning in told]
    assert said == [
        "mine.csv: 1 of 9 rows have a formula that cannot be read and are left out; the first: ''",
        "mine.csv: 1 of 9 rows have a formula without whole numbers of atoms and are left out; "
        "the first: 'Li0.5CoO2'",
        "mine.csv: 1 of 9 rows have a num_atoms that is no multiple of the formula and are left "
        "out; the first: 'NaCl'",
    ]
    data = PreparedData.load(path)
    assert (data.kind, data.coords, data.cell) == ("crystal", None, None)
    rows = CompositionTable(data, "train", "cpu")
    cells = [[z for z in row if z] for row in rows.numbers.tolist()]
    assert cells == [
        [8] * 6 + [26] * 4,
        [11, 17],
        [1, 1, 8, 8, 20],
        [8] * 12 + [19] * 3 + [25] * 3,  # of 24 atoms, the formula units that fit
        [14] * 3,
        [1] * 20,
    ]
    energies = rows.labels["energy_above_hull"].numpy()
    np.testing.assert_allclose(energies[:4], [0, 0.1, np.nan, 0.05])
    table.assign(split=[None, *table.split[1:]]).to_parquet(tmp_path / "mine.parquet")
    with pytest.warns(ReadingNotice):
        again = formulas(tmp_path / "mine.parquet")
    assert again.atomic_numbers.tolist() == data.atomic_numbers.tolist()
    with pytest.raises(ValueError, match="compositions only: they train the prior"):
        SizeGroups(data, "train", "cpu")


def test_a_table_without_formulas_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    with pytest.raises(DatasetError, match="No such file"):
        formulas(path)
    with pytest.raises(DatasetError, match="--source PATH"):
        formulas()
    path.write_text("name;energy\nNaCl;1\n")
    with pytest.raises(DatasetError, match="no column 'formula'; its columns: name, energy"):
        formulas(path)
    path.write_text("formula,split\nNaCl,later\n")
    with pytest.raises(DatasetError, match=r"row 0: split must be one of .*'later'"):
        formulas(path)
    path.write_text("formula,split\nunobtainium,train\n")
    with pytest.warns(ReadingNotice), pytest.raises(DatasetError, match="no row has a formula"):
        formulas(path)
    (tmp_path / "mine.parquet").write_text("no table")
    with pytest.raises(DatasetError, match="cannot be read as a table"):
        formulas(tmp_path / "mine.parquet")
