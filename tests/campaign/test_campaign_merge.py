"""Shards of several machines become the campaign of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import cheap_potential
import pytest
from ase import Atoms
from ase.build import molecule
from click.testing import CliRunner

from adit_plugins.campaign import Campaign, FileSource, Settings, Store
from adit_plugins.campaign.sources import shard_ranges
from adit_plugins.cli import main

COMMAND = ["discover", "all.extxyz", "--relaxer", "cheap_potential:make", "--max-steps", "3",
           "--workers", "0"]  # fmt: skip


def adit(*arguments: str) -> Any:
    return CliRunner().invoke(main, list(arguments))


def table(folder: Path) -> list[tuple[dict[str, Any], list[float], float | None]]:
    with Store(folder) as store:
        rows = []
        for row in store.rows():
            columns = dict(row.key_value_pairs)
            columns.pop("relax_seconds", None)
            rows.append((columns, row.positions.ravel().tolist(), row.get("energy")))
        return rows


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    ase.io.write("all.extxyz", cheap_potential.crystals(22))
    return tmp_path


def test_three_shards_end_in_the_table_of_one_machine(place: Path) -> None:
    check_three_shards(place)


@pytest.mark.slow
def test_the_same_with_molecules(place: Path) -> None:
    structures: list[Atoms] = cheap_potential.crystals(20)
    structures.insert(2, molecule("H2O"))
    structures.insert(15, molecule("H2O"))
    ase.io.write("all.extxyz", structures)
    check_three_shards(place)


def check_three_shards(place: Path) -> None:
    assert adit(*COMMAND, "--out", "one").exit_code == 0
    for i in (2, 0):
        assert adit(*COMMAND, "--out", "many", "--shard", f"{i}/3").exit_code == 0
    assert "missing: 1" in adit("merge", "many").stderr
    assert adit(*COMMAND, "--out", "many", "--shard", "1/3").exit_code == 0
    result = adit("merge", "many")
    assert result.exit_code == 0, result.output
    assert "22 structures of 3 shards in many/" in result.stdout
    whole = table(place / "one")
    assert table(place / "many") == whole
    across = [row for row, _, _ in whole if row.get("duplicate_of")]
    assert any(int(str(row["duplicate_of"]).split("/")[1]) // 8 != row["number"] // 8
               for row in across)  # fmt: skip
    for name in ("ranking.csv", "funnel.csv", "crystals.extxyz"):
        assert (place / "many" / name).read_bytes() == (place / "one" / name).read_bytes()
    assert "--overwrite" in adit("merge", "many").stderr
    assert adit("merge", "many", "--overwrite").exit_code == 0
    assert table(place / "many") == whole


def test_what_cannot_be_merged_is_named(place: Path) -> None:
    assert "holds no shards" in adit("merge", ".").stderr
    first = [*COMMAND, "--num", "4", "--out", "s", "--shard"]
    assert adit(*first, "0/2").exit_code == 0
    Path("s/shard-1-of-2").mkdir()
    with Campaign.create(
        Path("s/shard-1-of-2"), FileSource(Path("all.extxyz"), 4),
        Settings("cheap_potential:make", max_steps=3), shard=(1, 2),
    ):  # fmt: skip
        pass
    message = adit("merge", "s").stderr
    assert "2 structures to check" in message
    assert "adit discover --resume s/shard-1-of-2" in message
    other = adit(*COMMAND, "--num", "5", "--out", "t", "--shard", "1/2")
    assert other.exit_code == 0
    parts = ["s/shard-0-of-2", "t/shard-1-of-2"]
    assert "--out DIR" in adit("merge", *parts).stderr
    assert "not the same recipe" in adit("merge", *parts, "--out", "u").stderr
    assert not Path("u/results.db").exists()
    assert "I from 0 to N-1" in adit(*first, "2/2").stderr


@pytest.mark.parametrize("num", [1, 7, 64])
@pytest.mark.parametrize("shards", [1, 2, 5])
def test_shards_share_everything_once(num: int, shards: int) -> None:
    parts = [range(num), range(num, 2 * num)]
    numbers = [n for i in range(shards) for part in shard_ranges(parts, (i, shards)) for n in part]
    assert sorted(numbers) == list(range(2 * num))
