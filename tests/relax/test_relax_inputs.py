"""Constraints, keys and damaged entries of other people's files, in the commands on energies."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from click.testing import CliRunner
from small_mace import save_small_mace

from adit_plugins import write_samples
from adit_plugins.cli import main
from adit_plugins.dft.engines import compute, with_moments
from adit_plugins.relax.ase_relaxer import AseRelaxer
from adit_plugins.relax.results import RelaxResult
from adit_plugins.relax.run import RelaxerError, relax
from adit_plugins.structures.samples import Sample

EMT_SPEC = "ase.calculators.emt:EMT"
CELL = '2\nLattice="0 2.82 2.82 2.82 0 2.82 2.82 2.82 0" Properties=species:S:1:pos:R:3 {}\n'
SITES = "Na 0 0 0\nCl 2.82 2.82 2.82\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def adit(*arguments: str) -> Any:
    return CliRunner().invoke(main, list(arguments))


def emt() -> AseRelaxer:
    return AseRelaxer("emt", EMT())


class Deaf:
    """A relaxer that says nothing about constraints."""

    name = "deaf"

    def relax(self, batch: Sequence[Atoms], fmax: float, max_steps: int) -> list[RelaxResult]:
        return emt().relax(batch, fmax, max_steps)


def copper(fixed: Sequence[int] = ()) -> Atoms:
    atoms = bulk("Cu", a=3.6, cubic=True)
    atoms.rattle(0.1, seed=3)
    atoms.set_constraint(FixAtoms(list(fixed)) if fixed else None)
    return atoms


def true_force(atoms: Atoms) -> float:
    free = atoms.copy()
    free.set_constraint()
    free.calc = EMT()
    return float(np.linalg.norm(free.get_forces(), axis=1).max())


def test_constraints_are_dropped_and_said_by_default() -> None:
    free, held = relax([copper(), copper([0, 1, 2, 3])], emt, workers=0)
    assert held.constraints == "dropped" and free.constraints == ""
    assert held.energy == pytest.approx(free.energy)
    assert held.converged and held.max_force == pytest.approx(true_force(held.atoms))
    assert not held.atoms.constraints and held.max_free_force is None


@pytest.mark.parametrize("fixed", [[0, 1, 2, 3], [0, 1]])
def test_kept_constraints_hold_and_the_force_is_the_true_one(fixed: list[int]) -> None:
    given = copper(fixed)
    (result,) = relax([given], emt, 0.03, workers=0, keep_constraints=True)
    assert result.converged and result.constraints == "kept"
    before, after = given.get_scaled_positions(), result.atoms.get_scaled_positions()
    np.testing.assert_allclose(after[fixed], before[fixed], atol=1e-6)
    assert result.max_force == pytest.approx(true_force(result.atoms))
    assert result.max_force > 0.1  # on what is held
    assert result.max_free_force is not None and result.max_free_force < 0.03


def test_a_potential_that_knows_no_constraints_is_not_given_any(tmp_path: Path) -> None:
    salt = bulk("NaCl", "rocksalt", a=5.5)
    salt.set_constraint(FixAtoms([0]))
    file = save_small_mace(tmp_path / "small.model")
    for name in ("mace-adit", f"torch-sim:{file}"):
        if name.startswith("torch-sim"):
            pytest.importorskip("torch_sim")
        (result,) = relax([salt], name, max_steps=2, workers=0)
        assert result.constraints == "dropped" and not result.atoms.constraints
        with pytest.raises(RelaxerError, match="cannot keep constraints"):
            relax([salt], name, workers=0, keep_constraints=True)
    with pytest.raises(RelaxerError, match="cannot keep constraints"):
        relax([copper([0])], Deaf, workers=1, keep_constraints=True)


def test_adit_relax_says_what_became_of_constraints(place: Path) -> None:
    ase.io.write("in.extxyz", [copper([0]), copper()])
    command = ("relax", "in.extxyz", "--relaxer", EMT_SPEC, "--workers", "0", "--out")
    result = adit(*command, "free.extxyz")
    assert "Constraints of 1 of 2 structures were dropped" in result.stdout
    free: list[Atoms] = ase.io.read("free.extxyz", ":")
    assert not free[0].constraints
    assert free[0].get_potential_energy() == pytest.approx(free[1].get_potential_energy())
    result = adit(*command, "held.extxyz", "--keep-constraints")
    assert "1 of 2 structures kept their constraints" in result.stdout
    held: list[Atoms] = ase.io.read("held.extxyz", ":")
    record = held[0].info["relax"]
    raw = held[0].get_forces(apply_constraint=False)
    assert np.linalg.norm(raw, axis=1).max() == pytest.approx(record["max_force"], abs=1e-6)
    result = adit("hull", "held.extxyz", "--convention", "mp2020")
    assert "2 of 2 have a place" in result.stdout
    assert result.stdout.count("*") == 2  # of the row, and what it means


def test_a_bad_frame_is_a_failure_of_its_own(place: Path) -> None:
    ase.io.write("whole.extxyz", [copper() for _ in range(3)])
    text = Path("whole.extxyz").read_text().splitlines(keepends=True)
    Path("in.extxyz").write_text("".join(text[:8] + text[9:]))  # the second lacks an atom
    command = ("relax", "in.extxyz", "--relaxer", EMT_SPEC, "--workers", "0")
    result = adit(*command)
    assert result.exit_code == 0, result.output
    assert "3 of 3 structures in relaxed.extxyz; 1 failed" in result.stdout
    assert "1 unreadable: says 4 atoms and has 3" in result.stdout
    result = adit("hull", "relaxed.extxyz", "--convention", "mp2020", "--json", "hull.json")
    assert result.exit_code == 0 and "2 of 3 have a place" in result.stdout
    rows = json.loads(Path("hull.json").read_text())["structures"]
    assert [row["energy_above_hull"] is None for row in rows] == [False, True, False]
    assert "unreadable: says 4 atoms" in rows[1]["problem"]
    again = adit(*command, "--resume")
    assert "3 of 3 structures in relaxed.extxyz; 1 failed" in again.stdout
    # The same from the damaged file itself.
    result = adit("hull", "in.extxyz", "--convention", "mp2020")
    assert result.exit_code == 2 and "none of the 3 structures" in result.stderr


def test_nothing_readable_is_an_error(place: Path) -> None:
    Path("in.extxyz").write_text("8\nno atoms\n")
    for command in (
        ("relax", "in.extxyz"),
        ("hull", "in.extxyz"),
        ("dft", "in.extxyz", "--engine", "ase:emt"),
        ("submit", "lemat-genbench", "in.extxyz", "--num", "1", "--out", "x"),
        ("submit", "matbench-discovery", "in.extxyz", "--out", "x"),
    ):
        result = adit(*command)
        assert result.exit_code == 2
        assert "says 8 atoms and has 0" in result.stderr and result.stderr.count("\n") == 1


def test_a_crash_costs_the_structure_at_work_alone(place: Path) -> None:
    ase.io.write("in.extxyz", [bulk("Cu", a=a) for a in (3.5, 3.7, 3.8)])
    command = ("relax", "in.extxyz", "--relaxer", EMT_SPEC, "--workers", "0")
    assert adit(*command).exit_code == 0
    whole = Path("relaxed.extxyz").read_text()
    seconds = [atoms.info["relax"]["seconds"] for atoms in ase.io.read("relaxed.extxyz", ":")]
    for lost in (1, 60, len(whole.splitlines()[-1]) + 20):  # characters of the last frame
        Path("relaxed.extxyz").write_text(whole[:-lost])
        result = adit(*command, "--resume")
        assert "3 of 3" in result.stdout, result.output
        again = [atoms.info["relax"]["seconds"] for atoms in ase.io.read("relaxed.extxyz", ":")]
        assert again[:2] == seconds[:2] and again[2] != seconds[2]
    lines = whole.splitlines(keepends=True)
    Path("relaxed.extxyz").write_text("".join(lines[:2] + lines[3:]))  # not the work of a crash
    result = adit(*command, "--resume")
    assert result.exit_code == 2 and "structure 0" in result.stderr


def test_submissions_count_what_cannot_be_read(place: Path) -> None:
    ase.io.write("whole.extxyz", [copper([0]), copper(), copper()])
    text = Path("whole.extxyz").read_text().splitlines(keepends=True)
    molecule = "2\n\nCu 0 0 0\nCu 0 0 2\n"
    Path("in.extxyz").write_text("".join(text[:8] + text[9:]) + molecule)
    emt_options = ("--workers", "0", "--out")
    command = ("submit", "matbench-discovery", "in.extxyz", "--relaxer", EMT_SPEC, *emt_options)
    result = adit(*command, "mb")
    assert result.exit_code == 0, result.output
    assert "Constraints of 1 of 3 structures were dropped" in result.stdout
    assert "1 of 4 structures cannot be used" in result.stdout
    summary = json.loads(Path("mb/summary.json").read_text())
    counts = [summary[name] for name in ("materials", "unreadable", "relaxed", "converged")]
    assert counts == [4, 1, 2, 2] and summary["constraints dropped"] == 1
    assert summary["potentials"] == [EMT_SPEC]
    command = ("submit", "lemat-genbench", "in.extxyz", "--num", "4", "--relax", EMT_SPEC)
    result = adit(*command, *emt_options, "lm")
    assert result.exit_code == 0, result.output
    assert "2 of 4 structures cannot be used" in result.stdout
    form = json.loads(Path("lm/submission.json").read_text())
    assert form["num_structures"] == 2 and len(form["unreadable"]) == 2
    assert form["relaxation"]["constraints_dropped"] == 1
    assert len(Path("lm/structures.csv").read_text().splitlines()) == 3
    kept = adit(*command, "--keep-constraints", *emt_options, "kept")
    assert "1 of 2 structures kept their constraints" in kept.stdout
    alone = adit("submit", "lemat-genbench", "in.extxyz", "--keep-constraints", "--out", "x")
    assert "needs --relax" in alone.stderr


def test_dft_counts_what_it_cannot_compute_and_drops_constraints(place: Path) -> None:
    ase.io.write("in.extxyz", [copper([0, 1, 2, 3]), copper()])
    with Path("in.extxyz").open("a") as file:
        file.write("2\n\nCu 0 0 0\nCu 0 0 2\n3\ncut\nCu 0 0 0\n")
    command = ("dft", "in.extxyz", "--engine", "ase:emt", "--workers", "0", "--relax-steps", "50")
    result = adit(*command, "--out", "free.json")
    assert result.exit_code == 0, result.output
    assert "2 of 4 structures computed" in result.stdout and "is no crystal" in result.stdout
    assert "Constraints of 1 of 4 structures were dropped" in result.stdout
    rows = json.loads(Path("free.json").read_text())
    assert [row["energy_per_atom"] is None for row in rows] == [False, False, True, True]
    assert "says 3 atoms" in rows[3]["reason"]
    assert rows[0]["energy_per_atom"] == pytest.approx(rows[1]["energy_per_atom"], abs=1e-4)
    result = adit(*command, "--out", "held.json", "--keep-constraints")
    held = json.loads(Path("held.json").read_text())
    assert held[0]["energy_per_atom"] > rows[0]["energy_per_atom"] + 1e-3
    assert held[0]["reason"] == "converged" and held[0]["max_force"] > 0.1
    assert "1 of 4 structures kept their constraints" in result.stdout


def test_screening_and_scoring_say_that_constraints_play_no_part(place: Path) -> None:
    ase.io.write("in.extxyz", [copper([0]), copper()])
    result = adit("evaluate", "in.extxyz", "--workers", "1")
    assert "constraints of 1 structures dropped" in result.stdout
    result = adit("discover", "in.extxyz", "--out", "found", "--no-relax", "--workers", "0")
    assert result.exit_code == 0, result.output
    assert "Constraints of 1 of 2 structures were dropped" in result.stdout


def test_dft_inputs_hold_atoms_only_when_told(place: Path) -> None:
    ase.io.write("in.extxyz", [copper([0, 1, 2, 3]), copper()])
    with Path("in.extxyz").open("a") as file:
        file.write("3\ncut\nCu 0 0 0\n")
    command = ("dft", "in.extxyz", "--inputs")
    for code, mark, name in (
        ("vasp", "^Selective dynamics$", "POSCAR"),
        ("espresso", "^Cu .* 0 0 0$", "espresso.pwi"),
    ):
        result = adit(*command, code, "--out", code)
        assert result.exit_code == 0, result.output
        assert "Constraints of 1 of 2 structures were dropped" in result.stdout
        assert "1 of 3 structures were left out" in result.stdout
        free = Path(code, "0001-Cu", name).read_text()
        assert adit(*command, code, "--out", f"{code}2", "--keep-constraints").exit_code == 0
        held = Path(f"{code}2", "0001-Cu", name).read_text()
        assert [bool(re.search(mark, each, re.M)) for each in (free, held)] == [False, True]


def test_left_handed_crystals_become_right_handed_inputs(place: Path) -> None:
    atoms = copper()
    atoms.set_cell(atoms.cell[[1, 0, 2]])
    ase.io.write("in.extxyz", atoms)
    for code, name in (("vasp", "POSCAR"), ("espresso", "espresso.pwi")):
        assert adit("dft", "in.extxyz", "--inputs", code, "--out", code).exit_code == 0
        written = ase.io.read(Path(code, "0001-Cu", name))
        assert written.cell.handedness == 1
        written.calc, atoms.calc = EMT(), EMT()
        assert written.get_potential_energy() == pytest.approx(atoms.get_potential_energy())
    (result,) = compute("ase:emt", {}, 0, 0.05, [atoms])
    assert result.atoms.cell.handedness == 1
    assert result.energy == pytest.approx(atoms.get_potential_energy())


def test_moments_that_are_vectors_stop_nothing(place: Path) -> None:
    """Where only collinear moments or none are known, those of the file stay behind."""
    fields = "Properties=species:S:1:pos:R:3:initial_magmoms:R:3 energy=-12.0"
    lattice = 'Lattice="0 2.15 2.15 2.15 0 2.15 2.15 2.15 0"'
    sites = "Fe 0 0 0 0 0 4\nO 2.15 0 0 0 0 0\n"
    Path("in.extxyz").write_text(f'2\n{lattice} {fields} pbc="T T T"\n{sites}')
    bare = bulk("FeO", "rocksalt", a=4.3)
    place_of = []
    for name in ("in.extxyz", "bare.traj"):
        if name == "bare.traj":
            bare.calc = SinglePointCalculator(bare, energy=-12.0)
            ase.io.write(name, bare)
        result = adit("hull", name, "--convention", "mp-raw", "--json", "hull.json")
        assert result.exit_code == 0, result.output
        (row,) = json.loads(Path("hull.json").read_text())["structures"]
        place_of.append(row["energy_above_hull"])
    assert place_of[0] == pytest.approx(place_of[1])
    for code in ("vasp", "espresso"):
        assert adit("dft", "in.extxyz", "--inputs", code, "--out", code).exit_code == 0
    assert "MAGMOM = 5.0 0.6" in " ".join(Path("vasp/0001-FeO/INCAR").read_text().split()).replace(
        "1*", ""
    )
    assert "nspin" in Path("espresso/0001-FeO/espresso.pwi").read_text()
    moments = with_moments(ase.io.read("in.extxyz")).get_initial_magnetic_moments()
    assert moments.tolist() == [5.0, 0.0]
    for command in (
        ("relax", "in.extxyz", "--max-steps", "1", "--workers", "0"),
        ("submit", "lemat-genbench", "in.extxyz", "--num", "1", "--out", "lm"),
        ("submit", "matbench-discovery", "in.extxyz", "--max-steps", "1", "--workers", "0",
         "--out", "mb"),
        ("evaluate", "in.extxyz", "--workers", "1"),
        ("discover", "in.extxyz", "--out", "found", "--no-relax", "--workers", "0"),
    ):  # fmt: skip
        result = adit(*command)
        assert result.exit_code == 0, (command, result.output)


FOREIGN = {
    "relax": ["T", '"_JSON {\\"num_steps\\": \\"many\\"}"', "yes", '"1 2 3"'],
    "adit": ["T", "yes", '"_JSON [1]"', '"_JSON {\\"id\\": [1]}"', "7"],
    "material_id": ['"1 2 3"', "T"],
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, each in FOREIGN.items() for v in each])
def test_keys_of_the_users_own_break_nothing(place: Path, key: str, value: str) -> None:
    Path("in.extxyz").write_text(CELL.format(f'pbc="T T T" energy=-6.8 {key}={value}') + SITES)
    for command in (
        ("hull", "in.extxyz", "--convention", "mp2020"),
        ("relax", "in.extxyz", "--max-steps", "0", "--workers", "0"),
        ("submit", "lemat-genbench", "in.extxyz", "--num", "1", "--out", "lemat"),
        ("submit", "matbench-discovery", "in.extxyz", "--max-steps", "0", "--workers", "0",
         "--out", "matbench"),
        ("evaluate", "in.extxyz", "--workers", "1", "--json", "e.json"),
        ("discover", "in.extxyz", "--out", "found", "--no-relax", "--workers", "0"),
        ("dft", "in.extxyz", "--inputs", "vasp", "--out", "vasp"),
    ):  # fmt: skip
        result = adit(*command)
        assert result.exit_code == 0, (command, result.output, result.exception)
    rates = json.loads(Path("e.json").read_text())
    assert "unreadable" not in json.dumps(rates["sets"][0].get("notes", []))


@pytest.mark.parametrize("value", ['"1 2 3"', "much", "T", "nan"])
def test_an_energy_that_is_no_number_has_no_place(place: Path, value: str) -> None:
    bad = CELL.format(f'pbc="T T T" energy={value}') + SITES
    good = CELL.format('pbc="T T T" energy=-6.8') + SITES
    Path("in.extxyz").write_text(bad + good)
    result = adit("hull", "in.extxyz", "--convention", "mp2020")
    assert result.exit_code == 0, result.output
    assert "1 of 2 have a place" in result.stdout and "no energy: " in result.stdout


def test_texts_of_several_lines_are_written_in_one(place: Path) -> None:
    atoms = copper()
    atoms.info["note"] = "two\nlines"
    ase.io.write("in.traj", [atoms])
    command = ("relax", "in.traj", "--relaxer", EMT_SPEC, "--workers", "0", "--max-steps", "0")
    assert adit(*command).exit_code == 0
    assert ase.io.read("relaxed.extxyz").info["note"] == "two lines"


def test_known_elements_are_listed_once(place: Path) -> None:
    good = CELL.format('pbc="T T T" energy=-6.8') + SITES
    Path("in.extxyz").write_text(good + good.replace("Na", "Po") * 2)
    stdout = " ".join(adit("hull", "in.extxyz", "--convention", "mp2020").stdout.split())
    assert stdout.count("No reference energy for Po.") == 2
    assert stdout.count("Known elements: Ac,") == 1


def test_names_reach_the_tables_and_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File names go from a folder into relaxations and the hull; what is broken is named."""
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    ase.io.write("mine/b_first.cif", bulk("Cu"))
    ase.io.write("mine/a_second.cif", bulk("AlNi", "cesiumchloride", a=2.9))
    Path("mine/broken.cif").write_text("data_x\n_cell 1\n")
    command = ["relax", "mine", "--relaxer", "cheap_potential:make", "--max-steps", "2",
               "--workers", "0"]  # fmt: skip
    relaxed = CliRunner(env={"COLUMNS": "80"}).invoke(main, command)
    assert relaxed.exit_code == 0, relaxed.output
    assert "1 of 3 structures were left out:\n  broken.cif: " in relaxed.output
    rows = [line.split() for line in relaxed.stdout.splitlines()]
    assert [row[0] for row in rows if row[-2:] == ["step", "limit"] and len(row) > 6] == [
        "a_second", "b_first",
    ]  # fmt: skip
    placed = CliRunner(env={"COLUMNS": "80"}).invoke(main, ["hull", "relaxed.extxyz"])
    rows = [line.split() for line in placed.stdout.splitlines()]
    assert {(row[1], row[-1]) for row in rows if row[-1:] and row[-1] in ("a_second", "b_first")} \
        == {("AlNi", "a_second"), ("Cu", "b_first")}  # fmt: skip
    assert any(line.startswith("broken: ") for line in placed.stdout.splitlines())
    found = CliRunner().invoke(main, ["discover", "mine", "--no-relax", "--workers", "0"])
    assert "1 of 3 could not be read, and count as invalid:\n  broken.cif: " in found.output
    scored = CliRunner().invoke(main, ["evaluate", "mine", "--workers", "0"])
    assert scored.output.count("broken.cif") == 1


def test_relax_takes_what_people_hold() -> None:
    silver = bulk("Ag", cubic=True)
    silver.rattle(0.05, seed=1)
    held = [silver, Sample.from_ase(silver), Sample.from_ase(silver).to_pymatgen()]
    results = relax(held, "cheap_potential:make", max_steps=3, workers=0)
    assert [each.failed for each in results] == [False] * 3
    assert len({round(each.energy, 5) for each in results if each.energy is not None}) == 1
    for one in held:
        with pytest.raises(TypeError, match=r"not one \w+; put a single one into \[ \]"):
            relax(one, "cheap_potential:make", workers=0)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="write_samples takes a list"):
            write_samples(one, "never.extxyz")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="cannot convert 'int'"):
        relax([3], "cheap_potential:make", workers=0)  # type: ignore[list-item]
