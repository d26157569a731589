"""JSON that may be of any size: lists, a campaign's records, a value a line."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import Any

from adit_plugins.structures import members
from adit_plugins.structures.entries import Entry, NoStructuresError
from adit_plugins.structures.json_files import entry_of, is_structure
from adit_plugins.structures.json_stream import JsonStream
from adit_plugins.structures.provenance import KEY

RECORDS = {"crystals": "crystal", "molecules": "molecule"}  # lists of `candidates.json`
PROVENANCE = "provenance"  # stands beside the structure there
# Values before the first structure. With more, the list is of something else: settings, numbers.
MAX_OTHERS = 10_000


def are_json_lines(lines: Iterable[str]) -> bool:
    """Whether a text is one JSON value a line; no one document begins as such a text does."""
    filled = (line for line in lines if line.strip())
    first = next(filled, "")
    if not first.endswith("\n"):  # all there is, or a part of a line of any length
        return False
    first, second = first.strip(), next(filled, "").strip()
    return first[:1] in ("{", "[") and second[:1] in ("{", "[") and first[-1] not in "{[,:"


def no_structures(name: str) -> NoStructuresError:
    """Say that a file holds something else."""
    return NoStructuresError(f"{name} is JSON without a structure of pymatgen or ASE.")


def parse_list(stream: JsonStream, name: str) -> Iterator[Entry]:
    """Read a document that is a list, one element in memory at a time.

    Raises:
        NoStructuresError: nothing in it is, or claims to be, a structure.
    """
    values = ((stream.value(), f"{name}, entry {i}") for i, _ in enumerate(stream.elements()))
    found = yield from _from_the_first((is_structure(v), entry_of(v, at)) for v, at in values)
    stream.end()
    if not found:
        raise no_structures(name)


def parse_records(stream: JsonStream, name: str) -> Generator[Entry, None, Any]:
    """Read the records of a campaign, one in memory at a time, and return any other document whole.

    Returns:
        None where there were records with structures, and else all that the document holds but
        lists named as theirs.

    Raises:
        InputError: the other values are too large for memory.
    """
    if stream.peek() != "{":
        content = stream.value()
        stream.end()
        return content
    whole: dict[str, Any] = {}
    found, size = False, 0
    for key in stream.keys():  # noqa: SIM118 (no dictionary)
        if key in RECORDS and stream.peek() == "[":
            found |= yield from _from_the_first(_records(stream, name, key))
            continue
        size -= stream.position
        whole[key] = stream.value()
        size += stream.position
        if size > members.MAX_BYTES:
            raise members.too_large(name)
    stream.end()
    return None if found else whole


def _records(stream: JsonStream, name: str, key: str) -> Iterator[tuple[bool, Entry]]:
    for index, _ in enumerate(stream.elements()):
        record, place = stream.value(), f"{name}, {key}, entry {index}"
        entry = entry_of(record, place)
        if not isinstance(record, dict):
            yield False, entry
            continue
        if not is_structure(record):  # the campaign could not read it
            reason = str(record.get("problem") or "the record has no structure")
            yield False, Entry(place, None, reason, RECORDS[key], entry.id)
            continue
        if entry.atoms is not None and isinstance(record.get(PROVENANCE), dict):
            entry.atoms.info.setdefault(KEY, record[PROVENANCE])
        yield True, entry


def _from_the_first(entries: Iterator[tuple[bool, Entry]]) -> Generator[Entry, None, bool]:
    """Yield entries once one is a structure, with those before; return whether one was."""
    held: list[Entry] = []
    found = False
    for is_one, entry in entries:
        found = found or is_one
        held.append(entry)
        if found:
            yield from held
            held.clear()
        elif len(held) > MAX_OTHERS:
            held.clear()
            deque(entries, maxlen=0)  # to its end, keeping nothing
    return found
