"""The report in a browser: it sorts, filters, draws, saves, scrolls and fits a phone."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from chromium import Browser, find_chromium
from PIL import Image
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure
from pymatgen.io.vasp import Poscar
from rdkit import Chem
from test_report import HOSTILE, begin, many, rows

from adit_plugins import Sample
from adit_plugins.campaign.store import Store
from adit_plugins.report import write_campaign_report, write_report
from adit_plugins.report.explore import write_explorer
from adit_plugins.report.results import Results, sample_results
from adit_plugins.report.rows import Row
from adit_plugins.structures.facts import describe_molecule

pytestmark = [
    pytest.mark.slow,  # half a minute to start, where other programs run
    pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed"),
]
SETTLE = "new Promise(done => setTimeout(done, 300))"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def campaign_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("campaign")
    with begin(folder) as campaign:
        campaign.run()
        return write_campaign_report(campaign.store)


@pytest.fixture
def page(browser: Browser, campaign_page: Path) -> Iterator[Browser]:
    """The campaign's page, freshly opened; at the end nobody was asked, nothing was complained."""
    browser.problems.clear()
    browser.requests.clear()
    browser.resize(1280, 900)
    browser.open(campaign_page)
    yield browser
    assert not browser.problems
    assert {url.split(":")[0] for url in browser.requests} <= {"file", "blob"}
    assert [u for u in browser.requests if u.startswith("file")] == [campaign_page.as_uri()]


def column(browser: Browser, name: str) -> list[object]:
    found: list[object] = browser.run(f"state.shown.map(row => row.{name})")
    return found


def test_a_click_on_a_heading_sorts(page: Browser) -> None:
    numbers = column(page, "density")
    page.click("[data-column=density]")
    assert column(page, "density") == sorted(numbers)  # type: ignore[type-var]
    page.click("[data-column=density]")
    assert column(page, "density") == sorted(numbers, reverse=True)  # type: ignore[type-var]
    assert page.run("document.querySelector('[aria-sort=descending]').textContent") == "Density"
    first = page.run("document.querySelector('#row-0 .formula').textContent")
    assert first == page.run("state.shown[0].formula")


def test_filters_leave_what_was_asked_for(page: Browser) -> None:
    page.write("#search", "N")  # an element: not the letter in MgO, NaCl
    assert column(page, "formula") == ["YN"]
    page.write("#search", "mgo")
    assert column(page, "formula") == ["MgO"]
    assert page.run("document.getElementById('count').textContent") == "1 of 3"
    page.write("#search", "")
    page.run("document.getElementById('search').dispatchEvent(new Event('input'))")
    page.click("[data-element=Cl]")
    assert column(page, "formula") == ["NaCl"]
    page.click("[data-element=Cl]")
    energies = sorted(e for e in column(page, "energy_above_hull") if e is not None)  # type: ignore[type-var]
    page.write("#max-energy", str(energies[0]))
    assert column(page, "energy_above_hull") == energies[:1]
    page.write("#max-energy", "")
    page.run("document.getElementById('max-energy').dispatchEvent(new Event('input'))")
    known = column(page, "novel").count(True)
    page.click("[data-flag=novel]")
    assert column(page, "novel") == [True] * known


def test_the_keyboard_is_enough(page: Browser) -> None:
    page.run("document.getElementById('grid').focus()")
    before = page.run("state.shown.indexOf(state.chosen)")
    page.key("ArrowDown", 40)
    assert page.run("state.shown.indexOf(state.chosen)") == before + 1
    page.key("End", 35)
    assert page.run("state.chosen === state.shown.at(-1)")
    page.key("Enter", 13)
    assert page.run("document.activeElement.id") == "panel"
    page.key("Escape", 27)
    assert page.run("document.activeElement.id + document.getElementById('panel').hidden") == (
        "gridtrue"
    )


def colours(browser: Browser) -> int:
    """How many colours there are in the picture of the structure."""
    browser.run(SETTLE)
    data = browser.run(
        "new Promise(done => { the3dViewer().render(); done(the3dViewer().pngURI()); })"
    )
    import base64

    picture = Image.open(io.BytesIO(base64.b64decode(data.split(",")[1]))).convert("RGBA")
    drawn = np.asarray(picture)
    return len(np.unique(drawn[drawn[..., 3] > 0], axis=0))


def test_a_click_draws_the_structure(page: Browser) -> None:
    page.run("drawStructures([], 1)")
    assert colours(page) < 3
    page.click("#row-1")
    assert page.run("state.chosen === state.shown[1]")
    assert colours(page) > 50
    atoms = page.run("the3dViewer().selectedAtoms({}).length")
    page.run("document.getElementById('cells').value = '2'")
    page.run("document.getElementById('cells').dispatchEvent(new Event('change'))")
    assert page.run("the3dViewer().selectedAtoms({}).length") > 3 * atoms
    assert page.run("document.querySelectorAll('#view canvas').length") == 1
    before = page.run("the3dViewer().selectedAtoms({})[1].x")
    page.click("#stages button:first-child")
    assert page.run("the3dViewer().selectedAtoms({})[1].x") != before
    page.click("#kinds button:last-child")
    page.click("#row-0")
    assert colours(page) > 50
    assert page.run("document.querySelectorAll('#view canvas').length") == 1


def downloaded(folder: Path, suffix: str) -> Path:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = [path for path in folder.glob(f"*{suffix}") if path.stat().st_size]
        if found:
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"no {suffix} in {list(folder.iterdir())}")


def test_downloads_are_files_that_others_read(
    page: Browser, campaign_page: Path, tmp_path: Path
) -> None:
    page.downloads_into(tmp_path)
    chosen = next(i for i, f in enumerate(column(page, "formula")) if f == "YN")
    page.click(f"#row-{chosen}")  # its id is hostile
    for name in ("CIF", "POSCAR", "XYZ"):
        page.click(f"[data-format={name}]")
    with Store(campaign_page.parent, read_only=True) as store:
        row = next(r for r in store.rows() if r.data["adit"]["id"] == HOSTILE)
    relaxed = Sample.from_ase(row.toatoms()).to_pymatgen()
    matcher = StructureMatcher(ltol=1e-3, stol=1e-3, angle_tol=0.01, scale=False)
    cif = Structure.from_file(downloaded(tmp_path, ".cif"))
    poscar = Poscar.from_str(downloaded(tmp_path, ".poscar").read_text()).structure
    xyz = ase.io.read(downloaded(tmp_path, ".xyz"), format="extxyz")
    for found in (cif, poscar, Sample.from_ase(xyz).to_pymatgen()):
        assert matcher.fit(found, relaxed) and found.volume == pytest.approx(
            relaxed.volume, rel=1e-4
        )
    assert "script" not in downloaded(tmp_path, ".cif").name
    page.click("#csv")
    assert len(downloaded(tmp_path, ".csv").read_text().splitlines()) == 4


def test_molecules_are_saved_with_their_bonds(browser: Browser, tmp_path: Path) -> None:
    names = ["C6H6", "CH3CH2OH", "C5H5N", "CH3NO2", "C2H2", "CH3CONH2", "SiH4"]
    samples = [Sample.from_ase(molecule(name)) for name in names]
    zwitterion = Chem.AddHs(Chem.MolFromSmiles("C[N+](C)(C)[O-]"))
    from rdkit.Chem import AllChem

    AllChem.EmbedMolecule(zwitterion, randomSeed=1)
    samples.append(Sample.from_rdkit(zwitterion))
    path = write_report([sample_results(samples)], tmp_path / "page.html")
    browser.open(path)
    texts = browser.run("state.rows.molecule.map(row => asSdf(row, row.structures[0]))")
    wanted = [row["smiles"] for row in rows(path.read_text(), "molecule")]
    found = []
    for text in texts:
        supplier = Chem.SDMolSupplier()
        supplier.SetData(text, removeHs=False)
        (mol,) = supplier
        assert not any(atom.GetNumImplicitHs() for atom in mol.GetAtoms())
        found.append(Chem.MolToSmiles(Chem.RemoveHs(mol)))
    assert found == [Chem.CanonSmiles(smiles) for smiles in wanted]
    assert "C[N+](C)(C)[O-]" in found


def test_hostile_texts_are_seen_as_texts(page: Browser) -> None:
    page.run("window.alert = () => { window.alerted = true; }")
    place = next(i for i, each in enumerate(column(page, "id")) if each == HOSTILE)
    page.click(f"#row-{place}")
    assert page.run("document.querySelectorAll('img, iframe, object').length") == 0
    assert HOSTILE in page.run("document.getElementById('facts').textContent")
    assert page.run("window.alerted") is None
    assert page.run("document.scripts.length") == 9


def test_a_script_that_came_in_would_not_run(browser: Browser, campaign_page: Path) -> None:
    """The second wall: were a text made into markup after all, the policy would stop it."""
    browser.open(campaign_page)
    browser.run(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 1\">');"
        "document.body.append(Object.assign(document.createElement('script'),"
        "{textContent: 'window.ran = 1'}))"
    )
    browser.run(SETTLE)
    assert browser.run("window.ran") is None
    asked = browser.run("fetch('https://files.rcsb.org/view/1crn.pdb').then(() => 1, () => 0)")
    assert asked == 0
    browser.problems.clear()


def test_formulas_of_strangers_stay_texts(browser: Browser, tmp_path: Path) -> None:
    texts = dict.fromkeys(("formula", "smiles", "problem"), HOSTILE)
    row = Row("molecule", {"id": "=1+1", **texts})
    made = Results(HOSTILE, lambda _: iter([row]), {"molecule": 1}, {}, [HOSTILE], {}, HOSTILE)
    browser.problems.clear()
    browser.open(write_report([made, made], tmp_path / "page.html"))
    browser.run("choose(state.shown[0], true)")
    assert browser.run("document.querySelectorAll('img').length") == 0
    assert HOSTILE in browser.run("document.getElementById('name').textContent")
    assert browser.run("document.title").startswith(HOSTILE)
    assert browser.run("asCsv(state.shown, ['id'])").splitlines()[1] == "'=1+1"
    assert not browser.problems


def test_ten_thousand_rows_scroll(browser: Browser, tmp_path: Path) -> None:
    browser.problems.clear()
    browser.resize(1280, 900)
    browser.open(write_report([many(10_000)], tmp_path / "page.html"))
    assert browser.run("document.querySelectorAll('#body tr').length") < 100
    browser.run("document.getElementById('grid').scrollTop = 1e9")
    last = "[...document.querySelectorAll('#body tr[role]')].at(-1).textContent"
    browser.wait(f"{last}.startsWith('10000')")
    assert "adit-joint/0/9999" in browser.run(last)
    assert browser.run("document.querySelectorAll('#body tr').length") < 100
    browser.click("[data-column=formation_energy_per_atom]")
    energies = column(browser, "formation_energy_per_atom")
    assert energies == sorted(energies)  # type: ignore[type-var]
    browser.write("#search", "0/77")
    assert len(column(browser, "id")) == 111
    assert not browser.problems


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(page: Browser, width: int) -> None:
    page.resize(width, 844)
    for kind in ("crystal", "molecule"):
        page.run(f"showKind('{kind}')")
        page.run("choose(state.shown[0], true)")
        assert page.run("document.documentElement.scrollWidth") <= width
        assert page.run("document.getElementById('panel').getBoundingClientRect().right") <= width


def test_light_and_dark(page: Browser) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    page.colours("dark")
    dark = page.run(background)
    page.colours("light")
    light = page.run(background)
    assert dark != light
    page.click("#theme")
    assert page.run(background) == dark


def test_chemiscope_draws_a_map_and_a_structure(browser: Browser, tmp_path: Path) -> None:
    pytest.importorskip("chemiscope")
    samples = [Sample.from_ase(molecule(name)) for name in ("H2O", "CH4", "C6H6")]
    write_explorer([sample_results(samples)], tmp_path / "explore.html")
    browser.problems.clear()
    browser.open(tmp_path / "explore.html")
    for part in ("map", "structure", "info"):  # each has a tree of its own
        browser.wait(f"document.querySelector('#{part} > *')?.shadowRoot !== null")
    browser.wait("document.querySelector('#map > *').shadowRoot.querySelectorAll('svg').length > 2")
    browser.picture(tmp_path / "shot.png", "#structure")
    picture = np.asarray(Image.open(tmp_path / "shot.png").convert("RGB")).astype(int)
    assert ((picture[..., 0] > 150) & (picture[..., 1] < 80)).sum() > 300  # the oxygen of water
    assert not browser.problems


def test_faults_are_red(browser: Browser, tmp_path: Path) -> None:
    benzene = molecule("C6H6")
    benzene.positions[0, 2] += 0.8
    sample = Sample.from_ase(benzene)
    values = {"id": "bent", "checks_failed": ["aromatic_ring_flatness"]}
    row = Row("molecule", describe_molecule(sample) | values, [sample])
    write_report([Results("set", lambda _: iter([row]), {"molecule": 1})], tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    browser.click("#body tr")
    browser.run(SETTLE)
    browser.picture(tmp_path / "shot.png", "#view")
    picture = np.asarray(Image.open(tmp_path / "shot.png").convert("RGB")).astype(int)
    red = (picture[..., 0] - picture[..., 1] > 60) & (picture[..., 2] > picture[..., 1])
    assert red.sum() > 300
