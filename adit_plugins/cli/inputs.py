"""Structures of a file, one bad entry stopping none, and a line about the constraints they had."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

NAMED = 20  # entries without a structure

if TYPE_CHECKING:
    from adit_plugins.structures.entries import Entry


def check_there(path: Path | None) -> None:
    """Name an input that is missing before anything else is said, or loaded.

    Raises:
        ValueError: there is no such file or folder.
    """
    if path is not None and not path.exists():
        raise ValueError(f"Cannot read {path}: there is no such file or folder.")


def entries_of(path: Path) -> list[Entry]:
    """Return all entries of a file or folder; an unreadable one carries its reason.

    Raises:
        InputError: there is none, or none of them can be read.
    """
    from adit_plugins.structures.entries import InputError
    from adit_plugins.structures.reading import iter_entries

    entries = list(iter_entries(path))
    if not entries:
        raise InputError(f"{path} holds no structures.")
    if all(entry.atoms is None for entry in entries):
        raise InputError(f"Cannot read {path}: {entries[0].name}: {entries[0].reason}")
    return entries


def crystals_of(path: Path) -> list[Entry]:
    """Return all entries of a file or folder; what is no crystal carries that as its reason.

    Raises:
        InputError: there is no crystal.
    """
    from adit_plugins.structures.entries import Entry, InputError

    entries = [
        entry
        if entry.atoms is None or (len(entry.atoms) and entry.atoms.pbc.all())
        else Entry(entry.name, None, "is no crystal", entry.kind)
        for entry in entries_of(path)
    ]
    if all(entry.atoms is None for entry in entries):
        raise InputError(f"{path} holds no crystals: {entries[0].name} {entries[0].reason}.")
    return entries


def say_left_out(entries: Sequence[Entry]) -> None:
    """Print how many entries were of no use, and why each."""
    bad = [entry for entry in entries if entry.atoms is None]
    if bad:
        click.echo(f"{len(bad)} of {len(entries)} structures were left out:")
    for entry in bad[:NAMED]:
        click.echo(f"  {entry.name}: {entry.reason}")
    if len(bad) > NAMED:
        click.echo(f"  ... and {len(bad) - NAMED} more")


def say_constraints(fates: Iterable[str]) -> None:
    """Print what became of constraints; `fates` has a word for each structure, empty for none."""
    click.echo("\n".join(_constraint_lines(list(fates))), nl=False)


def _constraint_lines(fates: list[str]) -> Iterator[str]:
    if dropped := fates.count("dropped"):
        yield (
            f"Constraints of {dropped} of {len(fates)} structures were dropped: all atoms are "
            "free. --keep-constraints of adit relax, dft and submit keeps them.\n"
        )
    if kept := fates.count("kept"):
        yield (
            f"{kept} of {len(fates)} structures kept their constraints: to converge counts the "
            "forces that these leave, the largest force all.\n"
        )
