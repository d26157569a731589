"""Parsl with workers of this machine: the same table, and a lost worker costs nothing."""

from __future__ import annotations

from pathlib import Path

import cheap_potential
import pytest

from adit_plugins.campaign import Campaign, Resources, Settings, StructuresSource
from adit_plugins.campaign.executors import make_executor

pytest.importorskip("parsl")


def table(folder: Path, relaxer: str, executor: str) -> list[dict[str, object]]:
    structures = cheap_potential.crystals(12)
    folder.mkdir()
    source = StructuresSource(lambda start: structures[start:], len(structures))
    means = Resources(executor=executor, workers=2, chunk_size=2)
    with Campaign.create(folder, source, Settings(relaxer, max_steps=3), means) as campaign:
        campaign.run()
        rows = list(campaign.store.verdicts())
    for row in rows:
        row.pop("relax_seconds", None)
    return rows


@pytest.mark.slow
def test_parsl_ends_in_the_table_of_one_process_even_if_a_worker_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.setenv(cheap_potential.FLAG, str(tmp_path / "flag"))
    expected = table(tmp_path / "serial", "cheap_potential:make", "serial")
    assert table(tmp_path / "parsl", "cheap_potential:make_deadly_once", "parsl") == expected
    assert (tmp_path / "flag").exists()  # a worker did die


def test_a_file_without_a_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.py: there is no such file"):
        make_executor("parsl:none.py", 1, 10.0)
    (tmp_path / "site.py").write_text("x = 1")
    with pytest.raises(ValueError, match="defines no `config`"):
        make_executor(f"parsl:{tmp_path / 'site.py'}", 1, 10.0)
