"""The large public references, of small files of their form, downloaded from a server here."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import lmdb
import pytest
from ase.build import bulk
from pymatgen.analysis.phase_diagram import PhaseDiagram
from pymatgen.core import Lattice, Structure
from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
from pymatgen.entries.computed_entries import (
    ComputedEntry,
    ComputedStructureEntry,
    ConstantEnergyAdjustment,
)

from adit_plugins.hull import downloads
from adit_plugins.hull.downloads import Source
from adit_plugins.hull.energies import place_energy
from adit_plugins.hull.entries import HullSourceError
from adit_plugins.hull.loaders import load_hull

RAW = {"Na": -1.3, "Cl": -3.6, "NaCl": -6.7, "Fe": -8.4, "O": -9.9, "FeO": -12.0}  # eV a cell


def structure(formula: str) -> Structure:
    symbols = {"Cl": ["Cl"] * 2, "O": ["O"] * 2, "NaCl": ["Na", "Cl"], "FeO": ["Fe", "O"]}
    species = symbols.get(formula, [formula])
    return Structure(Lattice.cubic(4.2), species, [[0, 0, 0], [0.5, 0.5, 0.5]][: len(species)])


def entry(formula: str, energy: float, corrected: float | None = None) -> dict[str, Any]:
    """An entry as Alexandria writes them: raw, the corrected total among its data."""
    data = {"mat_id": f"agm{formula}", "e_above_hull": 0.0, "energy_total": energy}
    if corrected is not None:
        data["energy_corrected"] = corrected
    made: dict[str, Any] = ComputedStructureEntry(structure(formula), energy, data=data).as_dict()
    return made


def alexandria(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_bytes(bz2.compress(json.dumps({"entries": list(entries)}).encode()))
    return path


ENTRIES = [
    entry("Na", -1.3, -1.3),
    entry("Cl", -3.6, -3.6),
    entry("NaCl", -6.7, -6.7 - 0.614),
    entry("NaCl", -6.1, -6.1 - 0.614),
]


def test_alexandria_is_read_with_its_corrections_and_kept(tmp_path: Path) -> None:
    file = alexandria(tmp_path / "convex_hull.json.bz2", *ENTRIES)
    expected = (-6.7 - 0.614 + 1.3 + 1.8) / 2
    for _ in range(2):  # the second time from what was kept
        hull = load_hull(f"alexandria:{file}")
        assert hull.source == "Alexandria convex_hull.json.bz2, 1 formulas"
        found = hull.energy_above_hull("NaCl", 0.0).hull_energy_per_atom
        assert found == pytest.approx(expected, abs=1e-5)
    kept = tmp_path / "convex_hull.json.bz2.hull.json.gz"
    assert sorted(tmp_path.iterdir()) == [file, kept]
    alexandria(file, *ENTRIES[:2], entry("NaCl", -7.0, -8.0))  # another content: read again
    again = load_hull(f"alexandria:{file}").energy_above_hull("NaCl", 0.0).hull_energy_per_atom
    assert again == pytest.approx((-8.0 + 1.3 + 1.8) / 2)
    kept.write_bytes(b"broken")
    assert load_hull(f"alexandria:{file}").knows("NaCl")


def test_files_that_are_not_alexandria(tmp_path: Path) -> None:
    file = tmp_path / "hull.json.bz2"
    whole = alexandria(file, *ENTRIES).read_bytes()
    for content, message in (
        (whole[: len(whole) // 2], "damaged after entry"),
        (b"version https://git-lfs.github.com/spec/v1\n", "damaged after entry 0"),
        (bz2.compress(b'{"rows": []}'), "has no entries"),
        (bz2.compress(b'{"entries": [{"energy": "low"}]}'), "entry 0: ValueError"),
        (bz2.compress(json.dumps({"entries": ENTRIES[2:]}).encode()), "no elemental entries"),
    ):
        file.write_bytes(content)
        with pytest.raises(HullSourceError, match=message):
            load_hull(f"alexandria:{file}")
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(HullSourceError, match="no such file"):
        load_hull(f"alexandria:{tmp_path / 'none.json'}")


def test_a_hull_without_corrections_is_refused(tmp_path: Path) -> None:
    shipped = load_hull()
    oxides = [("MgO", 12), ("CaO", 20), ("SrO", 38), ("BaO", 56), ("Li2O", 3), ("K2O", 19)]
    oxides += [("Na2O", 11), ("Al2O3", 13), ("ZnO", 30), ("CdO", 48), ("Sc2O3", 21), ("Y2O3", 39)]
    oxides += [("La2O3", 57), ("TiO2", 22), ("ZrO2", 40), ("HfO2", 72), ("SnO2", 50), ("GeO2", 32)]
    oxides += [("SiO2", 14), ("Ga2O3", 31), ("In2O3", 49)]
    entries = [ComputedEntry("O2", 0.0)]
    for formula, _ in oxides:
        metal = ComputedEntry(formula, 0.0).composition.elements[0].symbol
        entries.append(ComputedEntry(metal, 0.0))
        for_atom = shipped.energy_above_hull(formula, 0.0).hull_energy_per_atom
        compound = ComputedEntry(formula, 0.0).composition
        entries.append(ComputedEntry(formula, for_atom * compound.num_atoms))
    same = [each.as_dict() for each in entries]
    file = alexandria(tmp_path / "hull.json.bz2", *same)
    assert load_hull(f"alexandria:{file}").source.endswith("21 formulas")
    for each in same[1:]:
        each["energy"] += 0.687 * each["composition"].get("O", 0)
    with pytest.raises(HullSourceError, match=r"21 compounds .* lack the Materials Project's 2020"):
        load_hull(f"alexandria:{alexandria(file, *same)}")


def reference(path: Path, entries: list[ComputedStructureEntry]) -> Path:
    """Write what MatterGen's LMDBGZSerializer writes: pickles by chemical system, gzipped."""
    plain = path.with_suffix("")
    contents: dict[str, Any] = {"name": "reference"}
    for each in entries:
        system = "-".join(sorted(e.symbol for e in each.composition.elements))
        formula = each.composition.reduced_formula
        names = contents.setdefault(f"{system}.reduced_formulas", [])
        names += [] if formula in names else [formula]
        number = contents.setdefault(f"{system}.{formula}.length", 0)
        contents[f"{system}.{formula}.{number}"] = each.as_dict()
        contents[f"{system}.{formula}.length"] = number + 1
        contents["chemical_systems"] = [*contents.get("chemical_systems", []), system]
    write_lmdb(plain, {name: pickle.dumps(value, -1) for name, value in contents.items()})
    path.write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    return path


def write_lmdb(path: Path, contents: dict[str, bytes]) -> None:
    with (
        lmdb.open(str(path), map_size=2**24, subdir=False, meminit=False) as file,
        file.begin(write=True) as transaction,
    ):
        for name, value in contents.items():
            transaction.put(name.encode("ascii"), value)
    path.with_name(f"{path.name}-lock").unlink()


def computed(formula: str, scheme: str) -> ComputedStructureEntry:
    """A raw energy with the corrections that MatterGen's two files have."""
    hubbards = {"Fe": 5.3} if formula == "FeO" else {}
    parameters = {"run_type": "GGA+U" if hubbards else "GGA", "hubbards": hubbards}
    made = ComputedStructureEntry(structure(formula), RAW[formula], parameters=parameters)
    if scheme == "MP2020":
        MaterialsProject2020Compatibility(check_potcar=False).process_entries(made, inplace=True)
    else:
        adjustment = ConstantEnergyAdjustment(0.108 * made.energy, name="TRI110PBE")
        made.energy_adjustments = [adjustment]
    return made


@pytest.mark.parametrize("scheme", ["TRI2024", "MP2020"])
def test_mattergens_entries_get_the_corrections_of_2020(tmp_path: Path, scheme: str) -> None:
    file = reference(tmp_path / "reference.gz", [computed(formula, scheme) for formula in RAW])
    hull = load_hull(f"tri2024:{file}")
    assert hull.source == "MatterGen's reference.gz, MP2020 corrections"
    diagram = PhaseDiagram([computed(formula, "MP2020") for formula in RAW])
    for formula in ("NaCl", "FeO"):
        expected = diagram.get_form_energy_per_atom(
            next(e for e in diagram.all_entries if e.reduced_formula == formula)
        )
        found = hull.energy_above_hull(formula, 0.0).hull_energy_per_atom
        assert found == pytest.approx(expected, abs=1e-6)
    # Of the elements that are asked for, whatever was asked before.
    assert [{*amounts} for amounts, _ in hull.phases(["Na", "Cl"])] == [{"Na", "Cl"}]
    salt = bulk("NaCl", "cesiumchloride", a=4.2)
    # The raw energy of a potential gets the same corrections, so it lies on the hull.
    _, found = place_energy(salt, RAW["NaCl"], "mp-raw", "x", hull)
    assert found.energy_above_hull == pytest.approx(0.0, abs=1e-6)
    assert found.source == hull.source and found.metastable_probability is None
    unpacked = tmp_path / "reference.lmdb"
    assert sorted(tmp_path.iterdir()) == [file, unpacked]
    assert load_hull(f"tri2024:{unpacked}").energy_above_hull("NaCl", 0.0).all_covered


def test_files_that_are_not_mattergens(tmp_path: Path) -> None:
    file = reference(tmp_path / "r.gz", [computed(formula, "TRI2024") for formula in RAW])
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(HullSourceError, match="Cannot unpack"):
        load_hull(f"tri2024:{file}")
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(HullSourceError, match="Cannot unpack"):
        load_hull(f"tri2024:{file}")
    assert list(tmp_path.iterdir()) == [file]
    file.write_bytes(gzip.compress(b"no database" * 1000))
    with pytest.raises(HullSourceError, match="no LMDB of entries"):
        load_hull(f"tri2024:{file}")
    other = tmp_path / "other.lmdb"
    write_lmdb(other, {"0": b"a row"})
    with pytest.raises(HullSourceError, match="no chemical_systems"):
        load_hull(f"tri2024:{other}")


def test_no_class_that_a_file_names_is_made(tmp_path: Path) -> None:
    hostile = tmp_path / "hostile.lmdb"
    write_lmdb(hostile, {"chemical_systems": pickle.dumps(Path("/"))})
    with pytest.raises(HullSourceError, match="it names pathlib"):
        load_hull(f"tri2024:{hostile}")


class Served(BaseHTTPRequestHandler):
    """Sends the content; of `/cut...` half of what it promises; the rest is not there."""

    content = b""

    def do_GET(self) -> None:
        self.send_response(404 if self.path.startswith("/missing") else 200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        half = len(self.content) // 2 if self.path.startswith("/cut") else None
        self.wfile.write(self.content[:half])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with HTTPServer(("127.0.0.1", 0), Served) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_named_reference_is_downloaded_once(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Served.content = alexandria(tmp_path / "x.bz2", *ENTRIES).read_bytes()
    source = Source("alexandria", f"{server}/convex_hull.json.bz2", None, "Alexandria")
    monkeypatch.setattr(downloads, "ALEXANDRIA", source)
    assert load_hull("alexandria").source == "Alexandria, 1 formulas"
    folder = tmp_path / "home" / ".cache" / "adit-plugins" / "hulls"
    assert {path.name for path in folder.iterdir()} == {
        *("convex_hull.json.bz2", "convex_hull.json.bz2.hull.json.gz"),
        "convex_hull.json.sha256.json",
    }
    Served.content = b"gone"
    assert load_hull("alexandria").knows("NaCl")
    (folder / "convex_hull.json.bz2").write_bytes(b"tampered")
    with pytest.raises(HullSourceError, match="changed since its first use"):
        load_hull("alexandria")


@pytest.mark.parametrize(
    ("name", "message"), [("cut", "more expected"), ("missing", "404"), ("other", "[Hh]ash")]
)
def test_a_download_that_fails_is_not_kept(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    entries = [computed(formula, "TRI2024") for formula in RAW]
    Served.content = reference(tmp_path / "r.gz", entries).read_bytes()
    digest = hashlib.sha256(Served.content).hexdigest()
    source = Source("tri2024", f"{server}/r.gz", f"sha256:{digest}", "MatterGen's reference")
    wrong = source._replace(url=f"{server}/{name}.gz")
    if name == "other":
        wrong = wrong._replace(known_hash=f"sha256:{'0' * 64}")
    monkeypatch.setattr(downloads, "TRI2024", wrong)
    with pytest.raises(HullSourceError, match=f"{message}.*--hull tri2024:FILE"):
        load_hull("tri2024")
    assert list((tmp_path / "home").rglob("*.gz")) == []
    monkeypatch.setattr(downloads, "TRI2024", source)
    assert load_hull("tri2024").energy_above_hull("NaCl", 0.0).all_covered


def test_what_is_known_of_the_sources_is_pinned() -> None:
    assert downloads.TRI2024.known_hash.startswith("sha256:ab1b4426")
    assert "/67afb22ea0dd0073aedfc85b30b94bea0ee21863/" in downloads.TRI2024.url
    assert "/2025.07.02/" in downloads.ALEXANDRIA.url  # a release, no name that moves
