"""What the page is made of: hulls, bonds, the map of latents, and the ways to open it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from click.testing import CliRunner
from test_report import HOSTILE, folder, rows, run

from adit_plugins import ADiTGenerator, Sample, view
from adit_plugins.cli import main
from adit_plugins.hull.table import Hull
from adit_plugins.metrics.latent_map import points, shipped_map
from adit_plugins.report.hulls import hull_picture
from adit_plugins.report.rows import encode
from adit_plugins.structures.symmetry import space_group_symbol

_ = folder  # a fixture


def test_hulls_are_those_of_the_reference() -> None:
    hull = Hull({"AB": -1.0, "A3B": -0.4, "AB3": -0.51, "A2B2": -0.9})
    picture = hull_picture(("A", "B"), hull)
    assert [p["formula"] for p in picture["phases"]] == ["A", "B", "AB", "AB3"]
    assert picture["edges"] == [[0, 2], [2, 3], [3, 1]]


def test_a_ternary_hull_has_the_lines_between_phases_that_coexist() -> None:
    picture = hull_picture(("Fe", "La", "O"), Hull.load())
    names = [phase["formula"] for phase in picture["phases"]]
    lines = {frozenset(names[i] for i in edge) for edge in picture["edges"]}
    assert "LaFeO3" in names and frozenset(("La2O3", "LaFeO3")) in lines
    assert all(phase["e"] < 0 for phase in picture["phases"][3:])


def test_space_groups_have_the_symbols_of_the_tables() -> None:
    symbols = {1: "P1", 12: "C2/m", 14: "P2₁/c", 62: "Pnma", 148: "R-3", 225: "Fm-3m"}
    assert {number: space_group_symbol(number) for number in symbols} == symbols


def test_bonds_are_those_of_the_molecule() -> None:
    benzene = encode(Sample.from_ase(molecule("C6H6")))
    assert sorted(benzene["b"][2::3]) == [1] * 9 + [2] * 3  # Kekule's, for the SDF
    assert "b" not in encode(Sample.from_ase(Atoms("HeNe", [[0, 0, 0], [0, 0, 0.6]])))


def test_notebooks_show_samples(tiny_checkpoint: str) -> None:
    (crystal,) = ADiTGenerator(checkpoint=tiny_checkpoint, num_steps=2).stream(1)
    for sample in (crystal, Sample.from_ase(molecule("CH3CH2OH"))):
        shown = sample._repr_html_()
        assert shown.startswith("<div") and "<svg" in shown and len(shown) < 40_000
        assert "script" not in shown
    hostile = Sample("molecule", [1], [[0, 0, 0]], None, {"id": HOSTILE})
    assert "<script" not in hostile._repr_html_() and "<img" not in hostile._repr_html_()


def test_several_structures_are_viewed_together() -> None:
    shown = view([bulk("Cu"), molecule("H2O")])
    assert len(rows(shown.text)) == len(rows(shown.text, "molecule")) == 1
    frame = shown._repr_html_()
    assert frame.startswith("<iframe") and frame.count("<") == 2  # the page is its attribute
    with pytest.raises(ValueError, match="empty"):
        view([])


def test_ase_opens_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import webbrowser

    from ase.visualize import view as ase_view

    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    slab = fcc111("Cu", (1, 1, 3), vacuum=5.0)
    path = ase_view(slab, viewer="adit")
    assert opened == [path.as_uri()]
    assert rows(path.read_text())[0]["num_atoms"] == 3


def test_the_shipped_library_is_the_published_file() -> None:
    """3Dmol.js 2.5.5 of the npm registry, unchanged; its licence is in the notices."""
    import hashlib

    root = Path(__file__).parents[2]
    data = (root / "adit_plugins" / "report" / "assets" / "3Dmol-min.js").read_bytes()
    notices = (root / "THIRD_PARTY_NOTICES.md").read_text()
    assert hashlib.sha256(data).hexdigest() in notices and "University of Pittsburgh" in notices


def test_structures_have_their_places_on_the_map(tmp_path: Path) -> None:
    """The map of the training set is of the release that is shipped."""
    model = ADiTGenerator().model
    assert shipped_map()["hash"] == model.hash
    salt, huge = bulk("NaCl", "rocksalt", a=5.64), bulk("Cu") * (6, 6, 6)
    huge.rattle(0.3)
    found = points([Sample.from_ase(each) for each in (salt, salt * (2, 1, 1), huge)])
    assert found[0] == pytest.approx(found[1], abs=1e-3) and found[2] is None
    ase.io.write(tmp_path / "set.extxyz", [salt, molecule("H2O")])
    run(tmp_path / "set.extxyz")
    (row,) = rows((tmp_path / "report.html").read_text())
    assert (row["latent_1"], row["latent_2"]) == pytest.approx(found[0], abs=1e-3)
    for kind in ("crystal", "molecule"):
        part = shipped_map()[kind]
        assert 0.98 * part["num"] < np.sum(part["counts"]) <= part["num"]


def test_chemiscope_gets_structures_and_properties(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("chemiscope")
    done = run(folder, "--out", tmp_path / "page.html", "--explore")
    assert done.exit_code == 0 and "6 of them" in done.output
    page = (tmp_path / "explore.html").read_text()
    assert "<script>alert" not in page and "<img src=x" not in page
    data = json.loads(re.search(r'id="data">(.*?)</script', page, re.DOTALL)[1])  # type: ignore[index]
    assert [each["size"] for each in data["structures"]] == [2, 2, 2, 9, 11, 4]
    energies = data["properties"]["energy_above_hull"]["values"]
    assert energies[0] < energies[1] and energies[3:] == [None] * 3


def test_without_chemiscope_it_is_said(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adit_plugins.report.explore.find_spec", lambda name: None)
    done = CliRunner().invoke(
        main, ["report", str(folder), "--out", str(tmp_path / "page.html"), "--explore"]
    )
    assert done.exit_code == 2 and "adit-plugins[chemiscope]" in done.output
    assert not list(tmp_path.iterdir())


def test_atoms_at_fault_are_in_the_page() -> None:
    benzene = molecule("C6H6")
    benzene.positions[0, 2] += 0.8
    assert encode(Sample.from_ase(benzene), failed=True)["m"] == [[0, 1, 2, 3, 4, 5]]
    assert "m" not in encode(Sample.from_ase(benzene))
    ethane = molecule("C2H6")
    ethane.positions[[0, 2, 3, 4], 2] += 0.6  # one methyl group away from the other
    assert encode(Sample.from_ase(ethane), failed=True)["m"] == [[0, 1]]
