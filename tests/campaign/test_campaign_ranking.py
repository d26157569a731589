"""What is a candidate: relaxed duplicates, known structures, charge balance, limits, enough."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ase.io
import cheap_potential
import pytest
from ase import Atoms
from ase.build import bulk
from rich.console import Console
from test_campaign import SERIAL, begin, numbers

from adit_plugins.campaign import Campaign, FileSource, Settings, Store, StructuresSource
from adit_plugins.campaign.files import write_files
from adit_plugins.campaign.funnel import Tally
from adit_plugins.campaign.report import print_tables
from adit_plugins.campaign.row_texts import ranking as ranking_of
from adit_plugins.campaign.store import Row as StoreRow
from adit_plugins.hull.results import HullResult


def named(folder: Path, structures: dict[str, Atoms], **settings: Any) -> list[dict[str, Any]]:
    """The rows of a campaign over one CIF each."""
    files = folder / "mine"
    files.mkdir()
    for name, atoms in structures.items():
        ase.io.write(files / name, atoms)
    chosen = Settings(**{"relaxer": "cheap_potential:make", "max_steps": 80} | settings)
    with Campaign.create(folder, FileSource(files), chosen, SERIAL) as campaign:
        campaign.run()
        write_files(campaign.store)
        return list(campaign.store.verdicts())


def strained(ratio: float, shear: float) -> Atoms:
    """TiAl far from its structure, layers of either: with another c/a and a tilt."""
    cell = [[2.8, 0, 0], [0, 2.8, 0], [shear, 0, 2.8 * ratio]]
    return Atoms("TiAl", cell=cell, pbc=True, scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]])


def test_mixed_valence_is_ranked_and_what_relaxation_makes_known_is_said(tmp_path: Path) -> None:
    spinel = bulk("FeO", "rocksalt", a=4.3) * (2, 2, 1)
    del spinel[[0]]  # Fe3O4: no single state of iron balances it
    structures = {"z.cif": strained(2.2, 0.0), "b.cif": strained(0.75, 0.3), "odd.cif": spinel}
    rows = {row["sample_id"]: row for row in named(tmp_path, structures)}
    assert all(row["novel"] and row["unique"] for row in rows.values())  # as they came
    assert {name: row["novelty"] for name, row in rows.items()} == {
        "z": "known structure", "b": "known structure", "odd": "known formula",
    }  # fmt: skip
    worse, better = sorted("zb", key=lambda name: -rows[name]["energy_above_hull"])
    duplicates = {name: row.get("relaxed_duplicate_of") for name, row in rows.items()}
    assert duplicates == {worse: better, better: None, "odd": None}
    assert not rows["odd"]["composition_valid"] and rows["odd"]["neutral_by"] == "mixed"
    ranking = json.loads((tmp_path / "ranking.json").read_text())
    assert [row["id"] for row in ranking] == [better, "odd"]
    assert ranking[1]["origin"].startswith("odd.cif")
    assert numbers(Tally(rows.values()).crystal_funnel())["unique, novel as relaxed"] == (1, 3)
    with Store(tmp_path) as store:
        store.metadata["settings"]["neutral_by"] = "smact"
        assert [row["id"] for row in ranking_of(store)] == [better]
        store.metadata["settings"] |= {"neutral_by": "mixed", "max_hull": 4.0}
        assert [row["id"] for row in ranking_of(store)] == [better]
        store.metadata["settings"]["max_hull"] = -1.0
        console = Console(width=80, record=True, force_terminal=False)
        print_tables(store, console)
        assert "none within max_hull -1.0" in console.export_text()


@pytest.mark.parametrize("width", [80, 60, 44])
def test_a_narrow_table_breaks_no_formula_and_no_number(width: int, tmp_path: Path) -> None:
    about = {"total": 1, "settings": asdict(Settings()), "recipe": {"generators": []}}
    with Store.create(tmp_path, about) as store:
        names = ("num_reference_phases", "num_subsystems_covered", "num_subsystems")
        hull = dict.fromkeys(names, 12)
        row = StoreRow(
            bulk("Cu") * (6, 1, 1),
            {"kind": "crystal", "number": 0, "stage": "done", "relaxed": True, "converged": False,
             "energy_above_hull": -0.1234, "metastable_probability": 0.9,
             "novelty": "known formula", "neutral_by": "smact", "composition": "Cu1",
             "outcome": "step limit", "potential": "p"},
            {"adit": {"id": "my-checkpoint/0/0"}, "hull": hull,
             "relaxation": {"space_group_after": 1}},
        )  # fmt: skip
        rows = []
        for i, formula in enumerate(("Ca3Cu2Re2O12", "Pm4Nd2Tm2Al4Si6", "Ba2YWO6")):
            rows.append(dataclasses.replace(row, atoms=Atoms(formula, cell=[9] * 3, pbc=True)))
            rows[-1].columns = row.columns | {"number": i, "composition": formula}
            rows[-1].data = row.data | {"adit": {"id": f"my-checkpoint/0/{i}"}}
        store.add(rows)
        console = Console(width=width, record=True, force_terminal=False)
        print_tables(store, console)
        text = console.export_text()
    assert ("Left out" in text) == (width < 80)
    table = text[text.index(" #   formula") : text.index("E hull: eV")].partition("Left out")[0]
    lines = [line.split() for line in table.splitlines()[2:] if line.strip()]
    assert [(line[1], line[2], line[-1]) for line in lines] == [
        ("Ca3Cu2(ReO6)2", "-0.123*", "0"), ("Pm2NdTmAl2Si3", "-0.123*", "1"),
        ("Ba2YWO6", "-0.123*", "2"),
    ]  # fmt: skip


def test_a_campaign_ends_with_enough_candidates_and_goes_on_no_further(tmp_path: Path) -> None:
    structures = cheap_potential.crystals(40)
    settings = {"relaxer": "cheap_potential:make", "max_steps": 4}
    (tmp_path / "all").mkdir()
    (tmp_path / "some").mkdir()
    with begin(tmp_path / "all", structures, **settings) as campaign:
        campaign.run()
        energies = [row["energy_above_hull"] for row in ranking_of(campaign.store)]
    limit = energies[len(energies) // 2]
    with begin(tmp_path / "some", structures, **settings, until=2, max_hull=limit) as campaign:
        seen: dict[str, tuple[int, int]] = {}
        campaign.run(lambda stage, done, total: seen.update({stage: (done, total)}))
        made, found = len(campaign.store), campaign.store.num_found()
        assert found >= 2 and made < len(structures)
        assert seen["candidates found"] == (2, 2)
        assert all(row["energy_above_hull"] < limit for row in ranking_of(campaign.store))
        note = campaign.store.found_note()
        judged = campaign.store.num_judged()
        assert note.startswith(f"{found} candidates") and f"of {judged} judged" in note
        assert ("wait" in note) == (made > judged) and "--num" not in note
    with Campaign.open(
        tmp_path / "some", StructuresSource(lambda start: structures[start:], 40), SERIAL,
        potentials=["cheap_potential:make"],
    ) as campaign:  # fmt: skip
        campaign.run()
        assert (len(campaign.store), campaign.store.num_found()) == (made, found)


def test_without_a_competing_phase_a_structure_is_ranked_last(tmp_path: Path) -> None:
    known = HullResult(0.05, -1.0, 3, 1, 1)
    unknown = HullResult(-3.9, 0.0, 0, 1, 0)
    element = HullResult(0.01, 0.0, 0, 0, 0)
    assert unknown.knows_nothing
    assert not known.knows_nothing
    assert not element.knows_nothing
    with Store.create(tmp_path, {"settings": asdict(Settings())}) as store:
        rows = []
        for i, hull in enumerate((unknown, known, element)):
            atoms = Atoms("NaCl", cell=[4 + i] * 3, pbc=True)
            columns = {
                "kind": "crystal", "number": i, "stage": "done", "relaxed": True,
                "energy_above_hull": hull.energy_above_hull,
                "hull_gap": "no competing phase is known" if hull.knows_nothing else None,
            }  # fmt: skip
            rows.append(StoreRow(atoms, {k: v for k, v in columns.items() if v is not None}, {}))
        store.add(rows)
        numbers = [store.row(row_id)["number"] for row_id in store.candidates()]
    assert numbers == [2, 1, 0]
