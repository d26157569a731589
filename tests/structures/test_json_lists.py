"""JSON of any size: lists and records come one by one, whatever their arrangement and damage."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk
from pymatgen.io.ase import AseAtomsAdaptor

from adit_plugins.structures import InputError, iter_entries

COPPER = {**AseAtomsAdaptor.get_structure(bulk("Cu")).as_dict(), "properties": {}}
RECORD = {"id": "mine/7", "structure": COPPER, "provenance": {"id": "mine/7", "seed": 3}}
UNREADABLE = {"id": "mine/8", "problem": "it is disordered"}
DOCUMENT = {"format": "adit discover", "crystals": [UNREADABLE, RECORD], "molecules": [RECORD]}


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


@pytest.mark.parametrize(
    "text",
    ["[{0}, {0}", '{{"crystals": [{0}, {0}', "[{0}, {0} {0}]", "[{0}, {0}] {0}",
     '{{"crystals": [{0}], "x": {{}}, "molecules": [{0}, x'],
)  # fmt: skip
@pytest.mark.parametrize("limit", [2**31, 2**17])
def test_what_stands_before_damage_is_kept(
    text: str, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adit_plugins.structures.members.MAX_BYTES", limit)
    path = tmp_path / "in.json"
    path.write_text(text.format(json.dumps(RECORD)) + " " * 2**16)
    entries = list(iter_entries(path))
    assert [entry.atoms is not None for entry in entries] == [True, True, False]
    assert "damaged from here on: it is no JSON" in entries[-1].reason


@pytest.mark.parametrize("content", [[RECORD, UNREADABLE, RECORD], DOCUMENT, RECORD])
@pytest.mark.parametrize("number", [math.nan, -math.inf, 10**30])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_what_only_python_writes_is_read(
    content: Any, number: float, encoding: str, tmp_path: Path
) -> None:
    path = tmp_path / "in.json"
    path.write_text(json.dumps(content), encoding=encoding)
    expected = list(iter_entries(path))
    path.write_text(json.dumps(content).replace('"seed": 3', f'"seed": {json.dumps(number)}'),
                    encoding=encoding)  # fmt: skip
    entries = list(iter_entries(path))
    assert [(e.name, e.id, e.reason) for e in entries] == [
        (e.name, e.id, e.reason) for e in expected
    ]
    seeds = [e.atoms.info["adit"]["seed"] for e in entries if e.atoms and "adit" in e.atoms.info]
    assert [repr(seed) for seed in seeds] == [repr(number)] * len(seeds)
    assert bool(seeds) == (content is DOCUMENT)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is no JSON"), ("no", "it is no JSON"), ("[1, 2", "it is no JSON"),
        ('{"a" 1}', "it is no JSON .*column 6"), ('{"crystals": [', "it is no JSON"),
        ("[" * 100_000, "nested more than 200 deep"),
        ('{"crystals": ' + '[{"x":' * 100_000, "nested more than 200 deep"),
    ],
    ids=["empty", "words", "cut", "broken", "cut-records", "deep", "deep-records"],
)  # fmt: skip
def test_what_is_no_json_is_said_in_a_line(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as raised:
        list(iter_entries(path))
    assert "\n" not in str(raised.value)


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
