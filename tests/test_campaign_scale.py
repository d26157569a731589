"""A campaign of any length: what is in memory, and what a step costs, do not grow."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cheap_potential
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import write_extxyz
from pymatgen.core import Composition

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import campaign_scale

from adit_plugins.campaign import Campaign, Resources, Settings, Store, StructuresSource, rendering
from adit_plugins.campaign.duplicates import MAX_KEPT, Duplicates
from adit_plugins.campaign.files import write_files
from adit_plugins.campaign.store import PAGE, Row
from adit_plugins.structures.samples import Sample

BLOCK, CHUNK, NUM = 6, 3, 80


def test_the_source_is_asked_for_no_more_than_a_few_blocks_ahead(tmp_path: Path) -> None:
    """Structures are taken when the workers want them, so only those at work are in memory."""
    taken, ahead = 0, []
    campaign: Campaign

    def structures(start: int) -> Iterator[Atoms]:
        nonlocal taken
        for number in range(start, NUM):
            taken += 1
            yield campaign_scale.structure(number)

    def report(stage: str, done: int, total: int) -> None:
        if stage == "structures checked":
            relaxed = campaign.store.count("relaxed", 1.0)
            ahead.append((taken - done, campaign.store.count("stage", "relax"), relaxed))

    means = Resources("serial", chunk_size=CHUNK, block_size=BLOCK)
    source = StructuresSource(structures, NUM)
    settings = Settings("campaign_scale:free")
    with Campaign.create(tmp_path, source, settings, means) as campaign:
        campaign.run(report)
        assert len(campaign.store) == NUM
    assert max(taken for taken, _, _ in ahead) <= 4 * BLOCK
    assert max(waiting for _, waiting, _ in ahead) <= 6 * BLOCK
    # Relaxations go before new structures: most are done long before the source is at its end.
    assert ahead[len(ahead) // 2][2] > 0


def test_what_is_remembered_of_duplicates_has_a_limit(tmp_path: Path) -> None:
    with Store.create(tmp_path, {"recipe": {}, "settings": {}, "shard": [0, 1]}) as store:
        duplicates = Duplicates(store)
        for number in range(MAX_KEPT + 50):
            assert duplicates.crystal(f"x/{number}", f"A{number} B1", None) is None
        duplicates.committed()
        assert sum(map(len, duplicates._crystals.values())) == MAX_KEPT


def test_rows_are_read_a_page_at_a_time(tmp_path: Path) -> None:
    with Store.create(tmp_path, {"recipe": {}, "settings": {}, "shard": [0, 1]}) as store:
        num = PAGE + 3
        atoms = Atoms("H", positions=[[0, 0, 0]])
        kinds = ("crystal", "molecule")
        store.add(Row(atoms, {"number": i, "kind": kinds[i % 2]}) for i in range(num))
        assert [row["number"] for row in store.rows()] == list(range(num))
        assert [row["number"] for row in store.rows("molecule")] == list(range(1, num, 2))


@pytest.mark.slow
def test_memory_and_time_a_structure_stay_flat(tmp_path: Path) -> None:
    """The benchmark at a fiftieth of its length; caches are full after the first quarter."""
    result = campaign_scale.measure(2000, tmp_path, 250)
    memory = [mark["memory_mb"] for mark in result["marks"]]
    assert memory[-1] - memory[1] < 40  # of which 2,000 crystals to compare with are 20


def test_rows_are_rendered_as_ase_and_pymatgen_do() -> None:
    crystals = cheap_potential.crystals(6)
    for atoms in [*crystals, molecule("CH4")]:
        atoms.info = {"adit": {"id": "x/0/1"}, "converged": True, "more": {"a": [1.0, None]}}
        sample = Sample.from_ase(atoms)
        expected = sample.to_pymatgen().as_dict()
        del expected["properties"]
        assert json.dumps(rendering.structure(sample)) == json.dumps(expected)
        assert rendering.formula(sample) in (
            Composition(atoms.get_chemical_formula()).reduced_formula, atoms.get_chemical_formula()
        )  # fmt: skip
        if atoms.pbc.all():
            atoms.calc = SinglePointCalculator(
                atoms, energy=-1.5, forces=atoms.positions / 7, stress=np.arange(6.0) / 7
            )
        text = io.StringIO()
        write_extxyz(text, [atoms])
        assert rendering.frame(atoms) == text.getvalue()
    magnetic = crystals[0].copy()
    magnetic.set_initial_magnetic_moments([1.0] * len(magnetic))  # ASE's own business
    assert "initial_magmoms" in rendering.frame(magnetic)


def test_files_ask_the_store_for_pages_not_for_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    num = 120
    source = StructuresSource(lambda start: campaign_scale.structures(start), num)
    settings = Settings("campaign_scale:free")
    with Campaign.create(
        tmp_path, source, settings, Resources("serial", chunk_size=40)
    ) as campaign:
        campaign.run()
        queries = 0
        query = Store._query

        def counting(store: Store, *args: Any) -> Any:
            nonlocal queries
            queries += 1
            return query(store, *args)

        monkeypatch.setattr(Store, "_query", counting)
        write_files(campaign.store)
        assert campaign.store.candidates()
    assert queries < 10
