"""Published sets of crystals that come as archives: Alex-MP-20, LeMat-Bulk, OMat24, QMOF, OC20."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from adit_plugins.datasets.common import SPLITS, split_of
from adit_plugins.datasets.download import cache, check_known, download
from adit_plugins.datasets.errors import DatasetError
from adit_plugins.datasets.streams import CrystalStream, Streamed
from adit_plugins.structures.ase_files import read_lmdb
from adit_plugins.structures.cif import parse_cifs
from adit_plugins.structures.entries import Entry, InputError
from adit_plugins.structures.members import ARCHIVES, Member, of_archive, of_file, of_folder
from adit_plugins.structures.tables import parse_csv, parse_parquet
from adit_plugins.structures.xyz import parse_xyz

Rows = Iterator[tuple[Entry, str | None]]

# Where a set's own archive is, and the checksum that its source gives.
ALEX_MP_20 = (
    "https://media.githubusercontent.com/media/microsoft/mattergen/main/data-release/alex-mp/"
    "alex_mp_20.zip",
    "sha256:6688e652e45fac4ac8b016dbc4a3280afde9ba687bdacfd8c676775ed19b6228",  # Git LFS's
)
QMOF_18 = (
    "https://ndownloader.figshare.com/files/59573735",  # qmof_database.zip, version 18
    "md5:0d89aaf66f2c306e86e47fd91cb1346e",
)
OC20_200K = (
    "https://dl.fbaipublicfiles.com/opencatalystproject/data/s2ef_train_200K.tar",
    "md5:f8d0909c2623a393148435dede7d3a46",  # as its documentation says
)
LEMAT_BULK = (  # 17 files of this revision
    "https://huggingface.co/datasets/LeMaterial/LeMat-Bulk/resolve/"
    "0dc17eea904b860ad7288141e9870f67f8e6bb2c/compatible_pbe/train-00000-of-00017.parquet"
)
OMAT24 = "https://dl.fbaipublicfiles.com/opencatalystproject/data/omat/241018/omat/train/"
BAND_GAPS = {"dft_band_gap": "band_gap", "outputs.pbe.bandgap": "band_gap"}


@Streamed
def alexmp20(source: Path | None = None) -> CrystalStream:
    """Alex-MP-20 (Zeni et al. 2025, MatterGen; CC BY 4.0): up to 20 atoms, near the hull.

    Args:
        source: `alex_mp_20.zip` of MatterGen's repository, or a folder with its train.csv and
            val.csv; by default it is downloaded once (187 MB).

    Raises:
        DatasetError: it cannot be downloaded or read, or is not the published file.
    """
    place = _archive("alex_mp_20.zip", "Alex-MP-20", ALEX_MP_20, source)
    rows = partial(_of_members, place, ".csv", _table)
    return CrystalStream("alexmp20", "Alex-MP-20 (CC BY 4.0)", rows, max_energy_above_hull=0.1)


@Streamed
def lemat_bulk(source: Path | None = None) -> CrystalStream:
    """LeMat-Bulk (Siron et al. 2025; CC BY 4.0): Materials Project, Alexandria and OQMD together.

    It has no distance from the hull. A material of several sources may be there several times: all
    of a formula are in one split.

    Args:
        source: one of its `train-*.parquet`, or a folder of them, of one functional (such as
            `compatible_pbe`). They are not downloaded.

    Raises:
        DatasetError: there is no source, or it cannot be read.
    """
    place = _given("LeMat-Bulk", source, LEMAT_BULK)
    rows = partial(_of_members, place, ".parquet", _parquet)
    return CrystalStream("lemat_bulk", "LeMat-Bulk (CC BY 4.0)", rows)


@Streamed
def omat24(source: Path | None = None) -> CrystalStream:
    """OMat24 (Barroso-Luque et al. 2024; CC BY 4.0): crystals on and off their minima.

    `energy_per_atom` (eV/atom, the total energy) and `max_force` (eV/angstrom) can be limits and
    labels. All of a formula are in one split.

    Args:
        source: a folder of `.aselmdb` files, such as `rattled-relax`, one of them, or the archive
            that they came in. They are not downloaded.

    Raises:
        DatasetError: there is no source, or it cannot be read.
    """
    place = _given("OMat24", source, OMAT24 + "rattled-relax.tar.gz")
    rows = partial(_of_members, place, ".aselmdb", _lmdb)
    units = {"energy_per_atom": "eV/atom", "max_force": "eV/angstrom"}
    return CrystalStream("omat24", "OMat24 (CC BY 4.0)", rows, units=units)


@Streamed
def qmof(source: Path | None = None) -> CrystalStream:
    """QMOF (Rosen et al. 2021; CC BY 4.0): metal-organic frameworks relaxed by DFT, with PBE's gap.

    Args:
        source: `qmof_database.zip`, or the folder in it, with `qmof.csv` and `relaxed_structures`;
            by default version 18 is downloaded once (392 MB).

    Raises:
        DatasetError: it cannot be downloaded or read, or is not the published file.
    """
    place = _archive("qmof_database.zip", "QMOF", QMOF_18, source)
    rows = partial(_qmof, place)
    units = {"band_gap": "eV"}
    return CrystalStream("qmof", "QMOF (CC BY 4.0)", rows, max_num_atoms=128, units=units)


@Streamed
def oc20(source: Path | None = None) -> CrystalStream:
    """OC20 (Chanussot et al. 2021; CC BY 4.0): adsorbates on slabs, on their way to a minimum.

    `adsorption_energy` (eV) can be a label. All frames of a system are in one split.

    Args:
        source: a tar of the S2EF task with its `.extxyz.xz` and `.txt.xz`, or the folder that it
            unpacks to; by default that of 200,000 frames is downloaded once (344 MB). The IS2RE
            files are pickles in LMDB, which are not read.

    Raises:
        DatasetError: it cannot be downloaded or read, or is not the published file.
    """
    place = _archive("s2ef_train_200K.tar", "the 200K part of OC20", OC20_200K, source)
    units = {"adsorption_energy": "eV"}
    return CrystalStream(
        "oc20", "OC20 (CC BY 4.0)", partial(_oc20, place), max_num_atoms=225, units=units
    )


def _given(title: str, source: Path | None, example: str) -> Path:
    if source is None:
        raise DatasetError(
            f"{title} is not downloaded: pass --source with its file or folder, such as {example}"
        )
    if not source.exists():
        raise DatasetError(f"No such file or folder: {source}")
    return source


def _archive(name: str, title: str, known: tuple[str, str], source: Path | None) -> Path:
    """The user's folder or archive, compared if it has the known name, or the downloaded one."""
    url, checksum = known
    if source is None:
        download(url, cache() / name, checksum)
        return cache() / name
    if not source.exists():
        raise DatasetError(f"No such file or folder: {source}")
    if source.is_file() and source.name == name:
        check_known(source, checksum, title)
    return source


@contextmanager
def _members(source: Path) -> Iterator[list[Member]]:
    """The files of a folder or archive, or a file.

    Raises:
        DatasetError: it cannot be read.
    """
    try:
        if source.is_dir():
            yield of_folder(source)
        elif of_file(source).kind in ARCHIVES:
            with of_archive(of_file(source)) as found:
                yield found
        else:
            yield [of_file(source)]
    except (InputError, OSError, EOFError) as error:
        raise DatasetError(f"{source} cannot be read: {error}") from error


def _of_members(source: Path, kind: str, read: Callable[[Member], Rows]) -> Rows:
    """All rows of the files of a kind.

    Raises:
        DatasetError: there is none, or one cannot be read.
    """
    number = 0
    with _members(source) as members:
        for member in members:
            if member.kind == kind:
                number += 1
                yield from read(member)
    if not number:
        raise DatasetError(f"{source} holds no {kind} files.")


def _table(member: Member) -> Rows:
    """The rows of train.csv or val.csv; other tables have none."""
    split = PurePosixPath(member.name).stem
    if split in SPLITS:
        with member.lines() as lines:
            for entry in parse_csv(lines, member.name):
                yield replace(entry, columns=_named(entry.columns)), split


def _named(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Columns with our names beside theirs."""
    return {ours: columns[theirs] for theirs, ours in BAND_GAPS.items() if theirs in columns} | {
        **columns
    }


def _parquet(member: Member) -> Rows:
    with member.on_disk() as path, path.open("rb") as file:
        try:
            for entry in parse_parquet(file, member.name):
                yield entry, _split_by_formula(entry)
        except ValueError as error:  # pyarrow's
            raise InputError(f"{member.name}: {error}") from error


def _lmdb(member: Member) -> Rows:
    with member.on_disk() as path:
        for entry in read_lmdb(path, member.name):
            yield replace(entry, columns=_energies(entry)), _split_by_formula(entry)


def _energies(entry: Entry) -> dict[str, Any]:
    """The columns of a row, with what its calculator says in numbers."""
    columns = dict(entry.columns)
    calculator = None if entry.atoms is None else entry.atoms.calc
    if entry.atoms is None or calculator is None:
        return columns
    if calculator.results.get("energy") is not None:
        columns["energy_per_atom"] = float(calculator.results["energy"]) / len(entry.atoms)
    if calculator.results.get("forces") is not None:
        forces = np.asarray(calculator.results["forces"])
        columns["max_force"] = float(np.linalg.norm(forces, axis=1).max())
    return columns


def _split_by_formula(entry: Entry) -> str | None:
    if entry.atoms is None:
        return None
    return split_of(entry.atoms.symbols.formula.reduce()[0].format("hill"))


def _qmof(source: Path) -> Rows:
    with _members(source) as members:
        told: dict[str, Mapping[str, Any]] = {}
        for member in members:
            if PurePosixPath(member.name).name == "qmof.csv":
                with member.lines() as lines:
                    told = {row["qmof_id"]: row for row in csv.DictReader(lines)}
        number = 0
        for cif in _relaxed(members):
            number += 1
            name = PurePosixPath(cif.name).stem
            with cif.lines() as lines:
                for entry in parse_cifs(lines, cif.name):
                    columns = _named(told.get(name, {}))
                    yield replace(entry, id=name, columns=columns), _split_by_formula(entry)
    if not number:
        raise DatasetError(f"{source} holds no relaxed_structures: it is not QMOF's database.")


def _relaxed(members: list[Member]) -> Iterator[Member]:
    """The CIFs in `relaxed_structures`, a folder or an archive."""
    for member in members:
        path = PurePosixPath(member.name)
        if path.name == "relaxed_structures.zip":
            with of_archive(member) as inner:
                yield from (each for each in inner if each.kind == ".cif")
        elif path.parent.name == "relaxed_structures" and member.kind == ".cif":
            yield member


def _oc20(source: Path) -> Rows:
    """Frames with the system and the reference energy that the line of the text beside tells."""
    number = 0
    with _members(source) as members:
        texts = {each.name: each for each in members if each.kind == ".txt"}
        for member in (each for each in members if each.kind == ".extxyz"):
            number += 1
            beside = texts.get(member.name.replace(".extxyz", ".txt"))
            if beside is None:
                raise DatasetError(f"{source}: {member.name} has no .txt of its systems beside it.")
            with beside.lines() as text:
                systems = [line.strip().split(",") for line in text if line.strip()]
            with member.lines() as lines:
                for place, entry in enumerate(parse_xyz(lines, member.name)):
                    yield _frame(entry, systems[place] if place < len(systems) else [])
    if not number:
        raise DatasetError(f"{source} holds no .extxyz files: it is no S2EF part of OC20.")


def _frame(entry: Entry, told: list[str]) -> tuple[Entry, str | None]:
    if len(told) != 3:
        return Entry(entry.name, None, "the text beside it has no line for this frame"), None
    system, frame, reference = told
    columns = _energies(entry)
    if entry.atoms is not None and "energy_per_atom" in columns:
        energy = columns["energy_per_atom"] * len(entry.atoms)
        columns["adsorption_energy"] = energy - float(reference)
    return replace(entry, id=f"{system}/{frame}", columns=columns), split_of(system)
