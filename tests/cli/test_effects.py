"""Options that would do nothing are refused, with the next step."""

from __future__ import annotations

from pathlib import Path

import ase.io
import pytest
from ase.build import bulk, molecule
from test_cli import adit, assert_error

TWO = ("--num", "2", "--num-steps", "2")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ase.io.write("water.xyz", molecule("H2O"))
    ase.io.write("copper.extxyz", bulk("Cu"))


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("discover --kind molecule --relaxer chgnet", ["--relaxer", "not relaxed", "adit relax"]),
        ("discover --kind molecule --max-hull 0.1", ["--max-hull", "not relaxed"]),
        ("discover --kind molecule --no-relax", ["--no-relax", "not relaxed"]),
        ("discover --no-relax --max-hull 1 --fmax 1", ["--fmax, --max-hull", "leave out one"]),
        ("discover --prefilter-steps 3", ["--prefilter-steps", "--prefilter mace-adit"]),
        ("discover --confirm-limit 3", ["--confirm-limit", "--confirm NAME"]),
        ("discover --executor serial --workers 2", ["--workers", "no processes"]),
        ("discover --particles 8", ["--particles", "--steer NAME"]),
        ("discover water.xyz --until 3", ["--until", "water.xyz holds no crystals"]),
        ("discover water.xyz --kind molecule", ["--kind", "screened as it is"]),
        ("discover --minutes 0", ["--minutes"]),
        ("generate --particles 8 --out x.cif", ["--particles", "--steer NAME"]),
        ("generate --valid-by strain --out x.cif", ["'strain'", "structure, charges"]),
        ("generate --kind molecule --valid-by charges --out x.sdf", ["no-ylides", "posebusters"]),
        ("generate --valid-by charges --shard-size 2 --out x", ["--valid-by", "adit discover"]),
        ("generate --ids a/0/0 --workers 2 --out x.cif", ["--workers", "this process"]),
        ("predict TiO2 --keep 3 --out x", ["--keep", "--relaxer NAME"]),
        ("evaluate copper.extxyz --max-steps 3", ["--max-steps", "--relax NAME"]),
        ("evaluate copper.extxyz --fast", ["--fast", "no molecules"]),
        ("evaluate water.xyz --relax chgnet", ["--relax", "no crystals"]),
        ("dft copper.extxyz --inputs vasp --cutoff 300", ["--cutoff", "computes nothing"]),
        ("dft copper.extxyz --top 3", ["--top", "all crystals of copper.extxyz"]),
        ("dft copper.extxyz --engine ase:emt --fmax 1", ["--fmax", "--relax-steps N"]),
    ],
)
def test_what_would_do_nothing_is_refused_with_the_next_step(
    command: str, parts: list[str]
) -> None:
    assert_error(adit(*command.split()), *parts)
    assert sorted(path.name for path in Path().iterdir()) == ["copper.extxyz", "water.xyz"]


def test_inputs_for_dft_say_which_structure_is_which() -> None:
    result = adit("dft", "copper.extxyz", "--inputs", "espresso", "--out", "qe")
    assert result.exit_code == 0 and "keep no names or ids: index.csv" in result.output
    assert Path("qe/index.csv").read_text().splitlines() == [
        "folder,id,formula", "0001-Cu,copper,Cu",
    ]  # fmt: skip
    assert Path("qe/0001-Cu/espresso.pwi").is_file()
