"""What is picked of a campaign, and what each of the others was left out for."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from click.testing import CliRunner
from found_campaign import SALT

from adit_model import ADiT, ADiTConfig
from adit_model.data import PreparedData
from adit_plugins.cli import main
from adit_plugins.improvement import Campaign, Candidate, Picks, pick, read_campaign
from adit_plugins.improvement.known import HELD, TRAINED, Known, prepared, sorted_out
from adit_plugins.improvement.picking import NoPickError, shares_with_picks
from adit_plugins.improvement.reading import (
    TOO_HIGH,
    TOO_LOW,
    NoCampaignError,
    why_no_crystal,
    why_no_molecule,
)
from adit_plugins.matching import is_match

HIGH = 0.5  # eV/atom; what the campaign of the tests has near the hull


@pytest.fixture(scope="module")
def config(told_checkpoint: str) -> ADiTConfig:
    return ADiT.from_pretrained(told_checkpoint, device="cpu").config


@pytest.fixture(scope="module")
def campaign(found_campaign: Path) -> Campaign:
    return read_campaign(found_campaign, HIGH)


@pytest.fixture(scope="module")
def picks(
    campaign: Campaign, prepared_crystals: Path, prepared_molecules: Path, config: ADiTConfig
) -> Picks:
    return pick([campaign], prepared([prepared_crystals, prepared_molecules]), config)


def formulas(picks: Picks, kind: str) -> list[str]:
    return [each.formula for each in picks.chosen[kind]]


def test_the_best_are_picked_lowest_first_and_the_rest_is_counted(picks: Picks) -> None:
    assert formulas(picks, "crystal") == ["NaF", "Na2O2", "LiF"]  # LiCl is a test row of the data
    assert picks.total == {"crystal": 9, "molecule": 6}
    assert picks.left_out["crystal"] == Counter(
        {
            "are not valid": 1,
            "are duplicates": 1,
            "are known structures": 1,
            TOO_HIGH: 1,
            HELD: 1,
            "hold elements that the checkpoint does not know": 1,
        }
    )
    assert "1 are duplicates" in picks.reasons("crystal")


def test_molecules_are_valid_new_and_not_in_the_data(picks: Picks) -> None:
    assert formulas(picks, "molecule") == ["C2F4"]
    left = picks.left_out["molecule"]
    assert left["are not strictly valid"] == 1  # torn
    assert left["are known molecules"] == 2  # water, formaldehyde
    assert left["are strained (PoseBusters' energy)"] == 1  # CF4
    assert left[TRAINED] == 1  # ketene, though its bonds are shorter than in the data


def test_rows_are_those_that_data_prepare_makes(picks: Picks) -> None:
    row, pick_ = picks.rows["crystal"][0], picks.chosen["crystal"][0]
    assert row["atomic_numbers"] == [9, 11] and row["split"] == 0
    assert set(row["labels"]) == {"density", "space_group"}  # no energy of a potential
    assert row["labels"]["space_group"] == 221
    assert is_match(pick_.atoms, bulk("NaF", "cesiumchloride", a=2.8))
    water = picks.rows["molecule"][0]
    assert water["atomic_numbers"] == [6, 6, 9, 9, 9, 9]
    assert np.abs(np.mean(water["coords"], axis=0)).max() < 1e-6


def test_without_data_nothing_is_compared_with_it(campaign: Campaign, config: ADiTConfig) -> None:
    free = pick([campaign], None, config)
    assert formulas(free, "crystal") == ["LiCl", "NaF", "Na2O2", "LiF"]
    assert formulas(free, "molecule") == ["C2H2O", "C2F4"]


def test_a_kind_that_the_data_lack_is_left_out(
    campaign: Campaign, prepared_crystals: Path, config: ADiTConfig
) -> None:
    only = pick([campaign], prepared([prepared_crystals]), config)
    assert only.numbers() == {"crystal": 3}
    assert only.left_out["molecule"]["have no data of their kind in --data"] == 2


def test_two_campaigns_give_each_structure_once(
    campaign: Campaign, prepared_crystals: Path, prepared_molecules: Path, config: ADiTConfig
) -> None:
    twice = pick([campaign, campaign], prepared([prepared_crystals, prepared_molecules]), config)
    assert twice.numbers() == {"crystal": 3, "molecule": 1}
    assert twice.left_out["crystal"]["equal another pick"] == 4


def test_an_earlier_round_among_the_data_leaves_nothing(
    found_campaign: Path,
    prepared_crystals: Path,
    prepared_molecules: Path,
    config: ADiTConfig,
    tmp_path: Path,
    picks: Picks,
) -> None:
    from adit_plugins.improvement.lineage import save_picks

    earlier = save_picks(picks, tmp_path)
    with pytest.raises(NoPickError) as error:
        pick(
            [read_campaign(found_campaign, HIGH)],
            prepared([prepared_crystals, prepared_molecules, *earlier.values()]),
            config,
        )
    assert f"3 {TRAINED}" in str(error.value) and "of 9 crystals" in str(error.value)


def test_small_checkpoints_take_no_large_structures(campaign: Campaign, config: ADiTConfig) -> None:
    sizes = {"crystal": [0, 0, 1], "molecule": [0, 0, 1, 0, 0, 1]}
    free = pick([campaign], None, dataclasses.replace(config, size_histogram=sizes))
    assert free.numbers() == {"crystal": 4, "molecule": 1}
    assert free.left_out["molecule"]["are larger than what the checkpoint makes (5 atoms)"] == 1


GOOD = {
    "kind": "crystal", "structure_valid": 1, "unique": 1, "novel": 1, "stage": "done",
    "relaxed": 1, "converged": 1, "energy_above_hull": 0.05, "novelty": "new",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"energy_above_hull": 0.1}, TOO_HIGH),
        ({"energy_above_hull": -0.21}, TOO_LOW),
        ({"converged": 0}, "did not converge (more --max-steps)"),
        ({"stage": "relax"}, "wait to be relaxed (adit discover --resume)"),
        ({"relaxed": 0}, "failed to relax"),
        ({"novelty": "known structure"}, "became known structures"),
        ({"novelty": "known formula"}, ""),
        ({"relaxed_duplicate_of": "a/0/1"}, "became equal to a lower one"),
        ({"hull_gap": "yes"}, "are of systems whose phases the hull does not know"),
        ({"confirm_energy_above_hull": 0.2}, f"{TOO_HIGH} by the second potential"),
        ({"confirm_energy_above_hull": 0.02}, ""),
        ({"problem": "quarantined: killed"}, "are not valid"),
    ],
)
def test_why_a_crystal_is_left_out(change: dict[str, object], reason: str) -> None:
    assert why_no_crystal(GOOD | change, 0.1) == reason


def test_crystals_that_were_not_relaxed_are_no_picks() -> None:
    bare = {k: v for k, v in GOOD.items() if k not in ("relaxed", "converged", "energy_above_hull")}
    assert why_no_crystal(bare, 0.1) == "were not relaxed"
    assert why_no_crystal(bare | {"prefiltered": 0}, 0.1) == "were left by the pre-filter"


def test_strain_is_a_reason_of_its_own() -> None:
    columns = {"strict_valid": 1, "unique": 1, "novel": 1}
    checks = {"internal_energy": True, "bond_lengths": True}
    assert why_no_molecule(columns, {"report": {"posebusters": checks}}) == ""
    strained = {"report": {"posebusters": checks | {"internal_energy": False}}}
    assert "strained" in why_no_molecule(columns, strained)
    long = {"report": {"posebusters": checks | {"bond_lengths": False}}}
    assert "another check" in why_no_molecule(columns, long)
    assert "not checked" in why_no_molecule(columns, {"report": {}})


def test_posebusters_names_the_check_of_strain(found_campaign: Path) -> None:
    from adit_plugins.campaign.store import Store
    from adit_plugins.improvement.reading import STRAIN

    with Store(found_campaign, read_only=True) as store:
        reports = [row.data["report"]["posebusters"] for row in store.rows("molecule")]
    assert any(STRAIN in each for each in reports if each)


def test_folders_without_a_campaign_are_named(tmp_path: Path) -> None:
    with pytest.raises(NoCampaignError, match="No folder"):
        read_campaign(tmp_path / "none")
    with pytest.raises(NoCampaignError, match="holds no campaign"):
        read_campaign(tmp_path)
    (tmp_path / "shard-0-of-2").mkdir()
    with pytest.raises(NoCampaignError, match="adit merge"):
        read_campaign(tmp_path)


def test_predictions_are_read_too(told_checkpoint: str, tmp_path: Path) -> None:
    ase.io.write(tmp_path / "known.cif", SALT)
    out = tmp_path / "salt"
    options = ["--prefilter", "mace-adit", "--max-steps", "5", "--num-steps", "2", "--num", "2"]
    options += ["--workers", "0", "--device", "cpu", "--checkpoint", told_checkpoint]
    files = ["--reference", str(tmp_path / "known.cif"), "--out", str(out)]
    assert CliRunner().invoke(main, ["predict", "NaCl", *options, *files]).exit_code == 0
    read = read_campaign(out, HIGH)
    assert (read.checkpoint, read.potentials) == (told_checkpoint, ["mace-adit"])
    assert read.weights == ADiT.from_pretrained(told_checkpoint).hash
    assert "are known structures" in {each.left_out for each in read.candidates}
    assert all(each.kind == "crystal" for each in read.candidates)
    (out / "predictions.json").write_text('{"predictions": [{}]}')
    with pytest.raises(NoCampaignError, match="adit predict --resume"):
        read_campaign(out)


def test_shares_stay_within_their_kind() -> None:
    kinds = ["crystal", "crystal", "molecule"]
    assert shares_with_picks(kinds, (), 0.1, ["crystal"]) == pytest.approx((0.9, 0.9, 1.0, 0.2))
    both = shares_with_picks(kinds[1:], (0.4, 0.6), 0.5, ["crystal", "molecule"])
    assert both == pytest.approx((0.2, 0.3, 0.2, 0.3))
    with pytest.raises(ValueError, match="do not fit 3"):
        shares_with_picks(kinds, (1.0,), 0.1, [])


def test_known_crystals_are_found_in_any_cell(prepared_crystals: Path) -> None:
    known = Known([PreparedData.load(prepared_crystals)])
    double = Candidate("crystal", "a", atoms=bulk("LiCl", "zincblende", a=5.55, cubic=True))
    new = Candidate("crystal", "b", atoms=bulk("LiCl", "cesiumchloride", a=3.2))
    assert {each.name: each.left_out for each in sorted_out([double, new], known)} == {
        "a": HELD,
        "b": "",
    }
