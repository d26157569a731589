"""The builders of the shipped tables, on small files made here."""

import csv
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from adit_plugins.fingerprints import Fingerprints
from adit_plugins.hull import Hull
from adit_plugins.tables import main


def run(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def crystal(formula: str, numbers: list[int], a: float, **more: object) -> dict[str, object]:
    coords = [0.0, 0.0, 0.0, 0.5, 0.5, 0.5][: 3 * len(numbers)]
    cell = {"a": a, "b": a, "c": a, "alpha": 90.0, "beta": 90.0, "gamma": 90.0}
    row = {"formula": formula, "num_atoms": len(numbers), "atomic_numbers": numbers}
    row |= {"frac_coords": coords, "split": "train", "energy_above_hull": 0.0}
    return row | cell | more


def test_hull_reads_brackets_and_keeps_the_lowest(tmp_path: Path) -> None:
    rows = [("Mg(OH)2", -1.9), ("Mg(OH)2", -1.85), ("NaCl", -2.1), ("Na", 0.0)]
    source = tmp_path / "energies.parquet"
    pd.DataFrame(rows, columns=["formula", "hull_energy_per_atom"]).to_parquet(source)
    out = tmp_path / "hull.csv.gz"
    assert "3 formulas" in run("hull", source, out)
    first = out.read_bytes()
    hull = Hull.load(out)
    assert hull.energy_above_hull("MgO2H2", 0).hull_energy_per_atom == pytest.approx(-1.9)
    assert hull.energy_above_hull("NaCl", 0).hull_energy_per_atom == pytest.approx(-2.1)
    run("hull", source, out)
    assert out.read_bytes() == first


def test_crystal_fingerprints_take_only_what_was_trained_on(tmp_path: Path) -> None:
    source = tmp_path / "crystals.parquet"
    rows = [
        crystal("CsCl", [55, 17], 4.1),
        crystal("CsBr", [55, 35], 4.3, split="test"),
        crystal("CsI", [55, 53], 4.6, energy_above_hull=0.2),
    ]
    pd.DataFrame(rows).to_parquet(source)
    assert "1 crystals" in run("fingerprints", "crystals", source, tmp_path / "out.npz")
    assert len(Fingerprints.load(tmp_path / "out.npz")) == 1
    everything = run(
        "fingerprints", "crystals", source, tmp_path / "out.npz", "--max-energy-above-hull", "1"
    )
    assert "2 crystals" in everything


def test_molecule_fingerprints_leave_out_test_and_validation_rows(tmp_path: Path) -> None:
    smiles = ["C" * (i + 1) for i in range(25)]
    for name, part in {"one.csv": smiles[:7], "two.csv": smiles[7:]}.items():
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows([["Index", "SMILES"], *enumerate(part)])
    run("fingerprints", "molecules", tmp_path / "one.csv", tmp_path / "two.csv", tmp_path / "o.npz")
    known = Fingerprints.load(tmp_path / "o.npz")
    assert [i for i, each in enumerate(smiles) if not known.contains(each)] == [0, 10, 20]


def test_agreement_counts_pairs_of_equal_formula(tmp_path: Path) -> None:
    source = tmp_path / "crystals.parquet"
    rows = [crystal("CsCl", [55, 17], a) for a in (4.1, 4.2, 4.3)]
    pd.DataFrame(rows).to_parquet(source)
    output = run("agreement", source, "--num-disturbed", "2")
    assert "equal formula        3     3      1.000" in output


def test_a_file_that_is_no_table_is_a_clear_error(tmp_path: Path) -> None:
    source = tmp_path / "broken.parquet"
    source.write_text("version https://git-lfs.github.com/spec/v1\n")
    output = run("hull", source, tmp_path / "hull.csv.gz", code=1)
    assert "no parquet file with the columns formula, hull_energy_per_atom" in output
    assert not (tmp_path / "hull.csv.gz").exists()
