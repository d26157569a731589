"""Folders, archives and compressed files: every structure is read once, and the rest is named."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import ase.io
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from cif_texts import NACL_SITES, cif
from mutations import CRYSTALS, write_sdf

from adit_plugins.campaign.sources import FileSource
from adit_plugins.metrics.sets import read_set
from adit_plugins.structures.entries import Entry, InputError
from adit_plugins.structures.reading import iter_entries, read_structures
from adit_plugins.submissions.matbench import read_initial

FIVE = [CRYSTALS[i] for i in (0, 1, 2, 9, 12)]
FORMULAS = [atoms.get_chemical_formula() for atoms in FIVE]


def cif_of(atoms: Atoms) -> str:
    buffer = io.BytesIO()
    ase.io.write(buffer, atoms, format="cif")
    return buffer.getvalue().decode()


def extxyz_of(frames: list[Atoms]) -> str:
    buffer = io.StringIO()
    ase.io.write(buffer, frames, format="extxyz")
    return buffer.getvalue()


def csv_of(rows: list[list[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


CIFS = [cif_of(atoms) for atoms in FIVE]


def fill(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def read(path: Path) -> tuple[list[Entry], list[str]]:
    notes: list[str] = []
    return list(iter_entries(path, notes)), notes


def formulas(path: Path) -> list[str]:
    entries, _ = read(path)
    assert all(entry.atoms is not None for entry in entries), [e.reason for e in entries]
    return [e.atoms.get_chemical_formula() for e in entries if e.atoms is not None]


GEN = {f"gen_{i}.cif": text for i, text in enumerate(CIFS)}
OMATG = {"made.xyz": extxyz_of(FIVE), "made_init.xyz": extxyz_of(FIVE)}
CAMPAIGN = {
    "results.db": "", "summary.json": "{}", "crystals.extxyz": extxyz_of(FIVE),
    "relaxed.extxyz": extxyz_of(FIVE), "candidates.json": "[]", "cif/0001-NaCl.cif": CIFS[0],
}  # fmt: skip


@pytest.mark.parametrize(
    ("files", "notes"),
    [
        ({name.replace(".cif", ".CIF"): text for name, text in GEN.items()}, 0),
        ({("more/" if i > 1 else "") + f"gen_{i}.cif": t for i, t in enumerate(CIFS)}, 0),
        ({"gen_0.cif": CIFS[0], "gen_1.cif": CIFS[1], "rest.extxyz": extxyz_of(FIVE[2:])}, 1),
        ({**GEN, **{f"._{name}": "\x00\x05\x16\x07" for name in GEN}, ".DS_Store": "x"}, 0),
        ({**GEN, "index.csv": "id,formula\n0,NaCl\n"}, 0),
        ({**GEN, "README.txt": "five crystals", "log.json": "{}"}, 1),
        ({**GEN, "generated_crystals.extxyz": extxyz_of(FIVE)}, 1),
        ({"generated_crystals.extxyz": extxyz_of(FIVE),
          **{f"generated_crystals_cif/{name}": text for name, text in GEN.items()}}, 1),
        ({f"run{i}/generated_crystals.extxyz": extxyz_of([atoms]) for i, atoms in enumerate(FIVE)},
         0),
        (OMATG, 1),
        (CAMPAIGN, 1),
        ({f"crystal_{i}.cif": text for i, text in enumerate(CIFS)}, 0),
    ],
)  # fmt: skip
def test_folders_and_archives_of_them_count_every_structure_once(
    files: dict[str, str], notes: int, tmp_path: Path
) -> None:
    folder = fill(tmp_path / "folder", files)
    archives = [tmp_path / name for name in ("a.zip", "a.tar", "a.tar.gz", "a.tgz")]
    with zipfile.ZipFile(archives[0], "w") as archive:
        archive.mkdir("folder")
        for name, text in files.items():
            archive.writestr(f"./folder/{name}", text)
            archive.writestr(f"__MACOSX/folder/._{name}", "\x00")
    for path in archives[1:]:
        with tarfile.open(path, "w:gz" if path.name != "a.tar" else "w") as tar:
            tar.add(folder, "folder")
    for source in (folder, *archives):
        found, said = read(source)
        assert sorted(e.atoms.get_chemical_formula() for e in found if e.atoms) == sorted(FORMULAS)
        assert len(found) == 5, source
        assert len(said) == notes, said


def test_what_is_left_out_is_said_with_its_number(tmp_path: Path) -> None:
    folder = fill(tmp_path / "set", {**GEN, "a.log": "", "b.yaml": ""})
    assert read(folder)[1] == ["2 files (a.log, b.yaml) left out: no file of structures"]
    assert read_set(folder).notes == read(folder)[1]
    with pytest.warns(UserWarning, match="2 files"):
        assert len(read_structures(folder)) == 5


def test_files_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    files = {**GEN, "bad.cif": "no", "worse.sdf": "", "POSCAR_7": "x"}
    entries, _ = read(fill(tmp_path, files))
    bad = {entry.id: entry.kind for entry in entries if entry.atoms is None}
    assert len(entries) == 8
    assert bad == {"bad": "crystal", "worse": "molecule", "POSCAR_7": "crystal"}
    assert all(entry.reason for entry in entries if entry.atoms is None)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("name", ["in.cif", "in.extxyz", "in.csv", "in.json", "POSCAR", "in.traj"])
def test_compressed_files_are_what_they_were(
    compress: Callable[[bytes], bytes], name: str, tmp_path: Path
) -> None:
    plain = tmp_path / name
    if name == "in.csv":
        plain.write_text(csv_of([["cif"], [CIFS[0]]]))
    else:
        ase.io.write(plain, FIVE[0])
    suffix = {gzip.compress: ".gz", bz2.compress: ".BZ2", lzma.compress: ".xz"}[compress]
    packed = tmp_path / f"{name}{suffix}"
    packed.write_bytes(compress(plain.read_bytes()))
    assert formulas(packed) == formulas(plain) == ["ClNa"]
    unpacked = tmp_path / "unpacked" / packed.name  # by a browser, say: only the name is left
    unpacked.parent.mkdir()
    unpacked.write_bytes(plain.read_bytes())
    assert formulas(unpacked) == ["ClNa"]


@pytest.mark.parametrize("occupancy", ["Na1 Na 0 0 0 .5", "Na1 Na 0 0 0 .5\nK1 K 0 0 0 .5"])
def test_disorder_is_found_in_every_form(occupancy: str, tmp_path: Path) -> None:
    text = cif((occupancy, *NACL_SITES[1:]), name="P 1", operators=("x,y,z",))
    (tmp_path / "in.cif").write_text(text)
    (tmp_path / "in.cif.gz").write_bytes(gzip.compress(text.encode()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        atoms = ase.io.read(tmp_path / "in.cif")
    for name in ("made.extxyz", "made.traj"):
        ase.io.write(tmp_path / name, atoms)
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr("in.cif", text)
    for name in ("in.cif", "in.cif.gz", "made.extxyz", "made.traj", "in.zip"):
        (entry,) = read(tmp_path / name)[0]
        assert entry.atoms is None and "disordered" in entry.reason, name


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16"])
def test_byte_order_marks_are_no_text(mark: str, tmp_path: Path) -> None:
    texts = {"in.cif": CIFS[0], "in.extxyz": extxyz_of(FIVE)}
    texts["in.csv"] = csv_of([["cif", "id"], [CIFS[0], "7"]])
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding=mark)
        assert formulas(tmp_path / name)[:1] == ["ClNa"], name


def test_a_byte_of_another_encoding_spoils_nothing(tmp_path: Path) -> None:
    text = f"# by M\u00fcller\ndata_M\u00fcller\n_name 'M\u00fcller'\n{CIFS[0]}"
    (tmp_path / "in.cif").write_bytes(text.encode("latin-1"))
    assert formulas(tmp_path / "in.cif") == ["ClNa"]


@pytest.mark.parametrize("suffix", ["gz", "zip"])
def test_a_file_that_breaks_off_keeps_what_came_before(suffix: str, tmp_path: Path) -> None:
    text = extxyz_of([bulk("Cu", "fcc", 3.6 + i / 7) for i in range(1000)]).encode()
    path = tmp_path / f"in.extxyz.{suffix}"
    if suffix == "gz":
        path.write_bytes(gzip.compress(text)[:-2000])
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("in.extxyz", text)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1  # the checksum is found wrong at the end
        path.write_bytes(content)
    entries, _ = read(path)
    assert len(entries) > 100
    assert entries[-1].atoms is None
    assert "damaged" in entries[-1].reason or "CRC" in entries[-1].reason


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adit_plugins.structures.members.MAX_BYTES", 10_000)
    (tmp_path / "in.json.gz").write_bytes(gzip.compress(b'["' + b" " * 200_000 + b'"]'))
    (tmp_path / "in.traj.gz").write_bytes(gzip.compress(b"\0" * 20_000))
    for name in ("in.json.gz", "in.traj.gz"):
        with pytest.raises(InputError, match="more than 10000 bytes"):
            list(iter_entries(tmp_path / name))


def test_our_index_gives_order_and_ids(tmp_path: Path) -> None:
    index = "file,id\nb.cif,second\na.cif,first\ngone.cif,third\n../outside.cif,fourth\n"
    folder = fill(tmp_path / "set", {"a.cif": CIFS[0], "b.cif": CIFS[1], "c.cif": CIFS[2],
                                     "index.csv": index})  # fmt: skip
    (tmp_path / "outside.cif").write_text(CIFS[3])
    entries, _ = read(folder)
    assert [entry.id for entry in entries][:3] == ["second", "first", "c"]
    assert [entry.atoms is None for entry in entries] == [False] * 3 + [True] * 2
    assert "no such file" in entries[3].reason


def test_ids_of_files_and_tables_reach_the_atoms(tmp_path: Path) -> None:
    fill(tmp_path / "set", {"wbm-1-1.cif": CIFS[0], "more/wbm-1-2.cif": CIFS[1]})
    table = csv_of([["material_id", "cif"], ["mp-22862", CIFS[0]]])
    (tmp_path / "in.csv").write_text(table)
    (tmp_path / "mp-1.cif").write_text(CIFS[0])
    for name, ids in (
        ("set", ["more/wbm-1-2", "wbm-1-1"]),
        ("in.csv", ["mp-22862"]),
        ("mp-1.cif", ["mp-1"]),
    ):
        entries, _ = read(tmp_path / name)
        assert sorted(entry.id for entry in entries) == ids
        found = [entry.atoms.info["material_id"] for entry in entries if entry.atoms]
        assert sorted(found) == ids
        structures, _ = read_initial(tmp_path / name)  # of a submission
        assert sorted(structures) == ids


def test_an_unreadable_molecule_is_a_molecule_in_a_campaign(tmp_path: Path) -> None:
    names = ["CH4", "C2H6", "CH3OH", "H2O", "NH3"]
    write_sdf(tmp_path / "in.sdf", [molecule(name) for name in names])
    text = (tmp_path / "in.sdf").read_text()
    (tmp_path / "in.sdf").write_text(text.replace("  3  0  0  0  0  0            999", "  x", 1))
    ase.io.write(tmp_path / "in.xyz", [molecule(name) for name in names], format="xyz")
    lines = (tmp_path / "in.xyz").read_text().splitlines(keepends=True)
    (tmp_path / "in.xyz").write_text("".join(lines[:-1]))
    for name in ("in.sdf", "in.xyz"):
        source = FileSource(tmp_path / name)
        entries = list(source.entries(0, 5))
        assert [entry.kind for entry in entries] == ["molecule"] * 5
        assert sum(entry.sample is None for entry in entries) == 1


def test_molecules_and_crystals_of_files_that_say_no_kind_go_with_the_others(
    tmp_path: Path,
) -> None:
    bad = {"@class": "Other"}
    entries = [{"@class": "Molecule", "sites": [
        {"species": [{"element": "H", "occu": 1}], "xyz": [0.0, 0.0, z]} for z in (0.0, 0.74)
    ]}]  # fmt: skip
    (tmp_path / "in.json").write_text(json.dumps([*entries, bad]))
    assert [e.kind for e in FileSource(tmp_path / "in.json").entries(0, 2)] == ["molecule"] * 2
    assert len(read_set(tmp_path / "in.json").molecules) == 2


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("in.pkl", b"\x80\x04.", "pickle"),
        ("in.smi", b"CCO\n", "not known"),
        ("in.json", b"{}", "without a structure"),
        ("in.txt", b"some words\n", "xyz that EDM"),
        ("in.zip", b"PK nothing", "damaged archive"),
        ("in.tar.gz", b"\x1f\x8b nothing", "in.tar.gz"),
        ("in.pt", b"\x80\x02}q\x00.", "no file of tensors"),
    ],
)
def test_what_is_no_set_of_structures_is_refused_with_a_reason(
    name: str, content: bytes, words: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        list(iter_entries(tmp_path / name))
