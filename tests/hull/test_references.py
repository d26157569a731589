"""Corrections of a potential's elements: fitted, stored, applied, refused where they mislead."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from click.testing import CliRunner

from adit_plugins.cli import main
from adit_plugins.hull import measuring, references
from adit_plugins.hull.energies import ConventionError, place_energy
from adit_plugins.hull.fitting import Row, fit
from adit_plugins.hull.references import References, ReferencesError, references_of
from adit_plugins.hull.table import Hull, element_references, formation_energy_per_atom
from adit_plugins.relax.results import MP2020
from adit_plugins.structures.facts import formula_of

PLANTED = {"Cu": 0.05, "Ni": -0.03, "Pd": 0.02, "Au": 0.0}
EMT_SPEC = "ase.calculators.emt:EMT"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without corrections of their own."""
    monkeypatch.setenv("ADIT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def alloys(num: int, seed: int = 0) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(num):
        atoms = bulk("Cu", cubic=True, a=3.8) * (2, 1, 1)
        atoms.symbols[:] = rng.choice([*PLANTED], size=len(atoms))
        made.append(atoms)
    return made


def planted_rows(num: int, noise: float = 0.01) -> list[Row]:
    rng = np.random.default_rng(1)
    rows = []
    for atoms in alloys(num):
        symbols, counts = np.unique(atoms.get_chemical_symbols(), return_counts=True)
        fractions = {str(s): float(n) / len(atoms) for s, n in zip(symbols, counts, strict=True)}
        error = sum(x * PLANTED[s] for s, x in fractions.items()) + float(rng.normal(0, noise))
        rows.append(Row(formula_of(atoms), fractions, error))
    return rows


def test_planted_errors_are_found_and_outliers_do_not_count() -> None:
    rows = planted_rows(2000)
    wild = [Row(row.formula, row.fractions, row.error + 3.0) for row in rows[:40]]
    made = fit([*wild, *rows[40:]], "toy-1", MP2020)
    assert made.corrections == pytest.approx(PLANTED, abs=0.006)
    good = fit(rows, "toy-1", MP2020)
    assert good.num_rows == 2000 and good.num_formulas == len({row.formula for row in rows})
    assert good.held_out["before"]["mae_meV"] > 12
    assert good.held_out["after"]["mae_meV"] == pytest.approx(10 * np.sqrt(2 / np.pi), rel=0.1)
    assert abs(good.held_out["after"]["bias_meV"]) < 1


def test_an_element_of_few_crystals_keeps_the_tabulated_energy() -> None:
    rare = Row("Zr", {"Zr": 1.0}, 0.4)
    half = Row("ZrCu", {"Zr": 0.5, "Cu": 0.5}, 0.2 + PLANTED["Cu"] / 2)
    made = fit([*planted_rows(500), rare, half], "toy-1", MP2020)
    assert 0 < made.corrections["Zr"] < 0.2  # of 0.4


def test_what_no_fit_has_seen_decides_what_it_is_worth() -> None:
    """One formula with one error a crystal: a fit would learn it by heart."""
    rng = np.random.default_rng(0)
    symbols = [*element_references()][:80]
    rows = [Row(s, {s: 1.0}, float(rng.normal(0, 0.05))) for s in symbols for _ in range(2)]
    held_out = fit(rows, "toy-1", MP2020).held_out
    assert held_out["after"] == held_out["before"]


def test_too_little_and_another_scale_are_refused() -> None:
    with pytest.raises(ValueError, match=r"99 crystals with an energy .* are too few"):
        fit(planted_rows(99), "toy-1", MP2020)
    far = [Row(row.formula, row.fractions, row.error + 1.0) for row in planted_rows(100)]
    with pytest.raises(ValueError, match="toy-1 are not on the Materials Project's"):
        fit(far, "toy-1", MP2020)


@pytest.mark.parametrize("potential", ["chgnet-0.3.0", "mace-adit"])
def test_the_shipped_corrections_say_what_they_are(potential: str) -> None:
    found = references_of(potential)
    assert found is not None and not found.own
    assert found.num_rows >= 3000 and found.num_formulas > 0.9 * found.num_rows
    before, after = (found.held_out[when] for when in ("before", "after"))
    assert abs(after["bias_meV"]) < 2 < abs(before["bias_meV"])
    assert after["mae_meV"] < before["mae_meV"]
    assert set(found.corrections) <= set(element_references())
    assert max(map(abs, found.corrections.values())) < 0.3
    assert references_of("unheard-of") is None


def test_energies_get_them_where_they_meet_the_hull_and_the_raw_one_stays() -> None:
    hull, salt = Hull.load(), bulk("NaCl", "rocksalt", a=5.7)
    total = 2 * (-2.0 + np.mean([element_references()[s] for s in ("Na", "Cl")]))
    bare, known = place_energy(salt, total, MP2020, "unheard-of", hull)
    formation, found = place_energy(salt, total, MP2020, "chgnet-0.3.0", hull)
    own = references_of("chgnet-0.3.0")
    assert own is not None
    shift = (own.corrections["Na"] + own.corrections["Cl"]) / 2
    assert bare == pytest.approx(-2.0)
    assert formation == pytest.approx(-2.0 - shift) and shift != 0
    assert found.energy_above_hull == pytest.approx(known.energy_above_hull - shift)
    assert found.raw_energy_above_hull == known.raw_energy_above_hull == known.energy_above_hull
    assert found.references == own.label and known.references == ""
    assert found.metastable_probability is not None


def test_those_of_a_user_win_and_take_the_probability_away(home: Path) -> None:
    own = References("chgnet-0.3.0", {"Na": 0.3, "Cl": 0.1}, MP2020, 120, 100)
    references.write(own, home / references.FILE)
    references.write(References("toy", {"Na": 1.0}, MP2020, 120, 100), home / references.FILE)
    salt = bulk("NaCl", "rocksalt", a=5.7)
    _, found = place_energy(salt, -7.0, MP2020, "chgnet-0.3.0", Hull.load())
    assert found.raw_energy_above_hull == pytest.approx(found.energy_above_hull + 0.2)
    assert found.references == "chgnet-0.3.0, 120 crystals, own"
    assert found.metastable_probability is None  # it was counted with others
    raw = place_energy(salt, -7.0, "mp-raw", "chgnet-0.3.0", Hull.load())[1]
    assert raw.references == "" and raw.raw_energy_above_hull == raw.energy_above_hull
    assert references_of("toy") is not None and references_of("mace-adit") is not None


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"potentials": {"chgnet-0.3.0": {"corrections": {"Na": 1}}}}',
     '{"potentials": {"x": {"corrections": {"Na": 99}, "convention": "", "num_rows": 1, '
     '"num_formulas": 1}}}'],
)  # fmt: skip
def test_a_damaged_file_of_a_user_is_one_line(content: str, home: Path) -> None:
    home.mkdir()
    (home / references.FILE).write_text(content)
    with pytest.raises(ReferencesError, match=r"holds no corrections of elements .* Remove it"):
        references_of("chgnet-0.3.0")


def table(path: Path, rows: list[Atoms], splits: list[str] | None = None) -> Path:
    """Alloys with formation energies that EMT gets wrong by what is planted."""
    for i, atoms in enumerate(rows):
        atoms.calc = EMT()
        energy = atoms.get_potential_energy() / len(atoms)
        wrong = sum(PLANTED[s] for s in atoms.get_chemical_symbols()) / len(atoms)
        atoms.calc = None
        formation = formation_energy_per_atom(formula_of(atoms), energy) - wrong
        atoms.info |= {"formation_energy_per_atom": formation, "material_id": f"alloy-{i}"}
        if splits:
            atoms.info["split"] = splits[i]
    ase.io.write(path, rows, format="extxyz")
    return path


def calibrate(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["relaxer", "calibrate", *map(str, arguments)])
    return result.exit_code, result.output


def test_a_users_potential_is_calibrated_and_has_its_place_from_then_on(
    tmp_path: Path, home: Path
) -> None:
    data = table(tmp_path / "alloys.extxyz", alloys(150))
    log = tmp_path / "log.jsonl"
    status, said = calibrate(EMT_SPEC, "--data", data, "--workers", 0, "--log", log)
    assert status == 2 and "scale that nobody has told; say --convention" in said
    assert len(log.read_text().splitlines()) == 150 and not home.exists()
    # What was computed is not computed again: a log of other energies shows.
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    arguments = ("--data", data, "--workers", 0, "--log", log, "--convention", "mp2020")
    status, said = calibrate(EMT_SPEC, *arguments)
    assert status == 0, said
    assert "4 elements fitted on 150 crystals" in said
    made = references_of(EMT_SPEC)
    assert made is not None and made.own
    assert made.corrections == pytest.approx(PLANTED, abs=0.02)
    assert made.held_out["after"]["mae_meV"] < made.held_out["before"]["mae_meV"] / 3
    copper_gold = alloys(1, seed=5)[0]
    energy = -25.0
    _, found = place_energy(copper_gold, energy, "", EMT_SPEC, Hull.load())
    assert found.references == f"{EMT_SPEC}, 150 crystals, own"
    with pytest.raises(ConventionError, match="adit relaxer calibrate"):
        place_energy(copper_gold, energy, "", "another", Hull.load())
    for line in lines:
        line["energy"] += 2 * 8
    log.write_text("".join(json.dumps(line) + "\n" for line in lines) + "half a li")
    status, said = calibrate(EMT_SPEC, *arguments)
    assert status == 2 and "not on the Materials Project's scale" in said


def test_only_training_rows_are_fitted_and_no_formula_of_others(tmp_path: Path) -> None:
    rows = alloys(60)
    splits = ["train"] * 40 + ["test"] * 10 + ["val"] * 10
    data = table(tmp_path / "alloys.extxyz", rows, splits)
    known = list(measuring.known_of(measuring_entries(data)))
    assert len(known) == 60
    chosen = measuring.choose(known, 100, 20, seed=0)
    others = {formula_of(atoms) for atoms in rows[40:]}
    assert chosen and {each.split for each in chosen} == {"train"}
    assert not {formula_of(each.atoms) for each in chosen} & others
    assert any(formula_of(atoms) in others for atoms in rows[:40])  # or this would test nothing
    assert len(measuring.choose(known, 5, 20, seed=0)) == 5
    with pytest.raises(ValueError, match="no crystal to fit on: 60 have the column"):
        measuring.choose(known, 5, 2, seed=0)


def measuring_entries(path: Path):  # type: ignore[no-untyped-def]
    from adit_plugins.structures.reading import iter_entries

    return list(iter_entries(path))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("chgnet", "--data", "nowhere.parquet"), "Cannot read nowhere.parquet: there is no such"),
        (("unheard", "--data", "DATA"), "No plugin 'unheard' in adit.relaxers"),
        (("chgnet", "--data", "DATA", "--out", "x.txt"), "--out x.txt must end in .json"),
        (("chgnet", "--data", "BARE"), "no crystal has formation_energy_per_atom"),
        ((EMT_SPEC, "--data", "IRON"), "has no energy for any of 3 crystals; of 2 of them: Attr"),
    ],
)
def test_bad_input_to_calibrate_is_one_line(
    arguments: tuple[str, ...], problem: str, tmp_path: Path, home: Path
) -> None:
    import re

    iron = [bulk("Fe") for _ in range(3)]
    for i, atoms in enumerate(iron):
        atoms.info |= {"formation_energy_per_atom": 0.1, "material_id": f"iron-{i}"}
    files = {"DATA": alloys(3), "BARE": alloys(3), "IRON": iron}
    for name, rows in files.items():
        ase.io.write(tmp_path / f"{name}.extxyz", rows)
    filled = [str(tmp_path / f"{a}.extxyz") if a in files else a for a in arguments]
    status, said = calibrate(*filled, "--workers", 0)
    assert status == 2 and re.search(problem, said), said
    assert len([line for line in said.splitlines() if line.startswith("Error")]) == 1
    assert not home.exists()
