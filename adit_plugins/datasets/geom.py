"""GEOM-Drugs: drug-like molecules, from the authors' msgpack; their pickles are never read."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adit_plugins.datasets.common import assemble, split_of
from adit_plugins.datasets.errors import DatasetError
from adit_plugins.registry import MissingExtraError, missing_package
from adit_plugins.structures.entries import InputError, ReadingNotice
from adit_plugins.structures.members import Member, of_archive, of_file
from adit_plugins.structures.samples import MAX_ATOMIC_NUMBER

if TYPE_CHECKING:
    from adit_model.data import PreparedData

ARCHIVE = "https://dataverse.harvard.edu/api/access/datafile/4360331"  # drugs_crude.msgpack.tar.gz
PICKLES = (".pkl", ".pickle", ".p")
MAX_OBJECT = 2**31 - 1  # bytes; the file is a row of maps of a thousand molecules each


def geom_drugs(
    source: Path | None = None, max_num_atoms: int = 64, conformers: int = 1
) -> PreparedData:
    """GEOM-Drugs (Axelrod and Gomez-Bombarelli 2022, doi 10.1038/s41597-022-01288-4; CC0).

    The conformers of lowest energy (GFN2-xTB) of each molecule. All of a molecule are in one split.

    Args:
        source: `drugs_crude.msgpack`, or the `.tar.gz` that it came in (43 GB). It is not
            downloaded.
        max_num_atoms: larger molecules, hydrogens included, are left out.
        conformers: of each molecule, at most.

    Raises:
        DatasetError: there is no source, it is a pickle or damaged, or holds no molecule.
        MissingExtraError: the package `msgpack` is missing.
    """
    if source is None:
        raise DatasetError(
            f"GEOM-Drugs is not downloaded: pass --source with its drugs_crude.msgpack ({ARCHIVE}, "
            "43 GB)."
        )
    if not source.is_file():
        raise DatasetError(f"No such file: {source}")
    rows: list[dict[str, Any]] = []
    left: Counter[str] = Counter()
    for smiles, told in _molecules(source):
        try:
            found = _conformers(told, conformers)
        except (KeyError, TypeError, ValueError):
            left["have no conformers as GEOM has them"] += 1
            continue
        if any(len(numbers) > max_num_atoms for numbers, _ in found):
            left[f"have more than {max_num_atoms} atoms"] += 1
            continue
        split = ("train", "val", "test").index(split_of(smiles))
        rows += [
            {"atomic_numbers": numbers, "coords": xyz - xyz.mean(axis=0), "split": split}
            for numbers, xyz in found
        ]
    for reason, count in left.items():
        text = f"{source.name}: {count} molecules {reason} and are left out"
        warnings.warn(text, ReadingNotice, stacklevel=2)
    return assemble("geom_drugs", "molecule", rows, f"GEOM-Drugs from {source.name} (CC0)")


def _molecules(source: Path) -> Iterator[tuple[str, Any]]:
    """SMILES and what is told of each molecule.

    Raises:
        DatasetError: it is a pickle, or damaged.
    """
    try:
        for member in _files(source):
            if member.kind in PICKLES:
                raise DatasetError(
                    f"{source} holds pickles, which may run whatever they like and are not read; "
                    f"take the same molecules as drugs_crude.msgpack ({ARCHIVE})."
                )
            if member.kind == ".msgpack":
                yield from _unpacked(member)
    except (InputError, OSError, EOFError) as error:
        raise DatasetError(f"{source} cannot be read: {error}") from error


def _files(source: Path) -> Iterator[Member]:
    member = of_file(source)
    if member.kind != ".tar":
        yield member
        return
    with of_archive(member) as members:
        yield from members


def _unpacked(member: Member) -> Iterator[tuple[str, Any]]:
    """The molecules of a msgpack file, a thousand in memory at a time."""
    try:
        import msgpack
    except ModuleNotFoundError as error:
        raise MissingExtraError(missing_package("the data set 'geom_drugs'", error)) from error
    with member.open() as file:
        try:
            for several in msgpack.Unpacker(file, max_buffer_size=MAX_OBJECT):
                if not isinstance(several, dict):
                    raise DatasetError(f"{member.name} is no file of GEOM: it has no molecules.")
                yield from several.items()
        except ValueError as error:  # msgpack's errors are ValueErrors
            raise DatasetError(f"{member.name} is damaged: {error}") from error


def _conformers(told: Any, number: int) -> list[tuple[list[int], Any]]:
    """Elements and positions (angstrom) of the conformers of lowest energy.

    Raises:
        KeyError, TypeError, ValueError: there are none.
    """
    chosen = sorted(told["conformers"], key=lambda each: float(each["totalenergy"]))[:number]
    found = []
    for each in chosen:
        table = np.asarray(each["xyz"], dtype=np.float64)
        if table.ndim != 2 or table.shape[1] != 4 or not np.isfinite(table).all():
            raise ValueError("rows are an atomic number and three coordinates")
        numbers = table[:, 0].astype(int)
        if not ((numbers >= 1) & (numbers <= MAX_ATOMIC_NUMBER)).all():
            raise ValueError("an atomic number is none")
        found.append((numbers.tolist(), table[:, 1:]))
    if not found:
        raise ValueError("no conformer")
    return found
