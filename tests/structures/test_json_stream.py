"""JSON of any size: lists and records come one by one, whatever their arrangement and damage."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk
from pymatgen.io.ase import AseAtomsAdaptor

from adit_plugins.structures import InputError, iter_entries
from adit_plugins.structures.json_stream import JsonStream

COPPER = {**AseAtomsAdaptor.get_structure(bulk("Cu")).as_dict(), "properties": {}}
RECORD = {"id": "mine/7", "structure": COPPER, "provenance": {"id": "mine/7", "seed": 3}}
UNREADABLE = {"id": "mine/8", "problem": "it is disordered"}
DOCUMENT = {"format": "adit discover", "crystals": [UNREADABLE, RECORD], "molecules": [RECORD]}


def pieces_of(text: str, seed: int) -> Iterator[str]:
    """The text cut at random places."""
    rng, at = random.Random(seed), 0
    while at < len(text):
        size = rng.choice((1, 2, 7, 100))
        yield text[at : at + size]
        at += size


def taken(stream: JsonStream) -> Any:
    """The document, entered as deep as it goes."""
    if stream.peek() == "[":
        return [taken(stream) for _ in stream.elements()]
    if stream.peek() == "{":
        return {key: taken(stream) for key in stream.keys()}  # noqa: SIM118 (no dictionary)
    return stream.value()


def read_to_the_end(stream: JsonStream, reader: Callable[[JsonStream], Any]) -> Any:
    """The document, after which nothing may follow."""
    found = reader(stream)
    stream.end()
    return found


VALUES = [
    [], {}, 3, -0.5e-7, "x", None, [1, 23, [], [[]], {}],
    {"a": {"b": [True, False, None, "\u00fc\n\"\\", 1e300, {"c": {}}]}, "": ""}, DOCUMENT,
    ["long " * 50_000, 2],
]  # fmt: skip


@pytest.mark.parametrize("indent", [None, 1, 40])
@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_what_is_taken_is_what_json_reads(
    value: Any, indent: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adit_plugins.structures.json_stream.CHUNK", 5)
    text = " " + json.dumps(value, indent=indent) + "\n"
    for seed in range(3):
        for reader in (taken, JsonStream.value):
            stream = JsonStream(pieces_of(text, seed), "in.json")
            assert read_to_the_end(stream, reader) == json.loads(text)
        assert stream.position == len(text)


def test_what_json_refuses_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every text that lacks a character or has another one, where it is none for json either."""
    monkeypatch.setattr("adit_plugins.structures.json_stream.CHUNK", 5)
    text, refused = json.dumps({"a": [1, {"b": -2.5}, "c", True], "d": [[], None]}), 0
    rng = random.Random(0)
    broken = [text[:i] for i in range(len(text))]
    broken += [text[:i] + rng.choice('{}[],:"x1 ') + text[i + 1 :] for i in range(len(text))]
    broken += [text + extra for extra in ("]", "1", '"')]
    for each in broken:
        try:
            expected = json.loads(each)
        except ValueError:
            refused += 1
            for reader in (taken, JsonStream.value):
                stream = JsonStream(pieces_of(each, 1), "in.json")
                with pytest.raises(ValueError, match=r"it is no JSON .* at character"):
                    read_to_the_end(stream, reader)
        else:
            assert taken(JsonStream(pieces_of(each, 1), "in.json")) == expected
    assert refused > 70


def test_damage_is_found_where_it_is_not_at_the_end() -> None:
    read = []

    def pieces() -> Iterator[str]:
        yield '["b", {"a" 1}, '
        for number in range(1000):
            read.append(number)
            yield "1" * 2**16

    stream = JsonStream(pieces(), "in.json")
    with pytest.raises(ValueError, match="Expecting ':' at character 11"):
        taken(stream)
    assert len(read) < 3


@pytest.mark.parametrize("indent", [None, 2])
def test_records_of_a_campaign_are_its_structures(indent: int | None, tmp_path: Path) -> None:
    path = tmp_path / "candidates.json"
    path.write_text(json.dumps(DOCUMENT, indent=indent))
    entries = list(iter_entries(path))
    assert [entry.reason for entry in entries] == ["it is disordered", "", ""]
    assert [entry.id for entry in entries] == ["mine/8", "mine/7", "mine/7"]
    assert entries[0].name == "candidates.json, crystals, entry 0"
    assert entries[1].atoms.info["adit"] == RECORD["provenance"]


@pytest.mark.parametrize(
    "content",
    [[], {}, [1, 2], {"crystals": ["mp20"], "steps": 3}, {"crystals": []}, [None] * 20_000, "x"],
    ids=["none", "empty", "numbers", "settings", "no-records", "many", "text"],
)
def test_json_of_something_else_is_no_structure(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="without a structure"):
        list(iter_entries(path))


def test_a_record_may_have_lists_of_these_names(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text(json.dumps({"crystals": [1], "material_id": "mp-30", "structure": COPPER}))
    (entry,) = iter_entries(path)
    assert (entry.id, entry.reason) == ("mp-30", "")


@pytest.mark.parametrize("text", ["[{0}, {0}", '{{"crystals": [{0}, {0}', "[{0}, {0} {0}]"])
def test_what_stands_before_damage_is_kept(text: str, tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text(text.format(json.dumps(RECORD)))
    entries = list(iter_entries(path))
    assert [entry.atoms is not None for entry in entries] == [True, True, False]
    assert "damaged from here on: it is no JSON" in entries[-1].reason


def test_memory_is_a_fraction_of_the_file(tmp_path: Path) -> None:
    path, num = tmp_path / "candidates.json", 8000
    with path.open("w") as file:
        file.write('{"format": "adit discover", "crystals": [\n' + json.dumps(RECORD))
        file.writelines(",\n" + json.dumps(RECORD) for _ in range(num - 1))
        file.write('\n], "molecules": []}')
    tracemalloc.start()
    assert sum(entry.atoms is not None for entry in iter_entries(path)) == num
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().st_size / 2  # json.load takes five times the file
