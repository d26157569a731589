"""Sets of structures from files: crystals and molecules apart, and nothing lost on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from adit_plugins.structures.entries import Entry, InputError
from adit_plugins.structures.reading import iter_entries
from adit_plugins.structures.samples import Sample

NAMED = 20  # entries without a structure


@dataclass
class Collection:
    """Structures of one kind; None where an entry could not be read, with its reason beside it."""

    samples: list[Sample | None] = field(default_factory=list)
    reasons: list[str | None] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.samples)

    def add(self, name: str, sample: Sample | None, reason: str | None) -> None:
        """Append one entry."""
        self.samples.append(sample)
        self.reasons.append(reason)
        self.names.append(name)


@dataclass
class StructureSet:
    """What a file or folder holds."""

    name: str
    path: Path
    crystals: Collection = field(default_factory=Collection)
    molecules: Collection = field(default_factory=Collection)
    notes: list[str] = field(default_factory=list)


def read_set(
    path: str | PathLike[str], progress: Callable[[str, int, int], None] | None = None
) -> StructureSet:
    """Read a file or folder of structures.

    An entry that cannot be read belongs to the kind that its format names (a CIF is a crystal, an
    SDF a molecule); where the format names none, to the kind that most others of the set have.

    Raises:
        InputError: there is no such file, it is not of its kind as a whole, or it is empty.
    """
    source = Path(path)
    result = StructureSet(_short_name(source), source)
    homeless: list[tuple[str, str]] = []
    constrained = 0
    for count, entry in enumerate(iter_entries(source, result.notes), start=1):
        _file(entry, result, homeless)
        constrained += entry.atoms is not None and bool(entry.atoms.constraints)
        if progress is not None and count % 100 == 0:
            progress(f"read {result.name}", count, count)
    home = result.molecules if len(result.molecules) > len(result.crystals) else result.crystals
    for name, reason in homeless:
        home.add(name, None, reason)
    if not len(result.crystals) + len(result.molecules):
        raise InputError(f"{source} holds no structures.")
    if constrained:
        result.notes.append(f"constraints of {constrained} structures dropped: all atoms are free")
    for kind, entries in (("crystals", result.crystals), ("molecules", result.molecules)):
        problems = [
            f"{name}: {reason or 'unknown reason'}"
            for name, reason, sample in zip(
                entries.names, entries.reasons, entries.samples, strict=True
            )
            if sample is None
        ]
        if problems:
            result.notes.append(
                f"{len(problems)} of {len(entries)} {kind} cannot be read and count as invalid: "
                + "; ".join(problems[:NAMED])
                + ("; ..." if len(problems) > NAMED else "")
            )
    return result


def _file(entry: Entry, result: StructureSet, homeless: list[tuple[str, str]]) -> None:
    kind, sample, reason = entry.kind, None, entry.reason or None
    if entry.atoms is not None:
        kind = "crystal" if entry.atoms.pbc.any() else "molecule"
        try:
            sample = Sample.from_ase(entry.atoms)
        except ValueError as error:
            reason = str(error)
    if kind is None:
        homeless.append((entry.name, reason or "cannot be read"))
    else:
        home = result.crystals if kind == "crystal" else result.molecules
        home.add(entry.name, sample, reason)


def distinct_names(sets: Iterable[StructureSet]) -> None:
    """Rename sets of one name by their folders, then by numbers, for tables side by side."""
    seen: dict[str, int] = {}
    for each in sets:
        name = (
            each.name if each.name not in seen else f"{each.path.resolve().parent.name}/{each.name}"
        )
        while name in seen:
            seen[each.name] = seen.get(each.name, 1) + 1
            name = f"{each.name} ({seen[each.name]})"
        seen[name] = 1
        each.name = name


def _short_name(path: Path) -> str:
    resolved = path.resolve()
    # MatterGen's and others' files have the same name in every folder.
    if resolved.stem.startswith("generated_"):
        return resolved.parent.name or resolved.name
    return resolved.name
