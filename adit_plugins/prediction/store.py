"""What a search has made so far, in memory and, where it has a folder, on the disk at once.

`samples.extxyz` holds the samples, `relaxed.extxyz` a frame for each as `adit relax` writes it,
`search.json` what they were made with: from these a search goes on after Ctrl-C or a crash. What is
relaxed beside the samples, the known structures and the lowest by a second potential, is `Kept`.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io.extxyz import write_extxyz

from adit_model.outputs import replacing
from adit_plugins.outputs import without_nan
from adit_plugins.relax import relax
from adit_plugins.relax.files import (
    append_durably,
    append_frame,
    frame,
    read_frames,
    record_in,
    result_of,
    write_frames,
)
from adit_plugins.relax.results import RelaxResult
from adit_plugins.structures.provenance import provenance_in
from adit_plugins.structures.reading import iter_entries

SEARCH, SAMPLES, RELAXED = "search.json", "samples.extxyz", "relaxed.extxyz"
VARIED = "varied-"  # before the names of the files of variations
KNOWN, REFINED = "known.extxyz", "refined.extxyz"  # of `Kept`
FORMAT = "adit predict"  # marks a folder as ours

Told = Callable[[int, int], None]


class Store:
    """Samples and relaxed structures by the index of the sample.

    Attributes:
        samples: as generated.
        frames: relaxed, with the record of `adit relax`.
        limits: of the relaxations: relaxer, fmax, max_steps.
    """

    def __init__(self, folder: Path | None, limits: Mapping[str, Any], prefix: str = "") -> None:
        """Begin empty; `load` takes up what a folder holds.

        Args:
            folder: of the search; None for nowhere.
            limits: of the relaxations.
            prefix: of the names of the files.
        """
        self.folder, self.limits = folder, dict(limits)
        self._samples, self._relaxed = f"{prefix}{SAMPLES}", f"{prefix}{RELAXED}"
        self.samples: dict[int, Atoms] = {}
        self.frames: dict[int, Atoms] = {}

    def begin(self, about: Mapping[str, Any]) -> None:
        """Name the search in its folder, which is made if it has to be.

        Raises:
            OSError: the folder cannot be written.
        """
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.folder / SEARCH) as temporary:
            content = without_nan({"format": FORMAT, **about})
            temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")

    def load(self) -> None:
        """Take up what an earlier run has finished; what a crash left of a frame is dropped.

        Raises:
            ResumeError: the relaxed structures are those of another search.
        """
        if self.folder is None:
            return
        samples, relaxed = self.folder / self._samples, self.folder / self._relaxed
        if samples.exists():
            for entry in iter_entries(samples):
                told = {} if entry.atoms is None else provenance_in(entry.atoms.info)
                if entry.atoms is not None and "index" in told:
                    self.samples[int(told["index"])] = entry.atoms
            with replacing(samples) as temporary:
                temporary.write_text(_text(self.samples.values()), encoding="utf-8")
        if relaxed.exists() and self.samples:
            inputs = [self.samples.get(i) for i in range(max(self.samples) + 1)]
            self.frames = read_frames(relaxed, inputs, self.limits)
            write_frames(self.frames, relaxed)

    def add_samples(self, made: Iterable[Atoms]) -> None:
        """Take samples with their provenance."""
        new = {int(provenance_in(atoms.info)["index"]): atoms for atoms in made}
        if self.folder is not None:
            append_durably(self.folder / self._samples, _text(new.values()))
        self.samples |= new

    def relax(self, indices: Iterable[int], workers: int | None, told: Told) -> None:
        """Relax the samples that have not been; each is on the disk as soon as it is finished.

        Raises:
            RelaxerError: the potential cannot be loaded, or no process can start.
        """
        missing = [index for index in indices if index not in self.frames]

        def keep(place: int, result: RelaxResult) -> None:
            index = missing[place]
            self.frames[index] = frame(index, result, self.limits)
            if self.folder is not None:
                append_frame(self.frames[index], self.folder / self._relaxed)
            told(len(self.frames), len(self.samples))

        if missing:
            structures = [self.samples[index] for index in missing]
            relax(structures, **self.limits, workers=workers, on_result=keep)

    def results(self) -> dict[int, RelaxResult]:
        """Return the results by index, failures included."""
        return {index: result_of(atoms) for index, atoms in sorted(self.frames.items())}

    def successes(self) -> list[RelaxResult]:
        """Return those with an energy."""
        return [result for result in self.results().values() if not result.failed]


class Kept:
    """Relaxed structures by where they began and how: what is asked for again is there.

    So an interrupted run goes on whatever the order, the number or the choice of the structures,
    and those of another potential stay.
    """

    def __init__(self, folder: Path | None, name: str) -> None:
        """Begin empty; `load` takes up what the file holds.

        Args:
            folder: of the search; None for nowhere.
            name: of the file.
        """
        self.path = None if folder is None else folder / name
        self._frames: dict[str, Atoms] = {}

    def load(self) -> None:
        """Take up what an earlier run has finished; what a crash left of a frame is dropped."""
        if self.path is None or not self.path.exists():
            return
        for entry in iter_entries(self.path):
            record = {} if entry.atoms is None else record_in(entry.atoms)
            if entry.atoms is not None and "settings" in record:
                self._frames[_key(record["settings"])] = entry.atoms
        write_frames(dict(enumerate(self._frames.values())), self.path)

    def relax(
        self,
        structures: Sequence[Atoms],
        limits: Mapping[str, Any],
        workers: int | None,
        keep: Callable[[int, RelaxResult], None],
    ) -> None:
        """Relax those that have not been; each is on the disk as soon as it is finished.

        Args:
            structures: where to begin.
            limits: relaxer, fmax, max_steps.
            workers: as for `adit_plugins.relax`.
            keep: called with the place and the result of each structure, in any order.

        Raises:
            RelaxerError: the potential cannot be loaded, or no process can start.
        """
        settings = [{**limits, "start": _digest(atoms)} for atoms in structures]
        missing: list[int] = []
        for place, each in enumerate(settings):
            if (known := self._frames.get(_key(each))) is None:
                missing.append(place)
            else:
                keep(place, result_of(known))

        def add(index: int, result: RelaxResult) -> None:
            place = missing[index]
            made = frame(len(self._frames), result, settings[place])
            self._frames[_key(settings[place])] = made
            if self.path is not None:
                append_frame(made, self.path)
            keep(place, result_of(made))

        if missing:
            chosen = [structures[place] for place in missing]
            relax(chosen, **limits, workers=workers, on_result=add)


def _digest(atoms: Atoms) -> str:
    """Of a structure to the decimals that its file has, so that it is the same read from there."""
    numbers = [*atoms.cell.array.ravel(), *atoms.positions.ravel()]
    text = f"{atoms.symbols} {' '.join(f'{number:.8f}' for number in numbers)}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _key(settings: Mapping[str, Any]) -> str:
    return json.dumps(dict(settings), sort_keys=True)


def read_search(folder: Path) -> dict[str, Any] | None:
    """Return what a folder of a search says of itself; None where it is none."""
    try:
        content = json.loads((folder / SEARCH).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(content, dict) and content.get("format") == FORMAT
    return content if ours else None


def _text(structures: Iterable[Atoms]) -> str:
    buffer = io.StringIO()
    for atoms in structures:
        write_extxyz(buffer, [atoms])
    return buffer.getvalue()
