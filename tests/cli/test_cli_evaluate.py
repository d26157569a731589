"""`adit evaluate`: tables, files and clear errors."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import pytest
from ase.build import bulk, molecule
from click.testing import CliRunner, Result
from mutations import CRYSTALS, damaged
from rich.console import Console

from adit_plugins.cli import main
from adit_plugins.metrics.rates import Rate
from adit_plugins.metrics.report import print_rates


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    collision = bulk("NaCl", "rocksalt", 5.64)
    collision.positions[1] = collision.positions[0]
    ase.io.write("mixed.extxyz", [*CRYSTALS[:3], collision, molecule("H2O"), molecule("CH3OH")])
    ase.io.write("other.extxyz", [damaged(CRYSTALS[1], 0.02)])
    return tmp_path


def evaluate(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["evaluate", *arguments, "--workers", "0", "--fast"])


def test_one_set_gives_tables_and_files(place: Path) -> None:
    result = evaluate("mixed.extxyz", "--json", "out.json", "--markdown", "out.md", "--plots", "p")
    assert result.exit_code == 0, result.output
    for word in ("Crystals of mixed.extxyz", "structurally valid", "3/4", "75.0 %", "Molecules"):
        assert word in result.output
    content = json.loads((place / "out.json").read_text())
    [found] = content["sets"]
    rates = {(r["name"], r["of"]): r for r in found["crystals"]["rates"]}
    assert rates["structurally valid", "given"]["numerator"] == 3
    assert len(found["crystals"]["rows"]) == 4
    assert found["crystals"]["rows"][3]["name"] == "mixed.extxyz, structure 3"
    assert len(found["molecules"]["rows"]) == 2
    assert content["recipe"]["files"] == ["mixed.extxyz"]
    assert "| structurally valid | 3/4 | 75.0 % | given |" in (place / "out.md").read_text()
    plots = {path.name for path in (place / "p").iterdir()}
    assert {"crystals_density.png", "elements_mixed.extxyz.png", "crystals_num_atoms.png"} <= plots
    assert all((place / "p" / name).read_bytes()[:4] == b"\x89PNG" for name in plots)


def test_sets_stand_side_by_side(place: Path) -> None:
    result = evaluate("mixed.extxyz", "other.extxyz", "--targets", "other.extxyz",
                      "--markdown", "out.md")  # fmt: skip
    assert result.exit_code == 0, result.output
    text = (place / "out.md").read_text()
    assert "|  | of | mixed.extxyz | other.extxyz |" in text
    assert "| structurally valid | given | 75.0 % (3/4) | 100.0 % (1/1) |" in text
    assert "| METRe | targets | 100.0 % (1/1) | 100.0 % (1/1) |" in text
    assert "| match rate | targets |  | 100.0 % (1/1) |" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.cif"], "Error: Cannot read none.cif: there is no such file"),
        (["mixed.extxyz", "--reference", "none"], "Error: No reference 'none'. Known: crystal"),
        (["mixed.extxyz", "--targets", "none.cif"], "Error: Cannot read none.cif"),
        (["mixed.extxyz", "--json", "no/out.json"], "Error: Cannot write no/out.json"),
        (["mixed.extxyz", "--json", "./mixed.extxyz"], "is read, or written already"),
        (["mixed.extxyz", "--targets", "other.extxyz", "--json", "other.extxyz"], "is read"),
        (["mixed.extxyz", "--json", "a.json", "--markdown", "a.json"], "written already"),
        (["mixed.extxyz", "--plots", "mixed.extxyz"], "it is a file. Choose a folder"),
        (["mixed.extxyz", "--relax", "magic"], "Error: No "),
        ([], "Missing argument 'FILE...'"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, place: Path) -> None:
    result = evaluate(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output
    assert {path.name for path in place.iterdir()} == {"mixed.extxyz", "other.extxyz"}


@pytest.mark.parametrize("width", [80, 60, 44])
def test_rates_of_several_sets_break_no_number_on_a_narrow_terminal(width: int) -> None:
    rates = [Rate("structurally valid", 998, 1000, "given"), Rate("unique", 7, 10_000, "valid")]
    console = Console(width=width, record=True, force_terminal=False)
    print_rates(console, "Crystals", {f"model_{i}_samples.extxyz": rates for i in range(3)})
    text = console.export_text()
    assert text.count("99.8 % (998/1000)") == text.count("0.1 % (7/10000)") == 3
    assert max(map(len, text.splitlines())) <= width
