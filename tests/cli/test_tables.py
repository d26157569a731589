"""The builders of the shipped tables, on small files made here."""

import csv
import gzip
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from adit_plugins.cli.shipped_data import main
from adit_plugins.hull.table import Hull
from adit_plugins.matching.fingerprints import Fingerprints


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


def energies(path: Path, column: str, *rows: tuple[str, str, str, float, float]) -> Path:
    """Write rows of group, material, formula, formation energy and energy above hull."""
    names = [column, "material_id", "formula", "formation_energy_per_atom", "energy_above_hull"]
    pd.DataFrame(list(rows), columns=names).to_parquet(path)
    return path


def test_the_hull_table_is_the_lower_envelope_of_one_release(tmp_path: Path) -> None:
    source = energies(
        tmp_path / "energies.parquet",
        "dataset",
        ("new", "mp-1", "Mg(OH)2", -1.85, 0.05),  # the hull is at -1.9
        ("new", "mp-2", "NaCl", -2.0, 0.0),
        ("new", "mp-3", "Na", 0.1, 0.1),
        ("new", "mp-4", "Na3Cl", -0.9, 0.0),  # above Na + NaCl, which is -1.0
        ("second", "mp-5", "NaCl", -2.3, 0.0),  # the first named wins
        ("second", "mp-6", "KCl", -2.2, 0.0),
    )
    more = energies(
        tmp_path / "more.parquet",
        "source",
        ("other", "mp-7", "NaCl3", -0.8, 0.7),  # its distance is from another hull
        ("other", "mp-2", "NaCl", -2.0, 0.4),
        ("other", "mp-8", "NaCl4", 0.3, 0.7),
        ("other", "mp-9", "KBr", float("nan"), 0.0),
    )
    out = tmp_path / "hull.csv.gz"
    options = ("--release", "new", "--release", "second")
    assert "7 formulas" in run("hull", source, more, out, *options)
    first = out.read_bytes()
    lines = gzip.decompress(first).decode().split()
    assert lines == [
        *("formula,hull_energy_per_atom", "KCl,-2.2000", "MgO2H2,-1.9000", "Na,0.0000"),
        *("Na3Cl,-1.0000", "NaCl,-2.0000", "NaCl3,-1.0000", "NaCl4,-0.8000"),
    ]
    assert Hull.load(out).energy_above_hull("Na2Cl6", 0).hull_energy_per_atom == pytest.approx(-1.0)
    run("hull", source, more, out, *options)
    assert out.read_bytes() == first
    output = run("hull", source, more, out, "--release", "newest", code=1)
    assert "no rows of newest. Known: new, other, second" in output


def test_formation_energies_of_another_functional_are_refused(tmp_path: Path) -> None:
    formulas = [f"Na{n}Cl" for n in range(1, 13)]
    rows = [("mp", f"mp-{i}", formula, -1.0, 0.0) for i, formula in enumerate(formulas)]
    same = [("same", *row[1:3], -1.004, 0.1) for row in rows]
    moved = [("r2scan", *row[1:3], -1.1, 0.0) for row in rows]
    source = energies(tmp_path / "energies.parquet", "dataset", *rows, *same, *moved)
    out = tmp_path / "hull.csv.gz"
    output = run("hull", source, out, "--release", "mp", code=1)
    assert "100% of 12 formation energies of 'r2scan' differ by more than 10 meV/atom" in output
    assert not out.exists()
    assert "12 formulas" in run("hull", source, out, "--release", "mp", "--leave-out", "r2scan")


def test_energies_of_other_corrections_are_brought_to_the_scale(tmp_path: Path) -> None:
    mp = energies(
        tmp_path / "mp.parquet",
        "dataset",
        ("mp", "mp-1", "MgO", -3.0, 0.0),
        ("mp", "x", "Na", 0, 0),
    )
    rows = [
        crystal("NaBr", [11, 35], 6.0, formation_energy_per_atom=-1.5, source="raw-ones"),
        crystal("KBr", [19, 35], 6.6, formation_energy_per_atom=-1.6, source="today"),
        crystal("MgS", [12, 16], 5.2, old=-1.9, source="today"),
    ]
    for i, row in enumerate(rows):
        row |= {"material_id": f"o-{i}"}
        del row["energy_above_hull"]
    pd.DataFrame(rows).to_parquet(tmp_path / "other.parquet")
    log, out = tmp_path / "shifts.jsonl", tmp_path / "hull.csv.gz"
    arguments = ("hull", mp, tmp_path / "other.parquet", out, "--release", "mp", "--log", log)
    options = ("--scale", "raw-ones=raw", "--legacy-column", "old")
    assert "5 formulas" in run(*arguments, *options)
    lines = dict(line.split(",") for line in gzip.decompress(out.read_bytes()).decode().split()[1:])
    assert lines == {
        "KBr": "-1.6000",
        "MgO": "-3.0000",
        "Na": "0.0000",
        "MgS": f"{-1.9 + (0.66346 - 0.503) / 2:.4f}",
        "NaBr": f"{-1.5 - 0.534 / 2:.4f}",
    }
    first = log.read_text()
    assert [line.split('"')[3] for line in first.splitlines()] == ["raw-ones/o-0", "today/o-2"]
    log.write_text(first.replace("-0.267", "-0.3") + '{"id": "cut')  # what is whole is kept
    run(*arguments, *options)
    assert "NaBr,-1.8000" in gzip.decompress(out.read_bytes()).decode()
    assert "unknown scale 'half'" in run(*arguments, "--scale", "raw-ones=half", code=1)
    assert "no rows of none" in run(*arguments, "--scale", "none=raw", code=1)


def test_an_old_energy_that_undercuts_the_release_is_left_out(tmp_path: Path) -> None:
    mp = energies(
        tmp_path / "mp.parquet", "dataset",
        ("mp", "mp-1", "FeAl", -2.0, 0.0), ("mp", "mp-2", "FeAl3", -1.2, 0.1),
    )  # fmt: skip
    rows = [
        # With 3/4 of it and Al, FeAl would be at -2.25; with the other at -1.875.
        crystal("Fe2Al", [26, 26, 13], 3.0, old=-3.0, source="other", frac_coords=[0.0] * 9),
        crystal("FeAl2", [26, 13, 13], 3.0, old=-1.5, source="other", frac_coords=[0.0] * 9),
    ]
    for i, row in enumerate(rows):
        row |= {"material_id": f"o-{i}", "formation_energy_per_atom": float("nan")}
    pd.DataFrame(rows).to_parquet(tmp_path / "other.parquet")
    out = tmp_path / "hull.csv.gz"
    output = run(
        "hull", mp, tmp_path / "other.parquet", out, "--release", "mp", "--legacy-column", "old"
    )
    assert "1 formulas of old undercut the releases: left out" in output
    assert "2 of the releases, 0 of them lowered" in output
    lines = gzip.decompress(out.read_bytes()).decode().split()
    assert lines[1:] == ["FeAl,-2.0000", "FeAl2,-1.5333", "FeAl3,-1.3000"]


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
    output = run("hull", source, tmp_path / "hull.csv.gz", "--release", "x", code=1)
    assert "no parquet file with the columns material_id, formula, formation_energy" in output
    assert not (tmp_path / "hull.csv.gz").exists()
