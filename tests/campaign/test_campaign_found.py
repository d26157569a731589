"""Candidates are counted as they come, and judged as a whole only where that can end a campaign."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.build import bulk

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import campaign_scale

from adit_plugins.campaign import Campaign, Resources, Settings, Store, StructuresSource, found
from adit_plugins.campaign import campaign as campaign_module
from adit_plugins.campaign.found import Found
from adit_plugins.campaign.store import Row

SALT, LAYERS = bulk("NaCl", "rocksalt", a=5.7), bulk("NaCl", "wurtzite", a=4.0, c=6.5)
KNOWN = {"novelty": "known structure"}


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each judgement of the whole."""
    judged: list[int] = []
    whole = found.mark_relaxed_duplicates

    def counting(store: Store, below: float) -> None:
        judged.append(len(store))
        whole(store, below)

    monkeypatch.setattr(found, "mark_relaxed_duplicates", counting)
    return judged


def store_of(folder: Path, **settings: Any) -> Store:
    return Store.create(folder, {"settings": asdict(Settings(**settings))})


def relaxed(store: Store, atoms: Atoms, energy: float, **columns: Any) -> dict[int, Row]:
    """Put a relaxed crystal into a store, as the driver does before it counts."""
    columns = {
        "kind": "crystal", "stage": "done", "relaxed": True, "energy_above_hull": energy,
        "composition": atoms.get_chemical_formula(), "neutral_by": "smact",
    } | columns  # fmt: skip
    row = Row(atoms, columns, {"adit": {"id": f"x/{len(store)}"}})
    return {store.add([row])[0]: row}


def test_each_kind_of_crystal_below_the_limit_counts_once(tmp_path: Path) -> None:
    with store_of(tmp_path, until=9, max_hull=0.1, neutral_by="smact") as store:
        counts = Found(store, Settings(**store.metadata["settings"]))
        expected = [
            (SALT, 0.05, {}, 1),
            (bulk("NaCl", "rocksalt", a=5.8), 0.02, {}, 1),
            (LAYERS, 0.03, {}, 2),
            (bulk("KCl", "rocksalt", a=6.3), 0.1, {}, 2),
            (bulk("KCl", "rocksalt", a=6.3), 0.04, KNOWN, 2),
            (bulk("KBr", "rocksalt", a=6.6), 0.04, {"neutral_by": "mixed"}, 2),
            (bulk("LiF", "rocksalt", a=4.0), -0.2, {}, 3),
        ]
        for atoms, energy, columns, num in expected:
            counts.add(relaxed(store, atoms, energy, **columns))
            assert counts.num == num
        again = Found(store, Settings(**store.metadata["settings"]))  # as --resume does
        assert again.num == counts.num == store.num_found()
        again.add(relaxed(store, SALT, 0.01))
        assert again.num == 3


def test_what_counts_is_found_again_once_it_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adit_plugins.campaign.duplicates.MAX_KEPT", 1)
    with store_of(tmp_path, until=9, max_hull=0.1) as store:
        counts = Found(store, Settings(**store.metadata["settings"]))
        for atoms in (SALT, LAYERS, bulk("KCl", "rocksalt", a=6.3), SALT):
            counts.add(relaxed(store, atoms, 0.0))
        assert "NaCl" not in counts._counted._crystals or len(counts._counted._crystals) == 1
        assert counts.num == store.num_found() - 1 == 3  # the store's own is not judged yet


def test_the_whole_store_decides_whether_it_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = counted(monkeypatch)
    with store_of(tmp_path, until=2, max_hull=0.1) as store:
        counts = Found(store, Settings(**store.metadata["settings"]))
        counts.add(relaxed(store, SALT, 0.0, **KNOWN))
        counts.add(relaxed(store, bulk("KCl", "rocksalt", a=6.3), 0.0))
        assert (counts.num, len(judged)) == (1, 1)
        counts.add(relaxed(store, SALT, 0.05))  # taken for new, but the known one lies lower
        assert (counts.num, len(judged), counts.is_enough) == (1, 2, False)
        counts.add(relaxed(store, bulk("LiF", "rocksalt", a=4.0), 0.2))  # beyond the limit
        assert len(judged) == 2
        counts.add(relaxed(store, bulk("LiF", "rocksalt", a=4.0), 0.0))
        assert (counts.num, len(judged), counts.is_enough) == (2, 3, True)


def test_a_campaign_does_not_judge_all_its_rows_after_each_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged, num, seen = counted(monkeypatch), 40, {}
    source = StructuresSource(campaign_scale.structures, num)
    settings = Settings("campaign_scale:free", until=num + 1, max_hull=50.0)
    means = Resources("serial", chunk_size=4)
    with Campaign.create(tmp_path, source, settings, means) as campaign:
        campaign.run(lambda stage, done, total: seen.update({stage: done}))
        assert len(campaign.store) == num
        assert 0 < seen["candidates found"] == campaign.store.num_found()
    assert judged == [0]


def test_relaxed_duplicates_are_looked_for_once_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading what shares a composition is the dearest thing at the end of many rows."""
    marked, mark = [], campaign_module.mark_relaxed_duplicates
    monkeypatch.setattr(
        campaign_module, "mark_relaxed_duplicates", lambda store: marked.append(mark(store))
    )
    source = StructuresSource(campaign_scale.structures, 8)
    means, settings = Resources("serial", chunk_size=4), Settings("campaign_scale:free")
    with Campaign.create(tmp_path, source, settings, means) as campaign:
        campaign.run()
        assert len(marked) == 1

        def interrupt(stage: str, done: int, total: int) -> None:
            raise KeyboardInterrupt

        campaign.run(interrupt)
        assert campaign.interrupted and len(marked) == 2
