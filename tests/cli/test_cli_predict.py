"""`adit predict` as a person uses it: a table of 80 columns, files, one-line errors."""

from __future__ import annotations

from pathlib import Path

import ase.io
import pytest
from ase.build import bulk
from click.testing import CliRunner, Result

from adit_plugins.cli import main


@pytest.fixture
def base(told_checkpoint: str) -> list[str]:
    return [
        "--checkpoint", told_checkpoint, "--num-steps", "2", "--workers", "0", "--device", "cpu",
        "--prefilter", "cheap_potential:make", "--max-steps", "10",
    ]  # fmt: skip


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["predict", *map(str, arguments)])


def test_a_table_and_files(
    tmp_path: Path, base: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")  # as a terminal of the usual width
    known = tmp_path / "known.cif"
    ase.io.write(known, bulk("NaCl", "rocksalt", 5.6))
    out = tmp_path / "nacl"
    result = run("NaCl", "--num", "4", "--out", out, "--reference", known, *base)
    assert result.exit_code == 0, result.output
    *shown, where = result.stdout.splitlines()
    assert max(map(len, shown)) <= 80 and str(out) in where
    assert "Fm-3m (225)" in result.stdout and "known.cif" in result.stdout
    assert "Looked in cells of 2, 4 and 6 atoms" in result.stdout
    names = {path.name for path in out.iterdir()}
    assert names == {
        "predictions.csv", "predictions.json", "predictions.extxyz", "cif", "report.html",
        "samples.extxyz", "relaxed.extxyz", "known.extxyz", "search.json",
    }  # fmt: skip
    again = run("NaCl", "--num", "6", "--out", out, *base)
    assert again.exit_code == 2 and "--resume" in again.stderr
    another = run("LiF", "--num", "6", "--out", out, "--resume", *base)
    assert another.exit_code == 2 and len(another.stderr.splitlines()) == 1
    assert "formula was 'NaCl', not 'LiF'" in another.stderr and "recipe" not in another.stderr
    (out / "mine.txt").touch()
    other = run("LiF", "--num", "2", "--out", out, "--overwrite", *base)
    assert other.exit_code == 0, other.output
    assert (out / "mine.txt").exists() and not list((out / "cif").glob("*NaCl*"))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--num", "3"], ["FORMULA", "--chemical-system"]),
        (["NaCl", "--chemical-system", "Na-Cl"], ["one of the two"]),
        (["Qx2O3"], ["no element 'Qx'"]),
        (["Na-Cl"], ["cannot read the formula 'Na-Cl'", "LiFePO4"]),
        (["Na0.5Cl"], ["'Na0.5Cl'", "whole numbers", "LiFePO4"]),
        (["NaCl", "--minutes", "0"], ["--minutes", "x>0"]),
        (["Na8Cl8"], ["16 atoms", "up to 7", "NaCl, of 2 atoms"]),
        (["NaCl", "--reference", "none.cif"], ["none.cif"]),
        (["NaCl", "--prefilter", "chgnot"], ["chgnot", "mace-adit"]),
        (["KBr"], ["K"]),  # elements that the checkpoint has never seen
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, base: list[str], arguments: list[str], parts: list[str]
) -> None:
    out = tmp_path / "out"
    result = run(*base, *arguments, "--out", out)
    assert result.exit_code == 2, result.output
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("Error: ")
    for part in parts:
        assert part in result.stderr
    assert not out.exists()
