"""Write samples to the file formats of the field: streaming, and never half a file.

A file grows beside its destination under a hidden name and takes its place when it is complete.
If the stream breaks off, what was finished is kept as a valid file.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from adit_model.outputs import beside, replacing
from adit_plugins import registry
from adit_plugins.structures.formats import FOLDER, WRITERS, is_ours
from adit_plugins.structures.given import check_many
from adit_plugins.structures.samples import Convertible, Sample, to_sample

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

__all__ = ["OutputError", "WriteReport", "check_output", "write_samples"]

EXPORTERS = "adit.exporters"

Exporter = Callable[[Iterator[Sample], Path], None]
# Number written, (id, reason) of what was not, and what ended the stream before its time.
Outcome = tuple[int, list[tuple[str, str]], BaseException | None]


class OutputError(ValueError):
    """The samples cannot be written where, or as, they should."""


class _NothingWritten(Exception):  # noqa: N818 - no error: an earlier file stays, none is made
    """There is nothing to put into the target's place."""


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


def check_output(
    path: str | os.PathLike[str],
    kind: str | None = None,
    format: str | None = None,  # noqa: A002
) -> Path:
    """Find out, before anything is generated, whether samples can be written to `path`.

    Args:
        path: a file with a known suffix, or a folder (no suffix, or a slash at the end).
        kind: of the samples, if known.
        format: as for `write_samples`.

    Returns:
        The path.

    Raises:
        OutputError: unknown suffix, missing or unwritable parent, a foreign file or folder in
            the way, or a format that cannot hold the kind. The message says what to do.
        MissingExtraError: the exporter needs a package that is not installed.
        UnknownPluginError: the exporter is broken.
    """
    target = Path(path)
    suffix = _format(path, format)
    if suffix not in WRITERS:
        registry.load(EXPORTERS, suffix)
    if kind is not None:
        _check_kind(suffix, kind)
    probe = beside(target)
    try:  # asking the file system is the only answer that also holds for read-only mounts
        _check_place(target, suffix)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"Cannot write in {target.parent}: {error.strerror}. Choose another place or name."
        ) from error
    return target


def write_samples(
    samples: Iterable[Convertible],
    path: str | os.PathLike[str],
    format: str | None = None,  # noqa: A002 - ASE's and pymatgen's word
) -> WriteReport:
    """Write samples as they come, in constant memory; the suffix names the format.

    ASE Atoms, pymatgen and RDKit objects are taken as well, with the provenance they carry.

    `.extxyz` and `.xyz` (extended XYZ), `.db` (ASE SQLite database), `.json` and `.aditjson` (list
    of pymatgen dictionaries), `.sdf` (molecules with perceived bonds), `.cif` (crystals, one block
    each), or a folder of one CIF a crystal with an `index.csv`. An existing file, or a folder
    written by this function, is replaced. Provenance is kept by all of them.

    Samples that the format cannot hold (molecules without a bond assignment in an SDF) are left
    out and reported. If `samples` raises - or Ctrl-C is pressed - what was written by then is
    kept as a valid file and the exception goes on; with nothing written, nothing remains.

    Any other suffix is looked up among the exporters of installed packages. An exporter is an
    entry point `NAME = "module:function"` of the group `adit.exporters`; the function takes an
    iterator of `Sample` and a Path, and writes one new file there. It serves the suffix `.NAME`.
    The name in Path is temporary, with the suffix of the final one. When the stream breaks off,
    the iterator simply ends; an exporter that raises leaves nothing behind.

    Args:
        samples: any iterable; it is asked for one sample after the other.
        path: the file or folder.
        format: name of an exporter, or a suffix above without its dot, in the place of the suffix.

    Raises:
        OutputError: see `check_output`; or an exporter fails.
        TypeError: an item is none of the known objects, or `samples` is one of them.

    Examples:
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
    check_many(samples, "write_samples")
    target = check_output(path, format=format)
    suffix = _format(path, format)
    write = _write_all if suffix in WRITERS else _export
    with suppress(_NothingWritten), replacing(target) as temporary:
        written, skipped, interruption = write(samples, suffix, temporary)
        if isinstance(interruption, OSError) and interruption.errno in _NO_SPACE:
            raise interruption  # the file is not whole, and named in the error
        if not written:
            raise _NothingWritten
    if interruption is not None:
        raise interruption
    return WriteReport(target, written, tuple(skipped))


def _write_all(samples: Iterable[Convertible], suffix: str, path: Path) -> Outcome:
    written, skipped = 0, []
    with WRITERS[suffix](path) as add:
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


def _export(samples: Iterable[Convertible], name: str, path: Path) -> Outcome:
    """Let a plugin write; to it, a stream that breaks off has come to its end."""
    exporter: Exporter = registry.load(EXPORTERS, name)
    written, interruption = 0, None

    def counted() -> Iterator[Sample]:
        nonlocal written, interruption
        try:
            for each in samples:
                sample = to_sample(each)
                written += 1
                yield sample
        except GeneratorExit:  # the exporter wants no more
            raise
        except BaseException as error:  # noqa: BLE001 (raised once the file has its proper end)
            interruption = error

    try:
        exporter(counted(), path)
    except Exception as error:  # whatever a stranger's code raises
        raise OutputError(
            f"exporter '{name}' failed ({type(error).__name__}: {error}); nothing was written"
        ) from error
    if written and not path.exists():
        raise OutputError(f"exporter '{name}' has written no file")
    return written, [], interruption


def _format(path: str | os.PathLike[str], name: str | None = None) -> str:
    """Return a key of `WRITERS`, or the name of an exporter."""
    suffix = Path(path).suffix.lower() if name is None else f".{name}"
    if name is None and not suffix and f"{Path(path).name}" in WRITERS:
        raise OutputError(f"Cannot write {os.fspath(path)}: a suffix alone is no name of a file.")
    vasp = Path(path).name.upper() in ("POSCAR", "CONTCAR") or suffix in (".vasp", ".poscar")
    if name is None and vasp:
        raise OutputError(
            f"Cannot write {os.fspath(path)}: VASP's format holds one crystal, and neither its id "
            "nor where it is from. Name a folder for one CIF a crystal, write one by pymatgen: "
            "structure.to_file('POSCAR'), or VASP's inputs by adit dft FILE --inputs vasp."
        )
    if name is None and (not suffix or os.fspath(path).endswith(("/", os.sep))):
        return FOLDER
    if suffix in WRITERS:
        return suffix
    exporters = registry.names(EXPORTERS)
    if suffix[1:] in exporters:
        return suffix[1:]
    known = [*(key for key in WRITERS if key != FOLDER), *(f".{each}" for each in exporters)]
    if name is not None:
        names = ", ".join(each[1:] for each in known)
        raise OutputError(f"Cannot write {os.fspath(path)}: no format {name!r}. Known: {names}.")
    raise OutputError(
        f"Cannot write {os.fspath(path)}: unknown suffix {suffix!r}. Known: {', '.join(known)}; "
        "or a folder (no suffix) for one CIF a crystal."
    )


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
    if target.is_dir() and any(target.iterdir()) and not is_ours(target):
        raise OutputError(
            f"Cannot write {target}: it is not empty, and not all in it was written by this "
            "program. Choose a new folder."
        )
