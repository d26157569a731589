"""A campaign of real verdicts, and prepared data to stand beside what is picked of it."""

from __future__ import annotations

from pathlib import Path

import torch
from ase.build import bulk, molecule

from adit_model.data import PreparedData
from adit_plugins.campaign import Campaign, Resources, Settings, StructuresSource
from adit_plugins.datasets.canonical import crystal_row
from adit_plugins.datasets.common import arrays

SALT = bulk("NaCl", "rocksalt", a=5.69)


def make_campaign(folder: Path) -> None:
    """Run one on molecules and crystals, five of these within 0.5 eV/atom of mace-adit's hull."""
    collided = SALT.copy()
    collided.positions[1] = collided.positions[0] + 0.1
    torn = molecule("CH3CH2OH")
    torn.positions[0] += 5.0
    structures = [
        SALT, SALT * (2, 1, 1), collided,  # known, a duplicate, invalid
        bulk("NaF", "cesiumchloride", a=2.8), bulk("LiCl", "zincblende", a=5.5),
        bulk("LiF", "cesiumchloride", a=2.6), bulk("NaO", "rocksalt", a=4.8),
        bulk("AgCl", "cesiumchloride", a=3.3),  # silver is unknown to the checkpoint
        bulk("LiN", "rocksalt", a=4.2),  # far above the hull
        torn, molecule("H2O"), molecule("H2CO"),  # broken, known, known
        molecule("CF4"), molecule("H2CCO"), molecule("C2F4"),  # the first fails the energy check
    ]  # fmt: skip
    for i, atoms in enumerate(structures):
        atoms.info["adit"] = {"id": f"test/0/{i}"}
    source = StructuresSource(lambda start: structures[start:], len(structures))
    settings = Settings(relaxer="mace-adit", max_steps=60)
    resources = Resources(executor="serial", chunk_size=8, block_size=16)
    with Campaign.create(folder, source, settings, resources) as campaign:
        campaign.run()


def save_crystals(path: Path) -> None:
    """Write thirty salts as prepared data; zinc-blende LiCl is among those for testing."""
    rows = []
    for i in range(30):
        row = crystal_row(bulk("NaCl", "rocksalt", a=5.0 + 0.05 * i))
        assert not isinstance(row, str)
        rows.append(row | {"split": 0})
    held = crystal_row(bulk("LiCl", "zincblende", a=5.6))
    assert not isinstance(held, str)
    arrays("crystals", "crystal", [*rows, held | {"split": 2}], "made here").save(path)


def save_molecules(path: Path) -> None:
    """Write waters, and a ketene with longer bonds than the campaign's."""
    rows = [molecule("H2O")] * 10 + [molecule("H2CCO")]
    PreparedData(
        "molecules",
        "molecule",
        torch.tensor([z for each in rows for z in each.numbers], dtype=torch.uint8),
        torch.cat([torch.tensor(1.02 * each.positions, dtype=torch.float32) for each in rows]),
        torch.tensor([len(each) for each in rows], dtype=torch.int32),
        torch.zeros(len(rows), dtype=torch.uint8),
        None,
    ).save(path)
