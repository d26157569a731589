"""Campaigns and searches that are ranked by a reference of the user's choice."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import ase.io
import pytest
from ase.build import bulk
from click.testing import CliRunner, Result
from pymatgen.analysis.phase_diagram import PDEntry
from pymatgen.core import Composition
from test_campaign import SERIAL

from adit_plugins.campaign import Campaign, Settings, Store, StructuresSource
from adit_plugins.campaign.dft_stage import hull_of
from adit_plugins.campaign.merge import StoreError, merge
from adit_plugins.cli import main
from adit_plugins.hull.entries import AskedHull, HullSourceError, total_of
from adit_plugins.hull.loaders import file_of, load_hull, reads_only_data, with_absolute_path
from adit_plugins.relax.run import relax

TABLE = "formula,hull_energy_per_atom\nAgN,-0.5\nAg3N,-1.25\nNaCl,-1.0\n"
CHEAP = "cheap_potential:make"
CRYSTAL = bulk("AgN", "zincblende", a=5.1)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a crystal and a small table, in which the commands run."""
    monkeypatch.chdir(tmp_path)
    ase.io.write("mine.cif", CRYSTAL)
    Path("own.csv").write_text(TABLE)
    return tmp_path


def discover(*words: str) -> Result:
    common = ["--executor", "serial", "--max-steps", "2"]
    return CliRunner().invoke(main, ["discover", *words, *common])


def begin(out: str, hull: str, *words: str) -> Result:
    return discover("mine.cif", "--relaxer", CHEAP, "--hull", hull, "--out", out, *words)


def resume(out: str, *words: str) -> Result:
    words = ("--resume", out, "--relaxer", CHEAP, *words, "--executor", "serial")
    return CliRunner().invoke(main, ["discover", *words])


def ranked(out: str) -> dict[str, str]:
    with Path(out, "ranking.csv").open() as file:
        (row,) = csv.DictReader(file)
    return row


def test_a_campaign_is_ranked_by_the_chosen_table(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped, own = begin("shipped", "mp"), begin("own", "table:own.csv")
    assert shipped.exit_code == own.exit_code == 0, own.output
    assert "Hull: table own.csv." in " ".join(own.output.split())
    row, usual = ranked("own"), ranked("shipped")
    assert row["hull"] == "table own.csv" and usual["hull"].startswith("Materials Project")
    # The same energy, above -0.5 eV/atom of the table's own AgN, half way along no other phase.
    formation = float(row["formation_energy_per_atom"])
    assert formation == pytest.approx(float(usual["formation_energy_per_atom"]))
    expected = load_hull("table:own.csv").energy_above_hull("AgN", formation).energy_above_hull
    assert float(row["energy_above_hull"]) == pytest.approx(expected)
    assert float(row["energy_above_hull"]) != pytest.approx(float(usual["energy_above_hull"]))
    assert row["novelty"] == "known formula"
    for name in ("metastable_probability", "likely_too_low_by"):
        assert not row[name]  # both were counted on the shipped table
    settings = json.loads(Path("own/summary.json").read_text())["settings"]
    assert settings["hull"] == f"table:{here / 'own.csv'}"
    assert f"--hull table:{here / 'own.csv'}" in Path("own/report.html").read_text()
    with Store(here / "own", read_only=True) as store:
        assert hull_of(store).source == "table own.csv"
    monkeypatch.chdir(here / "own")
    assert resume("../own").exit_code == 0  # found from any folder


def test_a_second_opinion_and_a_pre_filter_are_placed_on_it(here: Path) -> None:
    opinion = ["--confirm", "cheap_potential:make_pessimist", "--confirm-limit", "99"]
    filtered = ["--prefilter", CHEAP, "--prefilter-limit", "99"]
    result = begin("out", "table:own.csv", *opinion, *filtered)
    assert result.exit_code == 0, result.output
    (record,) = json.loads(Path("out/candidates.json").read_text())["crystals"]
    assert record["hull"]["source"] == record["confirm"]["hull"]["source"] == "table own.csv"
    hull = load_hull("table:own.csv")
    formation = hull.formation_energy_per_atom("AgN", record["prefilter"]["energy_per_atom"])
    expected = hull.energy_above_hull("AgN", formation).energy_above_hull
    assert record["prefilter_energy_above_hull"] == pytest.approx(expected)


def test_another_hull_does_not_go_on(here: Path) -> None:
    assert begin("out", "table:own.csv").exit_code == 0
    assert resume("out", "--hull", "table:own.csv").exit_code == 0
    other = resume("out", "--hull", "mp")
    assert other.exit_code and other.stderr.count("\n") == 1
    assert f"begun with the hull 'table:{here / 'own.csv'}', not with 'mp'" in other.stderr
    Path("own.csv").write_text(TABLE + "KN,-0.1\n")
    changed = resume("out")
    assert changed.exit_code and changed.stderr.count("\n") == 1
    assert "own.csv is not the file by which this campaign's crystals were ranked" in changed.stderr
    Path("own.csv").unlink()
    gone = resume("out")
    assert gone.exit_code and "own.csv" in gone.stderr and gone.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("hull", "words"),
    [
        ("alexandrai", "Known: alexandria"),
        ("table:none.csv", "none.csv"),
        ("table", "This reference needs a file: table:FILE"),
        ("entries:own.csv", "is no JSON of pymatgen entries"),
        ("mp-api:my-key", "keep the key in MP_API_KEY"),
    ],
)
def test_what_cannot_be_read_is_refused_before_anything_is_made(
    hull: str, words: str, here: Path
) -> None:
    result = begin("out", hull)
    assert result.exit_code and words in result.stderr, result.stderr
    assert result.stderr.count("\n") == 1 and not Path("out").exists()
    assert begin("out", "mp").exit_code == 0
    kept = Path("out/results.db").read_bytes()
    assert begin("out", hull, "--overwrite").exit_code  # and what was there stays
    assert Path("out/results.db").read_bytes() == kept


@pytest.mark.parametrize("words", [["--no-relax"], ["--kind", "molecule"]])
def test_a_hull_for_nothing_is_refused(words: list[str], here: Path) -> None:
    file = [] if "--kind" in words else ["mine.cif"]
    result = discover(*file, "--hull", "table:own.csv", "--out", "out", *words)
    assert result.exit_code == 2 and "--hull would have no effect" in result.stderr


def test_no_store_decides_that_a_pickle_is_read(here: Path, monkeypatch: Any) -> None:
    """A store from elsewhere may name any file; who names it once more has been asked."""
    read: list[str | None] = []

    def diagram(path: str | None = None) -> Any:
        read.append(path)
        return load_hull("table:own.csv")

    monkeypatch.setattr("adit_plugins.hull.loaders.from_matbench_discovery", diagram)
    Path("ppd.pkl.gz").touch()
    assert begin("out", "matbench-discovery:ppd.pkl.gz").exit_code == 0
    read.clear()
    refused = resume("out")
    assert refused.exit_code and "name it once more: --hull matbench-discovery:" in refused.stderr
    with Store(here / "out", read_only=True) as store, pytest.raises(ValueError, match="any code"):
        hull_of(store)
    assert not read
    assert resume("out", "--hull", "matbench-discovery:ppd.pkl.gz").exit_code == 0


def test_shards_of_different_tables_are_not_merged(here: Path) -> None:
    source = StructuresSource(lambda start: [CRYSTAL, CRYSTAL * (1, 1, 2)][start:], 2)
    for number, text in enumerate((TABLE, TABLE, TABLE + "KN,-0.1\n")):
        folder = here / f"shard-{number}"
        folder.mkdir()
        Path("own.csv").write_text(text)
        settings = Settings(CHEAP, max_steps=1, hull="table:own.csv")
        with Campaign.create(folder, source, settings, SERIAL, (min(number, 1), 2)) as campaign:
            campaign.run()
    (here / "out").mkdir()
    with pytest.raises(StoreError, match="not the same file of the hull"):
        merge([here / "shard-0", here / "shard-2"], here / "out")
    with merge([here / "shard-0", here / "shard-1"], here / "out") as merged:
        assert merged.candidates()
    with Store(here / "shard-0") as store:  # as an earlier version wrote it
        settings_then = {k: v for k, v in store.metadata["settings"].items() if k != "hull"}
        store.change_metadata(settings=settings_then | {"relaxer": None}, hull_sha256=None)
    with Campaign.open(here / "shard-0", source, SERIAL) as campaign:
        assert campaign.settings.hull == "mp"


def test_a_reference_that_is_asked_knows_its_formulas() -> None:
    entries = [PDEntry(Composition(name), energy) for name, energy in
               {"Ag": -2.0, "N2": -10.0, "AgN": -8.0}.items()]  # fmt: skip

    class Asked(AskedHull):
        def _entries_of(self, symbols: frozenset[str]) -> list[Any]:
            if "K" in symbols:
                raise HullSourceError("no network")
            totals = [total_of(entry) for entry in entries]
            return [each for each in totals if symbols >= set(each.amounts)]

    hull = Asked("asked")
    assert hull.knows("AgN") and not hull.knows("Ag3N") and hull.knows("Ag")
    with pytest.raises(HullSourceError):
        hull.knows("KCl")


def test_what_a_reference_remembers_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adit_plugins.hull.entries.MAX_SYSTEMS", 2)
    asked = []

    class Asked(AskedHull):
        def _entries_of(self, symbols: frozenset[str]) -> list[Any]:
            asked.append(symbols)
            return [total_of(PDEntry(Composition(each), -1.0)) for each in symbols]

    hull = Asked("asked")
    for formula in ("AgN", "AgN", "KCl", "NaF", "AgN"):
        assert hull.energy_above_hull(formula, 0.5).energy_above_hull == 0.5
        assert not hull.knows(formula)
        assert len(hull._fetched) <= 2
    assert asked == [{"Ag", "N"}, {"K", "Cl"}, {"Na", "F"}, {"Ag", "N"}]


def test_a_reference_that_cannot_be_reached_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from adit_plugins.campaign import work

    def unreachable(spec: str) -> Any:
        class Asked(AskedHull):
            def _entries_of(self, symbols: frozenset[str]) -> list[Any]:
                raise HullSourceError("no network")

        return Asked(spec)

    monkeypatch.setattr(work, "kept_hull", unreachable)
    (result,) = relax([CRYSTAL], CHEAP, max_steps=0, workers=0)
    placed = work.place_result(result, "mp-api")
    assert placed.hull is None and placed.hull_problem == "no network"


def test_names_of_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for spec, path in {
        "mp": None, "alexandria": None, "mp-api": None, "theirs:x.csv": None,
        "table:a/b.csv": tmp_path / "a/b.csv", "entries:PBE:x.json": tmp_path / "x.json",
    }.items():  # fmt: skip
        made = with_absolute_path(spec)
        assert made == (spec if path is None else f"{spec[: spec.rindex(':')]}:{path}")
        assert file_of(made) == path
    safe = ["mp", "tri2024", "theirs", "tri2024:x.gz", "entries:PBE:x.json"]
    assert all(map(reads_only_data, safe))
    assert not any(map(reads_only_data, ["matbench-discovery:x.pkl", "theirs:x"]))


def test_a_search_is_ranked_by_the_chosen_table(here: Path, told_checkpoint: str) -> None:
    words = [
        "predict", "NaCl", "--num", "4", "--checkpoint", told_checkpoint, "--num-steps", "2",
        "--workers", "0", "--device", "cpu", "--prefilter", CHEAP, "--max-steps", "5",
    ]  # fmt: skip
    wrong = CliRunner().invoke(main, [*words, "--hull", "table:none.csv", "--out", "out"])
    assert wrong.exit_code and wrong.stderr.count("\n") == 1 and not Path("out").exists()
    result = CliRunner().invoke(main, [*words, "--hull", "table:own.csv", "--out", "out"])
    assert result.exit_code == 0, result.output
    assert "Hull: table own.csv." in " ".join(result.stdout.split())
    assert json.loads(Path("out/predictions.json").read_text())["hull"] == "table own.csv"
    again = CliRunner().invoke(main, [*words, "--resume", "--out", "out"])
    assert again.exit_code == 0, again.output  # nothing is sampled again, and all is ranked anew
    found = json.loads(Path("out/predictions.json").read_text())["hull"]
    assert found.startswith("Materials Project")
