"""The report as a file: what it holds, of what it is made, and what a text cannot do to it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase.io
import cheap_potential
import numpy as np
import pytest
from ase.build import bulk, molecule
from click.testing import CliRunner

from adit_plugins import ADiTGenerator, Sample
from adit_plugins.campaign import (
    Campaign,
    GeneratorSource,
    Resources,
    Settings,
    Store,
    StructuresSource,
)
from adit_plugins.campaign.files import remove_results, write_files
from adit_plugins.cli import main
from adit_plugins.report import write_campaign_report, write_report
from adit_plugins.report.commands import campaign_command
from adit_plugins.report.results import Results
from adit_plugins.report.rows import Row
from adit_plugins.structures.facts import describe_crystal

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&\"'"
SERIAL = Resources(executor="serial", chunk_size=3, block_size=4)
STRUCTURES = [
    bulk("YN", "zincblende", a=5.4), bulk("MgO", "rocksalt", a=4.3),
    bulk("NaCl", "rocksalt", a=5.69), molecule("CH3CH2OH"), molecule("C5H5N"), molecule("CH3"),
]  # fmt: skip


def begin(
    folder: Path, num: int = len(STRUCTURES), relaxer: str | None = "cheap_potential:make"
) -> Campaign:
    """A campaign over the first structures; crystals come first, and need no PoseBusters."""
    named = [atoms.copy() for atoms in STRUCTURES[:num]]
    for i, atoms in enumerate(named):
        atoms.rattle(0.01, seed=i)
        atoms.info["adit"] = {"id": HOSTILE if i == 0 else f"test/0/{i}"}
    source = StructuresSource(lambda start: named[start:], len(named))
    return Campaign.create(folder, source, Settings(relaxer, max_steps=3), SERIAL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished campaign with its report."""
    folder = tmp_path_factory.mktemp("results")
    with begin(folder) as campaign:
        campaign.run()
        write_files(campaign.store)
        write_campaign_report(campaign.store)
    return folder


def content(page: str) -> dict[str, Any]:
    """The data of a page, as a browser finds them."""
    inside = re.search(r'<script type="application/json" id="data">(.*?)</script', page, re.DOTALL)
    assert inside is not None
    found: dict[str, Any] = json.loads(inside[1])
    return found


def rows(page: str, kind: str = "crystal") -> list[dict[str, Any]]:
    table = content(page)["tables"][kind]
    return [dict(zip(table["columns"], each, strict=True)) for each in table["rows"]]


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(main, ["report", *map(str, arguments)], catch_exceptions=False)


def test_a_campaign_is_in_the_page_with_its_verdicts(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    crystals, molecules = rows(page), rows(page, "molecule")
    assert [row["formula"] for row in crystals if row["rank"]] == sorted(
        (row["formula"] for row in crystals if row["rank"]),
        key=lambda f: next(r["energy_above_hull"] for r in crystals if r["formula"] == f),
    )
    nitride = next(row for row in crystals if row["formula"] == "YN")
    with Store(folder, read_only=True) as store:
        (stored,) = (row for row in store.verdicts() if row["sample_id"] == nitride["id"])
    for name in ("energy_above_hull", "num_steps", "novel", "outcome"):
        assert nitride[name] == stored[name], name
    assert {row["formula"]: row["smiles"] for row in molecules} == {
        "C2H6O": "CCO", "C5H5N": "c1ccncc1", "CH3": None,
    }  # fmt: skip
    funnel = content(page)["sets"][0]["funnels"]
    assert funnel["crystal"][0]["numerator"] == 3 and funnel["molecule"][0]["numerator"] == 3


def test_structures_are_kept_before_and_after(folder: Path) -> None:
    table = content((folder / "report.html").read_text())["tables"]["crystal"]
    before, after = table["structures"][0]
    moved = np.abs(np.array(before["l"]) - np.array(after["l"])).max()
    assert moved > 0.01
    with Store(folder, read_only=True) as store:
        row = next(r for r in store.rows() if r.data["adit"]["id"] == table["rows"][0][1])
    assert np.allclose(np.array(after["l"]).reshape(3, 3), row.toatoms().cell.array, atol=1e-4)


def test_a_page_asks_nobody(folder: Path) -> None:
    """What the drawing library could ask for, the policy forbids; ours names no address."""
    page = (folder / "report.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None and policy[1].startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy[1] and "http" not in policy[1]
    assets = Path(__file__).parents[2] / "adit_plugins" / "report" / "assets"
    for path in assets.iterdir():
        if path.name != "3Dmol-min.js":
            addresses = re.findall(r"(?:https?:)?//\w[\w.]+\.\w+", path.read_text())
            assert set(addresses) <= {"http://www.w3.org"}, path.name  # the name of SVG
    assert not re.search(r"<(?:link|iframe|img|script)[^>]+(?:src|href)=", page.split("<style>")[0])


def test_hostile_texts_stay_texts(folder: Path, tmp_path: Path) -> None:
    page = (folder / "report.html").read_text()
    assert HOSTILE in [row["id"] for row in rows(page)]
    assert "<script>alert" not in page and "<img src=x" not in page
    (tmp_path / "set").mkdir()
    name = "a<img src=x onerror=alert(3)>&'.cif"
    bulk("Cu").write(tmp_path / "set" / name, format="cif")
    assert run(tmp_path / "set").exit_code == 0
    page = (tmp_path / "set" / "report.html").read_text()
    assert name in str(rows(page)) and "<img src=x" not in page


def test_scripts_never_make_markup_of_texts() -> None:
    assets = Path(__file__).parents[2] / "adit_plugins" / "report" / "assets"
    for path in assets.glob("*.js"):
        if path.name != "3Dmol-min.js":
            ours = path.read_text()
            assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", ours)
            assert len(ours.splitlines()) <= 350


def test_a_running_campaign_has_a_page_that_says_so(tmp_path: Path) -> None:
    pages: list[str] = []

    def look(stage: str, done: int, total: int) -> None:
        """As another process would, while the driver has the store for itself."""
        if done and not pages:
            assert run(tmp_path, "--out", tmp_path / "now.html").exit_code == 0
            pages.append((tmp_path / "now.html").read_text())

    with begin(tmp_path, num=3) as campaign:
        campaign.run(look)
        write_campaign_report(campaign.store)
    (note,) = (n for n in content(pages[0])["sets"][0]["notes"] if "Not finished" in n)
    there = len(rows(pages[0]))
    assert there > 0 and note.startswith(f"Not finished: {there} of 3")
    finished = content((tmp_path / "report.html").read_text())
    assert not any("Not finished" in note for note in finished["sets"][0]["notes"])


def test_a_store_that_is_looked_at_cannot_be_written(folder: Path) -> None:
    with Store(folder, read_only=True) as store, pytest.raises(ValueError, match="read only"):
        store.annotate(1, {"novel": None}, {})


def test_old_pages_go_with_old_results(tmp_path: Path) -> None:
    with begin(tmp_path, num=1, relaxer=None) as campaign:
        campaign.run()
        write_files(campaign.store)
        write_campaign_report(campaign.store)
    remove_results(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_what_has_no_room_is_counted(tmp_path: Path) -> None:
    copper = Sample.from_ase(bulk("Cu"))
    made = Results("many", lambda _: (Row("crystal", {"id": str(i)}, [copper]) for i in range(500)),
                   {"crystal": 500})  # fmt: skip
    path = write_report([made], tmp_path / "page.html", max_chars=20_000)
    shown = len(rows(path.read_text()))
    (note,) = content(path.read_text())["sets"][0]["notes"]
    assert 50 < shown < 500
    assert note.startswith(f"{shown} of 500 crystals are in this page")
    assert [row["id"] for row in rows(path.read_text())] == [str(i) for i in range(shown)]


def test_ten_thousand_crystals_fit_into_fifteen_megabytes(tmp_path: Path) -> None:
    path = write_report([many(10_000)], tmp_path / "page.html")
    assert path.stat().st_size < 15_000_000
    assert len(rows(path.read_text())) == 10_000


def many(num: int) -> Results:
    """Crystals of ten atoms, before and after, as a campaign leaves them."""
    rng = np.random.default_rng(0)
    salt = bulk("NaCl", "rocksalt", a=5.69) * (5, 1, 1)
    values = describe_crystal(Sample.from_ase(salt)) | {
        "structure_valid": True, "composition_valid": True, "unique": True, "novel": True,
        "converged": True, "outcome": "converged", "potential": "chgnet-0.3.0",
        "num_subsystems": 1, "num_subsystems_covered": 1, "num_reference_phases": 3,
    }  # fmt: skip

    def make(_: str) -> Iterator[Row]:
        for i in range(num):
            pair = [salt.copy(), salt.copy()]
            for atoms in pair:
                atoms.positions += rng.normal(scale=0.1, size=(10, 3))
            own = {"rank": i + 1, "id": f"adit-joint/0/{i}", "energy_above_hull": i / num,
                   "formation_energy_per_atom": -2 + rng.random()}  # fmt: skip
            yield Row("crystal", {**values, **own}, [Sample.from_ase(atoms) for atoms in pair])

    return Results("many", make, {"crystal": num})


def test_files_of_structures_and_evaluations_have_pages(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "set.extxyz", [bulk("NaCl", "rocksalt", a=5.69), molecule("H2O")])
    done = run(tmp_path / "set.extxyz")
    assert done.exit_code == 0 and "2 structures" in done.output
    page = (tmp_path / "report.html").read_text()
    assert rows(page)[0]["space_group"] == 225 and rows(page)[0]["structure_valid"]
    assert rows(page, "molecule")[0]["smiles"] == "O"

    scores = tmp_path / "scores.json"
    evaluated = CliRunner().invoke(
        main, ["evaluate", str(tmp_path / "set.extxyz"), "--fast", "--workers", "0",
               "--json", str(scores)], catch_exceptions=False,
    )  # fmt: skip
    assert evaluated.exit_code == 0
    run(scores)
    page = (tmp_path / "report.html").read_text()
    (salt,) = rows(page)
    assert salt["lemat_valid"] is True and salt["novel"] is False
    assert content(page)["tables"]["crystal"]["structures"][0][0]["z"] == [11, 17]
    (tmp_path / "set.extxyz").unlink()
    run(scores)
    page = (tmp_path / "report.html").read_text()
    assert content(page)["tables"]["crystal"]["structures"] == [[]]
    assert "not there any more" in content(page)["sets"][0]["notes"][-1]


def test_sets_are_put_side_by_side(folder: Path, tmp_path: Path) -> None:
    ase.io.write(tmp_path / "set.extxyz", [bulk("NaCl", "rocksalt", a=5.69)])
    run(folder, tmp_path / "set.extxyz", folder, "--out", tmp_path / "both.html")
    page = (tmp_path / "both.html").read_text()
    names = [each["name"] for each in content(page)["sets"]]
    assert names == [folder.name, "set.extxyz", f"{folder.name} (2)"]
    assert [row["set"] for row in rows(page)] == [0, 0, 0, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/nothing"], "no such file or folder"),
        (["{set}", "--out", "{tmp}/no/page.html"], "there is no folder"),
        (["{set}", "--out", "{tmp}"], "it is a folder"),
        (["{set}", "--out", "{set}"], "is read"),
        (["{set}", "--out", "{tmp}/page.txt"], "Name it .html"),
    ],
)
def test_what_cannot_be_done_is_said(
    tmp_path: Path, arguments: list[str], message: str
) -> None:  # fmt: skip
    ase.io.write(tmp_path / "set.xyz", molecule("H2O"))
    places = {"tmp": tmp_path, "set": tmp_path / "set.xyz"}
    done = run(*(each.format(**places) for each in arguments))
    assert done.exit_code == 2 and message in done.output
    assert not list(tmp_path.glob("*.html"))
    assert ase.io.read(tmp_path / "set.xyz").get_chemical_formula() == "H2O"


def test_the_command_makes_the_sample_again(
    tiny_checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = ADiTGenerator(
        checkpoint=tiny_checkpoint, num_steps=3, seed=4, exclude_elements=["H"]
    )
    with Campaign.create(
        tmp_path, GeneratorSource([generator], 3), Settings(relaxer=None), SERIAL
    ) as campaign:
        campaign.run()
        write_campaign_report(campaign.store)
    page = (tmp_path / "report.html").read_text()
    (about,) = content(page)["sets"]
    number = [row["id"] for row in rows(page)].index("tiny/4/2")
    kept = content(page)["tables"]["crystal"]["structures"][number][0]
    monkeypatch.chdir(tmp_path)
    command = about["commands"]["crystal"].replace("{id}", "tiny/4/2")
    done = CliRunner().invoke(main, shlex.split(command)[1:], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    again = ase.io.read(tmp_path / "sample.cif")
    assert sorted(again.numbers) == sorted(kept["z"])
    assert again.cell.lengths() == pytest.approx(
        np.linalg.norm(np.array(kept["l"]).reshape(3, 3), axis=1), abs=1e-3
    )
    whole = shlex.split(about["command"])
    assert whole[:4] == ["adit", "discover", "--num", "3"] and "--no-relax" in whole
    main.commands["discover"].make_context("discover", whole[2:])  # takes every option


def test_the_command_of_a_campaign_has_all_its_settings(tmp_path: Path) -> None:
    settings = Settings(
        "mace-adit", fmax=0.2, max_steps=7, prefilter="mace-adit", prefilter_steps=9,
        prefilter_limit=0.3, neutral_by="mixed", max_hull=0.07, until=5,
    )  # fmt: skip
    led = {"conditions": {"band_gap": 2.0}, "condition_guidance": {"band_gap": 1.5}}
    source = GeneratorSource([ADiTGenerator(num_steps=3, **led)], 8)
    with Campaign.create(tmp_path, source, settings, SERIAL) as campaign:
        words = shlex.split(campaign_command(campaign.store.metadata))
    given = main.commands["discover"].make_context("discover", words[2:]).params
    assert {name: given[name] for name in vars(settings)} == vars(settings)
    assert {name: given[name] for name in led} == led


_ = cheap_potential  # campaigns name it
