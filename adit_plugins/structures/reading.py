"""Read structures from any file, folder or archive: the one way in for all commands."""

from __future__ import annotations

import csv
import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ase import Atoms

from adit_plugins.structures.arrays import read_npz, read_torch
from adit_plugins.structures.ase_files import (
    read_ase,
    read_db,
    read_lmdb,
    read_poscar,
    read_xdatcar,
)
from adit_plugins.structures.cif import parse_cifs
from adit_plugins.structures.entries import (
    MATERIAL_ID,
    Entry,
    InputError,
    NoStructuresError,
    ReadingNotice,
)
from adit_plugins.structures.json_files import holds_structures, parse_content, parse_json_lines
from adit_plugins.structures.json_lists import (
    are_json_lines,
    no_structures,
    parse_lists,
    whole,
)
from adit_plugins.structures.members import (
    ARCHIVES,
    Member,
    of_archive,
    of_file,
    of_folder,
    stem_of,
)
from adit_plugins.structures.provenance import KEY
from adit_plugins.structures.sdf import parse_sdf
from adit_plugins.structures.selection import INDEX, choose
from adit_plugins.structures.tables import parse_csv, parse_parquet
from adit_plugins.structures.untrusted import check_unpacked_size
from adit_plugins.structures.xyz import parse_xyz

TEXTS: dict[str, Callable[[Iterable[str], str], Iterator[Entry]]] = {
    **dict.fromkeys((".cif", ".mcif"), parse_cifs),
    **dict.fromkeys((".xyz", ".extxyz", ".exyz"), parse_xyz),
    **dict.fromkeys((".sdf", ".sd", ".mol", ".mdl"), parse_sdf),
    **dict.fromkeys((".csv", ".tsv"), parse_csv),
    **dict.fromkeys((".jsonl", ".ndjson"), parse_json_lines),
}
FILES: dict[str, Callable[[Path, str], Iterator[Entry]]] = {
    ".npz": read_npz,
    ".pt": read_torch,
    ".db": read_db,
    ".aselmdb": read_lmdb,
    ".vasp": read_poscar,
    ".xdatcar": read_xdatcar,
}
PICKLES = (".pkl", ".pickle", ".p")
KINDS = {
    **dict.fromkeys((".cif", ".mcif", ".vasp", ".xdatcar"), "crystal"),
    **dict.fromkeys((".sdf", ".sd", ".mol", ".mdl"), "molecule"),
}


def read_structures(path: str | os.PathLike[str]) -> list[Atoms]:
    """Read all structures of a file or folder, in order, or none: every entry must be sound.

    Understands what `iter_entries` does. Provenance comes back in `info["adit"]`.

    Raises:
        InputError: the file is missing, unreadable, empty, or holds a structure that cannot be
            represented (disorder, charge, no 3D coordinates).
    """
    structures = []
    for entry in iter_entries(path):
        if entry.atoms is None:
            raise InputError(f"Cannot read {path}: {entry.name}: {entry.reason}")
        structures.append(entry.atoms)
    if not structures:
        raise InputError(f"{path} holds no structures.")
    return structures


def iter_entries(path: str | os.PathLike[str], notes: list[str] | None = None) -> Iterator[Entry]:
    """Read a file, folder or archive entry by entry; a damaged entry carries its reason.

    Every format and its rules are in `docs/files.md`.

    Args:
        path: of the file, folder or archive.
        notes: takes what was left out, with its number; without it that is a warning.

    Raises:
        InputError: the file is missing, or is as a whole not of the kind that its name says.
    """
    source = Path(path)
    if not source.exists():
        raise InputError(f"Cannot read {source}: there is no such file or folder.")
    found: list[str] = [] if notes is None else notes
    try:
        if source.is_file():
            check_unpacked_size(source)
        for entry in _of(source, found):
            yield _named(entry)
    except InputError as error:
        if str(source) in str(error):
            raise
        raise InputError(f"Cannot read {source}: {error}") from error
    except Exception as error:  # parsers of a dozen formats fail in as many ways
        reason = str(error).strip() or f"damaged, or of another format ({type(error).__name__})"
        raise InputError(f"Cannot read structures from {source}: {reason}") from error
    finally:
        if notes is None:
            for note in found:
                warnings.warn(f"{source}: {note}", ReadingNotice, stacklevel=2)


def _of(source: Path, notes: list[str]) -> Iterator[Entry]:
    if source.is_dir():
        return _set(of_folder(source), notes)
    return _file(of_file(source), notes)


def _named(entry: Entry) -> Entry:
    """Let an id that no provenance holds go with the atoms, into results and submissions."""
    if entry.atoms is not None and entry.id and not entry.atoms.info.get(KEY):
        entry.atoms.info.setdefault(MATERIAL_ID, entry.id)
    return entry


def _set(members: list[Member], notes: list[str]) -> Iterator[Entry]:
    """The entries of many files; one that cannot be read is one entry without atoms."""
    chosen, found = choose(members)
    notes += found
    index = _index(members)
    known = {member.name: member for member in chosen}
    listed = [known[name] for name in index if name in known]
    strangers = []
    for member in [*listed, *(m for m in chosen if m.name not in index)]:
        try:
            for entry in _member(member, notes):
                yield replace(entry, id=index[member.name]) if index.get(member.name) else entry
        except NoStructuresError:
            strangers.append(member.name)
    for name in index:
        if name not in known:
            yield Entry(name, None, f"{INDEX} lists it, and there is no such file")
    if strangers:
        names = ", ".join(strangers[:5]) + (", ..." if len(strangers) > 5 else "")
        notes.append(f"{len(strangers)} files hold no structures and were left out ({names})")


def _index(members: list[Member]) -> dict[str, str]:
    """Ids by file, from the index of a folder that this package wrote; of a stranger's, nothing."""
    for member in members:
        path = PurePosixPath(member.name)
        if path.name == INDEX:
            with member.lines() as lines:
                reader = csv.DictReader(lines)
                if {"file", "id"} <= set(reader.fieldnames or ()):
                    return {
                        (path.parent / (row["file"] or "")).as_posix(): row["id"] or ""
                        for row in reader
                    }
    return {}


def _member(member: Member, notes: list[str]) -> Iterator[Entry]:
    found = 0
    try:
        for entry in _file(member, notes):
            found += 1
            yield entry
        problem = "" if found else "holds no structure"
    except NoStructuresError:
        raise
    except Exception as error:  # noqa: BLE001 - see iter_entries
        problem = " ".join(str(error).split()) or f"damaged ({type(error).__name__})"
    if problem:
        yield Entry(member.name, None, problem, KINDS.get(member.kind), stem_of(member.name))


def _file(member: Member, notes: list[str]) -> Iterator[Entry]:
    """The entries of one file, archives included; the only one takes the file's name as its id."""
    if member.kind in ARCHIVES:
        with of_archive(member) as members:
            yield from _set(members, notes)
        return
    entries = _unbroken(member)
    head = list(itertools.islice(entries, 2))
    if len(head) == 1 and not head[0].id:
        head = [replace(head[0], id=stem_of(member.name))]
    yield from itertools.chain(head, entries)


def _unbroken(member: Member) -> Iterator[Entry]:
    """The entries, and one more for what follows where a file breaks off in between."""
    count = 0
    try:
        for entry in _entries(member):
            count += 1
            yield entry
    except InputError:
        raise
    except Exception as error:
        if not count:
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        yield Entry(
            f"{member.name}, after structure {count}", None, f"damaged from here on: {text}"
        )


def _entries(member: Member) -> Iterator[Entry]:
    kind, name = member.kind, member.name
    if kind in PICKLES:
        raise InputError(
            f"{name} is a pickle, which may run whatever it likes; save the structures as .extxyz "
            "or .json instead."
        )
    if kind == ".txt":
        yield from _text(member)
    elif kind in TEXTS:
        with member.lines() as lines:
            yield from TEXTS[kind](lines, name)
    elif kind == ".parquet":
        with member.on_disk() as path, path.open("rb") as file:
            yield from parse_parquet(file, name)
    elif kind in (".json", ".aditjson"):
        yield from _json(member)
    else:
        with member.on_disk() as path:
            yield from FILES.get(kind, read_ase)(path, name)


def _text(member: Member) -> Iterator[Entry]:
    """EDM writes xyz into `molecule_000.txt`."""
    with member.lines() as lines:
        head = next(lines, "")
        if not head.strip().isdigit():
            raise NoStructuresError(f"{member.name} is a text, not the xyz that EDM writes so.")
        yield from parse_xyz(itertools.chain([head], lines), member.name)


def _json(member: Member) -> Iterator[Entry]:
    with member.lines() as lines:
        by_line = are_json_lines(lines)  # whatever the name says
    if by_line:
        with member.lines() as lines:
            yield from parse_json_lines(lines, member.name)
        return
    if (yield from parse_lists(member)):
        return
    content = whole(member)
    if isinstance(content, dict) and {"ids", "nextid"} <= set(content):  # ASE's own
        with member.on_disk() as path:
            yield from read_ase(path, member.name, kind="json")
        return
    if not holds_structures(content):
        raise no_structures(member.name)
    yield from parse_content(content, member.name)
