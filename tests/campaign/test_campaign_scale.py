"""A campaign of any length: what is in memory, and what a step costs, do not grow."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase.db
import cheap_potential
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import write_extxyz
from pymatgen.core import Composition, Structure

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import campaign_scale

from adit_plugins import registry
from adit_plugins.campaign import (
    Campaign,
    Resources,
    Settings,
    Store,
    StructuresSource,
    duplicates,
    rendering,
    row_texts,
)
from adit_plugins.campaign.duplicates import MAX_KEPT, Duplicates
from adit_plugins.campaign.files import write_files
from adit_plugins.campaign.store import Row
from adit_plugins.campaign.store_queries import PAGE
from adit_plugins.campaign.work import pack
from adit_plugins.outputs import json_text, without_nan
from adit_plugins.processes import WorkerStartError
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


EMPTY = {"recipe": {}, "settings": {}, "shard": [0, 1]}


def test_what_is_remembered_of_duplicates_has_a_limit(tmp_path: Path) -> None:
    cell = pack(bulk_structure(4.0))
    with Store.create(tmp_path, EMPTY) as store:
        found = Duplicates(store)
        for number in range(MAX_KEPT // 2 + 50):
            assert found.crystal(f"x/{number}", f"A{number} B1", cell) is None
        found.committed()
        assert len(found._crystals) == MAX_KEPT // 2
        found.crystal("y", "B1", cell)
        found.committed()
        assert "B1" in found._crystals  # met last, so met next


def test_a_crystal_is_compared_with_the_nearest_of_its_composition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are, a few comparisons find the crystal that is there already."""
    compared: list[int] = []
    matcher = duplicates.first_match

    def counting(crystal: Structure, earlier: Iterator[Structure]) -> int | None:
        taken = list(earlier)
        compared.append(len(taken))
        return matcher(crystal, taken)

    monkeypatch.setattr(duplicates, "MAX_COMPARED", 3)
    monkeypatch.setattr(duplicates, "first_match", counting)
    ratios = [2.0**number for number in range(6)]
    with Store.create(tmp_path, EMPTY) as store:
        found = Duplicates(store)
        cells = [pack(bulk_structure(4.0, ratio)) for ratio in ratios]
        for number, cell in enumerate(cells):
            assert found.crystal(f"x/{number}", "Na1 Cl1", cell) is None
        for number, ratio in enumerate(ratios):
            larger = pack(bulk_structure(4.1, 1.01 * ratio))
            assert found.crystal("again", "Na1 Cl1", larger) == f"x/{number}"
        flat = cells[0] | {"lattice": np.zeros((3, 3))}
        assert found.crystal("flat", "Na1 Cl1", flat) is None
    assert max(compared) == 3


def bulk_structure(a: float, ratio: float = 1.0) -> Structure:
    """Two atoms in a tetragonal cell, all of whose atoms move as it is stretched."""
    return Structure(np.diag([a, a, a * ratio]), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def test_rows_are_read_a_page_at_a_time(tmp_path: Path) -> None:
    with Store.create(tmp_path, EMPTY) as store:
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


def test_the_packages_that_are_installed_are_not_searched_for_each_structure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched, scan = [], registry._scan
    monkeypatch.setattr(registry, "_scan", lambda group: searched.append(group) or scan(group))
    counts = []
    for num in (8, 40):
        source = StructuresSource(campaign_scale.structures, num)
        means = Resources(executor="serial", chunk_size=4)
        settings = Settings("campaign_scale:free")
        folder = tmp_path / str(num)
        folder.mkdir()
        with Campaign.create(folder, source, settings, means) as campaign:
            searched.clear()
            campaign.run()
            counts.append(len(searched))
    assert counts[1] <= counts[0] < 30


def test_rows_are_rendered_as_ase_and_pymatgen_do() -> None:
    crystals = cheap_potential.crystals(6)
    for atoms in [*crystals, molecule("CH4")]:
        atoms.info = {"adit": {"id": "x/0/1"}, "converged": True, "more": {"a": [1.0, None]}}
        sample = Sample.from_ase(atoms)
        expected = sample.to_pymatgen().as_dict()
        del expected["properties"]
        found = json.loads(json_text(rendering.structure(sample)))
        if sample.kind == "crystal":  # the last digit of an angle is the processor's own
            lattice, other = found.pop("lattice"), expected.pop("lattice")
            assert lattice.pop("matrix") == other.pop("matrix")
            assert lattice.pop("pbc") == list(other.pop("pbc"))
            assert lattice == pytest.approx(other, rel=1e-13)
        assert found == json.loads(json.dumps(expected))
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


def test_the_text_of_a_row_is_that_of_its_structure(tmp_path: Path) -> None:
    magnetic = cheap_potential.crystals(1)[0]
    magnetic.set_initial_magnetic_moments([1.0] * len(magnetic))
    for number, atoms in enumerate([*cheap_potential.crystals(2), molecule("CH4"), magnetic]):
        atoms.calc = SinglePointCalculator(atoms, energy=-1.5, forces=atoms.positions / 7)
        folder = tmp_path / str(number)
        folder.mkdir()
        with Store.create(folder, EMPTY) as store:
            store.add([Row(atoms, {"number": 0, "kind": "crystal"})])
            row = store.row(1)
        atoms.info = {"converged": True, "potential": "a name", "none": None, "x": 0.1}
        assert rendering.row_frame(row, dict(atoms.info)) == rendering.frame(atoms)
        plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        plain.info = {"adit": {"id": "x/0/1"}}
        assert rendering.sample_frame(Sample.from_ase(plain)) == rendering.frame(plain)


def test_the_data_of_a_row_are_those_that_ase_reads(tmp_path: Path) -> None:
    data = {
        "arrays": [{"deep": np.arange(6).reshape(2, 3)}, [np.array([True, False])], 1],
        "empty": np.zeros((0, 3)),
        "nan": float("nan"),
        "large": 2**70,
        "text": "\ud800 and \u00fc",
        "nothing": {"list": [], "none": None},
    }
    with Store.create(tmp_path, EMPTY) as store:
        store.add([Row(Atoms("H"), {"number": 0}, data), Row(Atoms("H"), {}, {"complex": 1j})])
        rows = list(store.rows())
        own = ase.db.connect(store.path)
        for row in rows:
            np.testing.assert_equal(row.data, dict(own.get(id=row.id).data))
        assert rows[1].data == {"complex": 1j}


def test_json_of_any_value_is_that_of_its_plain_form() -> None:
    value = {"a": [math.nan, np.float64(0.1), np.int64(3), None, True], 1: "\u00fc", "b": (1, -0.0)}
    assert json.loads(json_text(value)) == without_nan(value)
    for odd in (2**70, "\ud800"):  # no number of 64 bits, no character
        assert json.loads(json_text({"x": odd})) == {"x": odd}


@pytest.mark.slow
def test_several_processes_write_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = StructuresSource(lambda start: campaign_scale.structures(start), 40)
    settings, means = Settings("campaign_scale:free"), Resources("serial")

    def contents(paths: list[Path]) -> dict[str, bytes]:
        files = [each for path in paths for each in (path.iterdir() if path.is_dir() else [path])]
        return {file.name: file.read_bytes() for file in files}

    with Campaign.create(tmp_path, source, settings, means) as campaign:
        campaign.run()
        alone = contents(write_files(campaign.store))
        monkeypatch.setattr(row_texts, "IN_PROCESSES", 1)
        monkeypatch.setattr(row_texts, "PAGE", 7)
        monkeypatch.setattr("adit_plugins.processes.available_cores", lambda: 2)
        assert contents(write_files(campaign.store)) == alone

        def refuse(*_: Any, **__: Any) -> Iterator[Any]:
            raise WorkerStartError("no process can start")

        monkeypatch.setattr("adit_plugins.processes.map", refuse)
        assert contents(write_files(campaign.store)) == alone
    assert {"relaxed.extxyz", "candidates.json", "ranking.csv", "index.csv"} <= set(alone)


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
