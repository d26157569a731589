"""What a report is made of: a campaign, the JSON of `adit evaluate`, or any file of structures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from adit_plugins.campaign.store import Store, has_store
from adit_plugins.report.commands import campaign_command, sample_command
from adit_plugins.report.rows import Row, busters_values, store_row
from adit_plugins.structures.entries import InputError
from adit_plugins.structures.facts import describe_crystal, describe_molecule
from adit_plugins.structures.samples import Sample

EVALUATION = "adit evaluate"
HEAD = 10_000  # characters; the format is the first thing that an evaluation says


@dataclass
class Results:
    """A set of structures with what is known about them.

    Attributes:
        name: in the page's headings.
        rows: gives the rows of a kind, the best first; called once a kind.
        totals: how many structures there are of each kind.
        funnels: counts with their denominators, by kind.
        notes: what a reader must know.
        commands: by kind, the command that makes a sample again; `{id}` stands for its id.
        command: that made all of it.
    """

    name: str
    rows: Callable[[str], Iterator[Row]]
    totals: dict[str, int] = field(default_factory=dict)
    funnels: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    commands: dict[str, str] = field(default_factory=dict)
    command: str = ""

    def about(self) -> dict[str, Any]:
        """Return all but the rows."""
        return {name: value for name, value in vars(self).items() if name != "rows"}


def read_results(path: str | PathLike[str]) -> list[Results]:
    """Find out what a path holds; the JSON of `adit evaluate` may hold several sets.

    Raises:
        InputError: there is nothing of that name, or nothing that can be read.
        StoreError: the campaign's store cannot be read.
    """
    source = Path(path)
    if has_store(source):
        return [campaign_results(Store(source, read_only=True))]
    content = _evaluation(source)
    if content is not None:
        return [_evaluated_results(each, source.parent) for each in content["sets"]]
    return [structure_results(source)]


def campaign_results(store: Store) -> Results:
    """Take up a campaign, finished or not."""
    from adit_plugins.campaign.funnel import Tally, base_of

    recipe = store.metadata["recipe"]
    tally = Tally(store.verdicts(), base_of(recipe))
    name = store.folder.resolve().name or str(store.folder)
    results = Results(name, partial(_store_rows, store), notes=_progress_notes(store))
    results.totals = {"crystal": tally.num_crystals, "molecule": tally.num_molecules}
    for kind, rates in (("crystal", tally.crystal_funnel()), ("molecule", tally.molecule_funnel())):
        if results.totals[kind]:
            results.funnels[kind] = [rate.as_dict() for rate in rates]
    if tally.outcomes:
        ended = "; ".join(f"{number} {kind}" for kind, number in tally.outcomes.most_common())
        results.notes.append(f"Relaxations ended by: {ended}.")
    results.commands = {each["kind"]: sample_command(each) for each in recipe.get("generators", [])}
    results.command = campaign_command(store.metadata)
    return results


def _progress_notes(store: Store) -> list[str]:
    from adit_plugins.campaign.settings import DONE

    num, done = len(store), store.count("stage", DONE)
    if num == store.total and done == num:
        return []
    until = store.metadata["settings"].get("until")
    if until is not None and store.num_found() >= until:
        return [f"Ended: {store.found_note()}"]
    return [
        f"Not finished: {num} of {store.total} structures were there when this page was written, "
        f"{num - done} of them still to be relaxed. `adit report {store.folder}` writes it anew."
    ]


def _store_rows(store: Store, kind: str) -> Iterator[Row]:
    crystals = kind == "crystal"
    ranked = store.candidates() if crystals else []
    for rank, row in enumerate(store.rows(ids=ranked), start=1):
        yield store_row(row, rank)
    known = set(ranked)
    for row in store.rows(kind):
        if row.id not in known:
            yield store_row(row, None)


def structure_results(path: str | PathLike[str]) -> Results:
    """Take up any file or folder of structures, with the verdicts that need no other structure.

    Raises:
        InputError: there is none, or it is empty.
    """
    from adit_plugins.metrics.sets import read_set

    found = read_set(path)
    parts = {"crystal": found.crystals, "molecule": found.molecules}

    def rows(kind: str) -> Iterator[Row]:
        part = parts[kind]
        return map(partial(_judged, kind), part.samples, part.reasons, part.names)

    totals = {kind: len(part) for kind, part in parts.items()}
    return Results(found.name, rows, totals, notes=found.notes)


def sample_results(samples: Sequence[Sample], name: str = "samples") -> Results:
    """Take up structures in memory."""
    totals = {kind: sum(each.kind == kind for each in samples) for kind in ("crystal", "molecule")}

    def rows(kind: str) -> Iterator[Row]:
        for i, sample in enumerate(samples):
            if sample.kind == kind:
                yield _judged(kind, sample, None, sample.id or f"{name}, {i}")

    return Results(name, rows, totals)


def _judged(kind: str, sample: Sample | None, reason: str | None, name: str) -> Row:
    values: dict[str, Any] = {"id": name}
    if sample is None:
        values |= {"problem": reason or "cannot be read"}
        values |= {"structure_valid" if kind == "crystal" else "strict_valid": False}
        return Row(kind, values)
    if sample.id:
        values["id"] = sample.id
        values["name"] = name
    values |= _crystal_verdicts(sample) if kind == "crystal" else _molecule_verdicts(sample)
    return Row(kind, values, [sample])


def _crystal_verdicts(sample: Sample) -> dict[str, Any]:
    from adit_plugins.validity.crystals import is_composition_valid, is_structure_valid

    values = describe_crystal(sample)
    structure: Any = sample.to_pymatgen()
    return values | {
        "structure_valid": is_structure_valid(structure),
        "composition_valid": is_composition_valid(structure.composition),
    }


def _molecule_verdicts(sample: Sample) -> dict[str, Any]:
    from adit_plugins.validity.molecules import examine

    report, _ = examine(sample.to_ase())
    names = ("smiles", "rdkit_valid", "connected", "strict_valid")
    values = {name: getattr(report, name) for name in names}
    return describe_molecule(sample) | values | {"problem": report.reason or None}


def _evaluation(path: Path) -> dict[str, Any] | None:
    if path.suffix.lower() != ".json" or not path.is_file():
        return None
    try:
        with path.open(encoding="utf-8") as file:
            head = file.read(HEAD)
            if EVALUATION not in head:  # any other JSON may be larger than memory
                return None
            content = json.loads(head + file.read())
    except (OSError, ValueError):
        return None  # the reader of structures says what is wrong
    if isinstance(content, dict) and content.get("format") == EVALUATION:
        return content
    return None


def _evaluated_results(content: dict[str, Any], folder: Path) -> Results:
    """The rows of an evaluation, with the structures where their file is still there."""
    from adit_plugins.metrics.sets import read_set

    made: dict[str, Iterator[Row]] = {}
    results = Results(content["name"], made.__getitem__, notes=list(content.get("notes", [])))
    samples: dict[str, list[Sample | None]] = {}
    for place in (Path(content["path"]), folder / Path(content["path"]).name):
        if place.exists():
            found = read_set(place)
            samples = {"crystal": found.crystals.samples, "molecule": found.molecules.samples}
            break
    else:
        results.notes.append(f"{content['path']} is not there any more: no structures to look at.")
    for kind in ("crystal", "molecule"):
        part = content.get(f"{kind}s")
        if not part:
            continue
        rows = part["rows"]
        results.totals[kind] = len(rows)
        results.funnels[kind] = part["rates"]
        structures = samples.get(kind, [])
        if len(structures) != len(rows):  # another file by now
            structures = [None] * len(rows)
            if samples:
                results.notes.append(f"{content['path']} has changed since; no {kind}s to look at.")
        made[kind] = map(partial(_evaluated_row, kind), rows, structures)
    return results


# Names in the JSON of an evaluation -> names in the table.
_RENAMED = {
    "name": "id", "struct_valid": "structure_valid", "comp_valid": "composition_valid",
    "reason": "problem", "valid_strict": "strict_valid", "smiles_strict": "smiles",
    "unique_strict": "unique", "novel_strict": "novel",
}  # fmt: skip


def _evaluated_row(kind: str, row: dict[str, Any], sample: Sample | None) -> Row:
    values: dict[str, Any] = {}
    if sample is not None:
        values = describe_crystal(sample) if kind == "crystal" else describe_molecule(sample)
    plain = {
        _RENAMED.get(name, name): value
        for name, value in row.items()
        if value not in (None, "") and not isinstance(value, dict | list)
    }
    values |= plain | busters_values(row.get("posebusters"))
    return Row(kind, values, [] if sample is None else [sample])


def check_names(results: Sequence[Results]) -> None:
    """Make the names of several sets distinct."""
    seen: dict[str, int] = {}
    for each in results:
        seen[each.name] = seen.get(each.name, 0) + 1
        if seen[each.name] > 1:
            each.name = f"{each.name} ({seen[each.name]})"


__all__ = [
    "InputError",
    "Results",
    "campaign_results",
    "check_names",
    "read_results",
    "sample_results",
    "structure_results",
]
