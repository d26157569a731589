"""JSON that may be of any size: lists, a campaign's records, a value a line."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from itertools import chain, islice
from typing import Any

import ijson

from adit_plugins.structures import members
from adit_plugins.structures.entries import Entry, InputError, NoStructuresError
from adit_plugins.structures.json_files import entry_of, is_structure
from adit_plugins.structures.provenance import KEY

RECORDS = {"crystals": "crystal", "molecules": "molecule"}  # lists of `candidates.json`
PROVENANCE = "provenance"  # stands beside the structure there
# Values before the first structure. With more, the list is of something else: settings, numbers.
MAX_OTHERS = 10_000
MAX_DEPTH = 200  # of one value; Python copies and writes no more than a few hundred
_STEPS = {"start_map": 1, "start_array": 1, "end_map": -1, "end_array": -1}

Event = tuple[str, Any]
Element = tuple[str, int, Any]  # key of its list in the document (or ""), number there, value


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


def parse_lists(member: members.Member) -> Generator[Entry, None, bool]:
    """Read a list, or the records of a campaign, one in memory at a time.

    Returns:
        Whether there was a structure; then nothing else is in the document.

    Raises:
        NoStructuresError: it is a list, and nothing in it is, or claims to be, a structure.
        InputError: something in it is too large for memory.
        ValueError: from here on it is no JSON.
    """
    held: list[Entry] = []
    found = False
    for key, number, value in _elements(member):
        place = f"{member.name}, {key}, entry {number}" if key else f"{member.name}, entry {number}"
        held.append(_record(value, place, RECORDS[key]) if key else entry_of(value, place))
        found = found or is_structure(value)
        if found:
            yield from held
            held.clear()
        elif len(held) > MAX_OTHERS:
            break
    if held and not key:
        raise no_structures(member.name)
    return found


def whole(member: members.Member) -> Any:
    """Read any document.

    Raises:
        InputError: it is too large for memory.
        ValueError: it is no JSON.
    """
    try:
        return json.loads(member.text())
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"it is no JSON ({error})") from error


def _record(record: Any, place: str, kind: str) -> Entry:
    entry = entry_of(record, place)
    if not isinstance(record, dict):
        return entry
    if not is_structure(record):  # the campaign could not read it
        reason = str(record.get("problem") or "the record has no structure")
        return Entry(place, None, reason, kind, entry.id)
    if entry.atoms is not None and isinstance(record.get(PROVENANCE), dict):
        entry.atoms.info.setdefault(KEY, record[PROVENANCE])
    return entry


def _elements(member: members.Member) -> Iterator[Element]:
    """What Python writes and JSON has not, such as NaN, is read with the whole file in memory."""
    taken = size = 0

    def encoded(pieces: Iterator[str]) -> Iterator[bytes]:
        nonlocal size
        for piece in pieces:
            size += len(piece)
            if size > members.MAX_BYTES:  # without an end of a value
                raise members.too_large(member.name)
            yield piece.encode()

    try:
        with member.pieces() as pieces:
            file = ijson.from_iter(encoded(pieces))
            for element in _lists(ijson.basic_parse(file, use_float=True)):
                taken, size = taken + 1, 0
                yield element
        return
    except ijson.JSONError as error:
        refused = ValueError(f"it is no JSON ({str(error).splitlines()[0]})")
    if "EOF" in str(refused):  # it was cut off; no other reader gets further
        raise refused
    try:
        content = whole(member)
    except InputError:  # too large
        raise refused from None
    lists = {"": content} if isinstance(content, list) else content
    found = lists.items() if isinstance(lists, dict) else ()
    rest = (
        (key, number, value)
        for key, values in found
        if isinstance(values, list) and (values is content or key in RECORDS)
        for number, value in enumerate(values)
    )
    yield from islice(rest, taken, None)


def _lists(events: Iterator[Event]) -> Iterator[Element]:
    """The elements of a document that is a list, or of an object's lists of records."""
    event, _ = next(events)
    if event == "start_array":
        yield from _list(events, "")
    elif event == "start_map":
        for event, key in events:
            if event == "end_map":
                break
            first = next(events)
            if key in RECORDS and first[0] == "start_array":
                yield from _list(events, key)
            else:
                deque(_of_value(first, events), maxlen=0)
    deque(events, maxlen=0)  # there are none, or there is damage


def _list(events: Iterator[Event], key: str) -> Iterator[Element]:
    for number, first in enumerate(events):  # the next one is taken after a value's last
        if first[0] == "end_array":
            return
        builder = ijson.ObjectBuilder()
        for event, value in _of_value(first, events):
            builder.event(event, value)
        yield key, number, builder.value


def _of_value(first: Event, events: Iterator[Event]) -> Iterator[Event]:
    """The events of one value.

    Counted here, because `ijson.items` takes memory with the square of the depth.
    """
    depth = 0
    for event in chain([first], events):
        yield event
        depth += _STEPS.get(event[0], 0)
        if not depth:
            return
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
