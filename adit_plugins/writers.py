"""Write samples to the file formats of the field: streaming, and never half a file.

A file grows beside its destination under a hidden name and takes its place when it is complete.
If the stream breaks off, what was finished is kept as a valid file.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ase.db
from ase.io.extxyz import write_extxyz
from monty.json import MontyEncoder
from pymatgen.core import Structure
from pymatgen.io.cif import CifWriter
from rdkit import Chem

from adit_plugins.readers import INDEX, PROVENANCE_TAG, read_structures
from adit_plugins.samples import KEY, Convertible, Sample, to_sample

__all__ = ["OutputError", "WriteReport", "check_output", "read_structures", "write_samples"]

FOLDER = "folder/"
_DB_CHUNK = 100  # samples a transaction; a transaction each costs 20 ms
# Provenance that `ase db` can select by; the names `id` and `index` would not be allowed there.
_DB_COLUMNS = {"sample_id": "id", "kind": "kind", "seed": "seed", "sample_index": "index"}

Add = Callable[[Sample], None]


class OutputError(ValueError):
    """The samples cannot be written where, or as, they should."""


@dataclass(frozen=True)
class WriteReport:
    """What became of the samples.

    Attributes:
        path: the file or folder; it exists only if something was written.
        written: number of samples in it.
        skipped: (id, reason) of samples that the format cannot hold.
    """

    path: Path
    written: int
    skipped: tuple[tuple[str, str], ...] = ()


def check_output(path: str | os.PathLike[str], kind: str | None = None) -> Path:
    """Find out, before anything is generated, whether samples can be written to `path`.

    Args:
        path: a file with a known suffix, or a folder (no suffix, or a slash at the end).
        kind: of the samples, if known.

    Returns:
        The path.

    Raises:
        OutputError: unknown suffix, missing or unwritable parent, a foreign file or folder in
            the way, or a format that cannot hold the kind. The message says what to do.
    """
    target = Path(path)
    suffix = _suffix(path)
    if kind is not None:
        _check_kind(suffix, kind)
    probe = _beside(target)
    try:  # asking the file system is the only answer that also holds for read-only mounts
        _check_place(target, suffix)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"Cannot write in {target.parent}: {error.strerror}. Choose another place or name."
        ) from error
    return target


def write_samples(samples: Iterable[Convertible], path: str | os.PathLike[str]) -> WriteReport:
    """Write samples as they come, in constant memory; the suffix names the format.

    ASE Atoms, pymatgen and RDKit objects are taken as well, with the provenance they carry.

    `.extxyz` and `.xyz` (extended XYZ), `.db` (ASE SQLite database), `.json` (list of pymatgen
    dictionaries), `.sdf` (molecules with perceived bonds), `.cif` (crystals, one block each), or
    a folder of one CIF a crystal with an `index.csv`. An existing file, or a folder written by
    this function, is replaced. Provenance is kept by all of them.

    Samples that the format cannot hold (molecules without a bond assignment in an SDF) are left
    out and reported. If `samples` raises - or Ctrl-C is pressed - what was written by then is
    kept as a valid file and the exception goes on; with nothing written, nothing remains.

    Raises:
        OutputError: see `check_output`.
        TypeError: an item is none of the known objects.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from ase.build import bulk
        >>> from adit_plugins import Sample, read_structures, write_samples
        >>> path = Path(tempfile.mkdtemp()) / "crystals.extxyz"
        >>> write_samples([Sample.from_ase(bulk("Cu"))], path).written
        1
        >>> len(read_structures(path))
        1
    """
    target = check_output(path)
    suffix = _suffix(path)
    temporary = _beside(target)
    try:
        written, skipped, interruption = _write_all(samples, suffix, temporary)
    except BaseException:  # the end could not be written: a full disk, a second Ctrl-C
        _remove(temporary)
        raise
    if written:
        _replace(temporary, target)
    else:
        _remove(temporary)
    if interruption is not None:
        raise interruption
    return WriteReport(target, written, tuple(skipped))


def _write_all(
    samples: Iterable[Convertible], suffix: str, path: Path
) -> tuple[int, list[tuple[str, str]], BaseException | None]:
    """Number written, what was skipped and why, and what ended the stream before its time."""
    written, skipped = 0, []
    with _WRITERS[suffix](path) as add:
        try:
            for each in samples:
                sample = to_sample(each)
                _check_kind(suffix, sample.kind)
                try:
                    add(sample)
                except ValueError as error:
                    skipped.append((sample.id, str(error)))
                else:
                    written += 1
        except BaseException as error:  # noqa: BLE001 (raised once the file has its proper end)
            return written, skipped, error
    return written, skipped, None


@contextmanager
def _text_writer(
    path: Path, render: Callable[[Sample], str], start: str = "", between: str = "", end: str = ""
) -> Iterator[Add]:
    """Write one text a sample; an interrupted one is cut off again."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(start)
        complete = file.tell()

        def add(sample: Sample) -> None:
            nonlocal complete
            text = render(sample)
            file.write(between + text if complete > len(start) else text)
            complete = file.tell()

        try:
            yield add
        finally:
            file.seek(complete)
            file.truncate()
            file.write(end)


def _extxyz_text(sample: Sample) -> str:
    buffer = io.StringIO()
    write_extxyz(buffer, [sample.to_ase()])
    return buffer.getvalue()


def _json_text(sample: Sample) -> str:
    return json.dumps(sample.to_pymatgen().as_dict(), cls=MontyEncoder)


def _sdf_text(sample: Sample) -> str:
    return str(Chem.SDWriter.GetText(sample.to_rdkit()))


def _cif_text(sample: Sample) -> str:
    structure = sample.to_pymatgen()
    assert isinstance(structure, Structure)  # _check_kind has kept molecules out
    text = str(CifWriter(structure))
    head, separator, body = text.partition("data_")
    formula, newline, rest = body.partition("\n")
    name = _file_name(sample.id) or formula
    text = head + separator + name + newline + rest
    return f"{text.rstrip()}\n{PROVENANCE_TAG}\n;\n{json.dumps(sample.provenance)}\n;\n"


@contextmanager
def _db_writer(path: Path) -> Iterator[Add]:
    database = ase.db.connect(path, type="db", append=False, use_lock_file=False)
    waiting: list[Sample] = []

    def flush() -> None:
        with database:  # all or nothing, so an interrupted chunk can be written again
            for sample in waiting:
                provenance = sample.provenance
                columns = {
                    column: provenance[key]
                    for column, key in _DB_COLUMNS.items()
                    if key in provenance
                }
                atoms = sample.to_ase()
                del atoms.info[KEY]
                database.write(atoms, key_value_pairs=columns, data={KEY: provenance})
        waiting.clear()

    def add(sample: Sample) -> None:
        waiting.append(sample)
        if len(waiting) == _DB_CHUNK:
            flush()

    try:
        yield add
    finally:
        flush()


@contextmanager
def _folder_writer(folder: Path) -> Iterator[Add]:
    folder.mkdir()
    rows: list[tuple[str, str, str, int]] = []

    def add(sample: Sample) -> None:
        name = _file_name(sample.id) or "crystal"
        if (folder / f"{name}.cif").exists() or not sample.id:
            name = f"{name}_{len(rows):06d}"
        (folder / f"{name}.cif").write_text(_cif_text(sample), encoding="utf-8")
        formula = sample.to_ase().get_chemical_formula(empirical=True)
        rows.append((f"{name}.cif", sample.id, formula, sample.num_atoms))

    try:
        yield add
    finally:
        for path in set(folder.iterdir()) - {folder / row[0] for row in rows}:
            path.unlink()  # a file that was interrupted before it entered the index
        with (folder / INDEX).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("file", "id", "formula", "num_atoms"), *rows])


_WRITERS: dict[str, Callable[[Path], AbstractContextManager[Add]]] = {
    ".extxyz": partial(_text_writer, render=_extxyz_text),
    ".xyz": partial(_text_writer, render=_extxyz_text),
    ".db": _db_writer,
    ".sdf": partial(_text_writer, render=_sdf_text),
    ".cif": partial(_text_writer, render=_cif_text, between="\n"),
    ".json": partial(_text_writer, render=_json_text, start="[\n", between=",\n", end="\n]\n"),
    FOLDER: _folder_writer,
}


def _suffix(path: str | os.PathLike[str]) -> str:
    suffix = Path(path).suffix.lower()
    if not suffix or os.fspath(path).endswith(("/", os.sep)):
        return FOLDER
    if suffix not in _WRITERS:
        known = ", ".join(key for key in _WRITERS if key != FOLDER)
        raise OutputError(
            f"Cannot write {os.fspath(path)}: unknown suffix {suffix!r}. Known: {known}; "
            "or a folder (no suffix) for one CIF a crystal."
        )
    return suffix


def _check_kind(suffix: str, kind: str) -> None:
    if suffix == ".sdf" and kind == "crystal":
        raise OutputError("SDF holds molecules, not crystals. Use .cif, .extxyz, .db or .json.")
    if suffix in (".cif", FOLDER) and kind == "molecule":
        raise OutputError("CIF holds crystals, not molecules. Use .sdf, .extxyz, .db or .json.")


def _check_place(target: Path, suffix: str) -> None:
    if target.parent.exists() and not target.parent.is_dir():
        raise OutputError(f"Cannot write {target}: {target.parent} is no folder.")
    if not target.parent.is_dir():
        raise OutputError(
            f"Cannot write {target}: there is no folder {target.parent}. "
            f"Make it with: mkdir -p {target.parent}"
        )
    if suffix != FOLDER:
        if target.is_dir():
            raise OutputError(f"Cannot write {target}: it is a folder; a / at the end makes CIFs.")
        return
    if target.name in ("", ".."):  # the folder is replaced as a whole, nobody should stand in it
        raise OutputError(f"Cannot write {target}: name a new folder, or a file with a suffix.")
    if target.exists() and not target.is_dir():
        raise OutputError(f"Cannot write the folder {target}: a file is in its place.")
    content = {path.name for path in target.iterdir()} if target.is_dir() else set()
    ours = INDEX in content and all(name == INDEX or name.endswith(".cif") for name in content)
    if content and not ours:
        raise OutputError(
            f"Cannot write {target}: it is not empty and was not written by this program. "
            "Choose a new folder."
        )


def _file_name(sample_id: str) -> str:
    return re.sub(r"[^\w.+-]", "_", sample_id)


def _beside(target: Path) -> Path:
    """A hidden name in the same folder, because renaming cannot cross file systems."""
    return target.parent / f".{target.name}.{os.getpid()}.part"


def _replace(temporary: Path, target: Path) -> None:
    if temporary.is_dir() and target.is_dir():
        shutil.rmtree(target)  # a folder with something in it cannot be renamed over
    temporary.replace(target)


def _remove(temporary: Path) -> None:
    if temporary.is_dir():
        shutil.rmtree(temporary)
    else:
        temporary.unlink(missing_ok=True)
