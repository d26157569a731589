"""Where structures come from, as numbered streams that can be taken up at any number."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from adit_plugins.generation.saved import generator_of
from adit_plugins.structures.samples import Convertible, Sample, to_sample

if TYPE_CHECKING:
    from adit_plugins.generation.generator import ADiTGenerator


NAMED = 20  # entries without a structure


@dataclass(frozen=True)
class Arrival:
    """A structure with its number, or the reason why there is none.

    Attributes:
        number: its place in the source, from 0.
        name: its id where it brings none along.
        sample: None if it cannot be read.
        problem: why not.
        expected: the kind that it counts as where it cannot be read.
        origin: where it stands in the file or folder it comes from.
    """

    number: int
    name: str
    sample: Sample | None
    problem: str = ""
    expected: str = "crystal"
    origin: str = ""

    @property
    def kind(self) -> str:
        """`"crystal"` or `"molecule"`; of what cannot be read, the kind that it would have been."""
        return self.expected if self.sample is None else self.sample.kind


class Source(Protocol):
    """A stream of structures.

    Attributes:
        recipe: plain JSON, from which `source_of` makes it again; kept in the store.
        parts: ranges of numbers; shards take their share of each.
    """

    recipe: dict[str, Any]
    parts: list[range]

    def entries(self, start: int, stop: int) -> Iterator[Arrival]:
        """Yield the structures `start` to `stop - 1`, within one part."""
        ...


class GeneratorSource:
    """Fresh samples: `num` of each generator, one after the other."""

    def __init__(self, generators: Sequence[ADiTGenerator], num: int) -> None:
        self.generators, self.num = list(generators), num
        self.parts = [range(k * num, (k + 1) * num) for k in range(len(self.generators))]
        self.recipe = {
            "generators": [generator.as_dict() for generator in self.generators],
            "checkpoint_hash": self.generators[0].model.hash,
            "num": num,
        }

    def entries(self, start: int, stop: int) -> Iterator[Arrival]:
        """See `Source`."""
        part, index = divmod(start, self.num)
        samples = self.generators[part].stream(stop - start, start=index)
        for number, sample in enumerate(samples, start):
            yield Arrival(number, sample.id, sample)


class FileSource:
    """The structures of a file or folder of any generator; damaged ones count as invalid.

    Raises:
        InputError: there is none, or nothing of it can be read.
    """

    def __init__(self, path: Path, num: int | None = None, digest: str | None = None) -> None:
        from adit_plugins.structures.entries import InputError
        from adit_plugins.structures.reading import iter_entries

        self.path = path
        entries = islice(iter_entries(path), num)
        kinds: Counter[str] = Counter()  # of what can be read
        total, problem = 0, "it holds no structures"
        self.num_unreadable, self.unreadable = 0, list[str]()  # the first of them, with reasons
        self.num_constrained = 0  # structures whose constraints have no say here
        for entry in entries:  # once through, so that progress and shards know the end
            total += 1
            self.num_constrained += entry.atoms is not None and bool(entry.atoms.constraints)
            problem = entry.reason or problem
            if entry.atoms is None:
                self.num_unreadable += 1
                if len(self.unreadable) < NAMED:
                    self.unreadable.append(f"{entry.name}: {entry.reason}")
            if entry.atoms is not None:
                kinds["crystal" if entry.atoms.pbc.any() else "molecule"] += 1
        if not kinds:
            raise InputError(f"Cannot read {path}: {problem}.")
        self.parts, self.kinds = [range(total)], kinds
        # What cannot be read and is of no kind by its format counts as most others do.
        self._usual = "molecule" if kinds["molecule"] > kinds["crystal"] else "crystal"
        found = _digest(path)
        if digest is not None and found != digest:
            raise InputError(
                f"{path} is not the file that this campaign began with. Put that one back, or "
                "begin another campaign with another --out."
            )
        self.recipe = {"file": str(path.resolve()), "num": num, "sha256": found}

    def entries(self, start: int, stop: int) -> Iterator[Arrival]:
        """See `Source`."""
        from adit_plugins.structures.reading import iter_entries

        entries = iter_entries(self.path, notes=[])  # they were said when it was counted
        for number, entry in enumerate(islice(entries, start, stop), start):
            name = entry.id or f"{self.path.name}/{number}"
            if entry.atoms is None:
                kind = entry.kind or self._usual
                yield Arrival(number, name, None, entry.reason, kind, entry.name)
            else:
                kind = "crystal" if entry.atoms.pbc.any() else "molecule"
                yield _entry(number, name, entry.atoms, kind, entry.name)


class StructuresSource:
    """Structures from Python: `make(start)` gives those from `start` on.

    A campaign over them is continued with the same source given again.
    """

    def __init__(self, make: Callable[[int], Iterable[Convertible]], total: int) -> None:
        self._make = make
        self.parts = [range(total)]
        self.recipe: dict[str, Any] = {"structures": total}

    def entries(self, start: int, stop: int) -> Iterator[Arrival]:
        """See `Source`."""
        for number, structure in enumerate(islice(self._make(start), stop - start), start):
            yield _entry(number, f"structure/{number}", structure)


def _entry(
    number: int,
    name: str,
    structure: Convertible,
    expected: str = "crystal",
    origin: str = "",
) -> Arrival:
    try:
        return Arrival(number, name, to_sample(structure), origin=origin)
    except (TypeError, ValueError) as error:
        return Arrival(number, name, None, str(error), expected, origin)


def source_of(recipe: dict[str, Any]) -> Source:
    """Make a source again from its recipe.

    Raises:
        ValueError: the file or the weights are not those of the recipe any more.
    """
    if "file" in recipe:
        return FileSource(Path(recipe["file"]), recipe["num"], recipe["sha256"])
    if "generators" not in recipe:
        raise ValueError("This campaign was made in Python; continue it there, with its source.")
    from adit_plugins.generation.generator import ADiTGenerator

    generators = [generator_of(ADiTGenerator, each) for each in recipe["generators"]]
    source = GeneratorSource(generators, recipe["num"])
    if source.recipe["checkpoint_hash"] != recipe["checkpoint_hash"]:
        raise ValueError(
            f"The checkpoint {generators[0].model.name!r} has other weights "
            f"({source.recipe['checkpoint_hash']}) than this campaign began with "
            f"({recipe['checkpoint_hash']}). Put those back, or begin with another --out."
        )
    return source


def shard_ranges(parts: Sequence[range], shard: tuple[int, int]) -> list[range]:
    """Return the contiguous share of each part that belongs to shard `i` of `n`.

    Raises:
        ValueError: there is no such shard.
    """
    i, n = shard
    if not 0 <= i < n:
        raise ValueError(f"No shard {i} of {n}: they count from 0 to {n - 1}.")
    return [part[len(part) * i // n : len(part) * (i + 1) // n] for part in parts]


def entries_after(source: Source, ranges: Sequence[range], last: int | None) -> Iterator[Arrival]:
    """Yield what comes after the number `last` (None: everything)."""
    for part in ranges:
        start = part.start if last is None else max(part.start, last + 1)
        if start < part.stop:
            yield from source.entries(start, part.stop)


def blocks_after(ranges: Sequence[range], last: int | None, size: int) -> Iterator[range]:
    """Yield the numbers after `last` in blocks of one part each."""
    for part in ranges:
        first = part.start if last is None else max(part.start, last + 1)
        for start in range(first, part.stop, size):
            yield range(start, min(start + size, part.stop))


def _digest(path: Path) -> str:
    """Hash a file's content, or the names and sizes of a folder's files."""
    if path.is_dir():
        names = sorted(
            f"{each.relative_to(path).as_posix()}:{each.stat().st_size}"
            for each in path.rglob("*")
            if each.is_file()
        )
        return hashlib.sha256("\n".join(names).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
