"""Sample, relax, and stop: when the samples are made, the minutes are over, or at Ctrl-C."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ase import Atoms
from pymatgen.core import Element

from adit_plugins.generation.generator import ADiTGenerator
from adit_plugins.generation.recipe import checked_integer
from adit_plugins.hull.loaders import load_hull
from adit_plugins.outputs import differences
from adit_plugins.prediction.cells import cell_of, fitting_cells, sizes_of
from adit_plugins.prediction.diagram import known_phases
from adit_plugins.prediction.ensemble import CHILDREN, LOWER, PATIENCE, ROUNDS, children
from adit_plugins.prediction.files import remove_search
from adit_plugins.prediction.ranking import Contestant, distinct, ranked
from adit_plugins.prediction.results import About, Predictions, notes_on
from adit_plugins.prediction.store import FORMAT, KNOWN, REFINED, VARIED, Kept, Store, read_search
from adit_plugins.relax import load_relaxer
from adit_plugins.relax.limits import PREDICTION_FMAX, PREDICTION_STEPS, check_limits
from adit_plugins.relax.results import RelaxResult

NUM, KEEP, PREFILTER = 200, 20, "mace-adit"
ROUND, FIRST_ROUND = 200, 10  # samples between two looks at the clock: most, and where it limits
# Fields of a recipe that change how long it takes, not what comes out.
MEANS = ("batch_size", "device", "workers")

Progress = Callable[[str, int, int], None]  # stage, done, total
Known = Sequence[tuple[str, Atoms]]  # reference structures by name


@dataclass
class Search:
    """A search for the structures of a formula, or of a chemical system.

    Args:
        generator: says what is sampled, by its `formula` or `chemical_system`.
        num: samples; None for as many as the minutes allow.
        minutes: after which no other round begins; None for no limit.
        num_atoms: of a cell, several if wanted; None for all that fit. With a formula alone.
        prefilter: relaxes all samples.
        relaxer: relaxes the lowest structures further, and ranks them; None for none.
        keep: how many of them.
        fmax: force limit, eV/angstrom.
        max_steps: of a relaxation.
        reference: known structures by name, relaxed and ranked beside the samples.
        hull: the reference for energies above hull (`adit_plugins.hull.load_hull`).
        folder: where everything goes as it is made; None for nowhere.
        workers: processes that relax; 0 for none, None for one a core.
        ensemble: also vary the lowest structures, again and again, until nothing lower appears.

    Raises:
        ValueError: the request cannot be met; the message says what can.

    Attributes:
        cells: numbers of atoms that are looked in; empty where the prior draws them.
        stopped: why it ended: `"samples"`, `"minutes"`, or `"interrupted"`; of an ensemble
            `"settled"`, or `"rounds"` where lower ones kept coming.
    """

    generator: ADiTGenerator
    num: int | None = NUM
    minutes: float | None = None
    num_atoms: Sequence[int] | None = None
    prefilter: str = PREFILTER
    relaxer: str | None = None
    keep: int = KEEP
    fmax: float = PREDICTION_FMAX
    max_steps: int = PREDICTION_STEPS
    reference: Known = ()
    hull: str = "mp"
    folder: Path | None = None
    workers: int | None = 0
    ensemble: bool = False
    cells: list[int] = field(init=False)
    stopped: str = field(init=False, default="")

    def __post_init__(self) -> None:
        self._check()
        self.cells, self._reach = [], ""
        formula = self.generator.formula
        if formula is not None:
            sizes = sizes_of(self.generator.model)
            self.cells, self._reach = fitting_cells(formula, sizes, self.num_atoms)
            dataclasses.replace(self.generator, num_atoms=self.cells[0]).check()
        elif self.num_atoms is not None:
            raise ValueError("num_atoms belongs to a formula; a chemical system draws its sizes")
        else:
            self.generator.check()
        self._hull = load_hull(self.hull)
        self._check_potentials()
        self._store = Store(self.folder, self._limits(self.prefilter))
        self._varied = Store(self.folder, self._limits(self.prefilter), VARIED)
        self._known_kept, self._refined_kept = Kept(self.folder, KNOWN), Kept(self.folder, REFINED)
        self._known: list[tuple[str, RelaxResult]] = []
        self._refined: list[Contestant] = []

    def _limits(self, relaxer: str) -> dict[str, Any]:
        return {"relaxer": relaxer, "fmax": self.fmax, "max_steps": self.max_steps}

    def _check(self) -> None:
        generator = self.generator
        if generator.kind != "crystal":
            raise ValueError("only crystals are predicted: kind='crystal'")
        if (generator.formula is None) == (generator.chemical_system is None):
            raise ValueError(
                "name a formula, such as LiFePO4, or a chemical system, such as Li-P-O"
            )
        if self.num is None and self.minutes is None:
            raise ValueError("without num or minutes a search has no end; give one of them")
        if self.num is not None:
            self.num = checked_integer("num", self.num, 1)
        self.keep = checked_integer("keep", self.keep, 1)
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise ValueError(f"minutes={self.minutes!r} must be above 0")
        check_limits(self.fmax, self.max_steps, self.workers)

    def _check_potentials(self) -> None:
        """Refuse elements that a potential does not know before anything is sampled."""
        asked = self.generator.composition
        numbers = set(asked.counts()) | asked.required()
        for name in filter(None, (self.prefilter, self.relaxer)):
            known = getattr(load_relaxer(name), "elements", None)
            unknown = [] if known is None else sorted(numbers - set(known))
            if unknown:
                symbols = ", ".join(Element.from_Z(z).symbol for z in unknown)
                option = "prefilter" if name == self.prefilter else "relaxer"
                raise ValueError(
                    f"{name} does not know {symbols}; name another potential: {option}='chgnet' "
                    f"(--{option} chgnet), or a larger one of its own ('mace:FILE')"
                )

    def about(self) -> dict[str, Any]:
        """What decides the samples and their relaxation, for a folder that is resumed."""
        fields = dataclasses.fields(self.generator)
        recipe = {f.name: getattr(self.generator, f.name) for f in fields if f.name not in MEANS}
        return {
            "recipe": {name: value for name, value in recipe.items() if value is not None},
            "weights": self.generator.model.hash,
            "cells": self.cells,
            "relaxations": self._store.limits,
        }

    def begin(self, resume: bool = False) -> None:
        """Open the folder; with `resume`, take up what is in it, else an earlier search goes.

        Raises:
            ValueError: it holds no search, or another one.
            OSError: it cannot be written.
        """
        before = None if self.folder is None else read_search(self.folder)
        if resume and before is not None:
            differ = differences(before, {"format": FORMAT, **self.about()})
            if differ:
                raise ValueError(
                    f"{self.folder} holds another search: {'; '.join(differ)}. Choose another "
                    "folder, or overwrite it."
                )
            for store in (self._store, self._varied, self._known_kept, self._refined_kept):
                store.load()
        elif resume:
            raise ValueError(f"{self.folder} holds no search to resume.")
        else:
            if before is not None and self.folder is not None:
                remove_search(self.folder)
            self._store.begin(self.about())

    def run(self, progress: Progress | None = None) -> None:
        """Sample and relax until the end; after Ctrl-C, what is finished can be ranked.

        Raises:
            RelaxerError: a potential cannot be run.
            ValueError: the model cannot follow the recipe, or no sample could be relaxed.
        """
        report = progress or (lambda *_: None)
        try:
            self._relax_known(report)
            begun = time.monotonic()
            self._sample_and_relax(report)
            if self.ensemble:
                self._vary(begun, report)
            if self.relaxer is not None:
                self._refine(report)
        except KeyboardInterrupt:
            self.stopped = "interrupted"
        results = self._store.results().values()
        if self.stopped == "interrupted":
            return
        if results and all(result.failed for result in results) and not self._known:
            reason = next(iter(results)).reason
            raise ValueError(f"none of the {len(results)} samples could be relaxed: {reason}")

    def _sample_and_relax(self, report: Progress) -> None:
        start, first = time.monotonic(), 0
        step = ROUND if self.minutes is None else FIRST_ROUND
        self.stopped = "samples"
        while self.num is None or first < self.num:
            begun = time.monotonic()
            last = first + step if self.num is None else min(first + step, self.num)
            places = range(first, last)
            new = sum(index not in self._store.frames for index in places)
            for size, indices in self._missing(places).items():
                self._store.add_samples(s.to_ase() for s in self._draw(size, indices))
                report("samples", len(self._store.samples), self.num or last)
            self._store.relax(places, self.workers, lambda n, m: report("relaxed", n, m))
            first, now = last, time.monotonic()
            if self.minutes is None or not new:  # what a resumed search has done tells no pace
                continue
            fitting = (60 * self.minutes - (now - start)) * new / (now - begun)
            if fitting < FIRST_ROUND:
                self.stopped = "minutes"
                break
            # Half of what fits: samples are not equally quick.
            step = min(max(int(fitting / 2), FIRST_ROUND), ROUND)

    def _vary(self, begun: float, report: Progress) -> None:
        """Vary the lowest structures until a few rounds in a row have found nothing lower."""
        end = math.inf if self.minutes is None else begun + 60 * self.minutes
        found, self.stopped, quiet = self._first_pass(), "rounds", 0
        first = len(self._varied.samples) // CHILDREN
        for number in range(first, first + ROUNDS):
            start, before = time.monotonic(), self._lowest(found)
            self._varied.add_samples(children(self.generator, found, number))
            self._varied.relax(
                list(self._varied.samples), self.workers,
                lambda n, m: report("variations relaxed", n, m),
            )  # fmt: skip
            found, now = self._first_pass(), time.monotonic()
            quiet = 0 if self._lowest(found) < before - LOWER else quiet + 1
            if quiet == PATIENCE:
                self.stopped = "settled"
                return
            if 2 * now - start > end:
                self.stopped = "minutes"
                return

    def _lowest(self, found: Sequence[Contestant]) -> float:
        """Energy of the best of a first pass: above the hull for a chemical system, eV/atom."""
        if not found:
            return math.inf
        if self.generator.formula is not None:
            return found[0].energy
        distance = ranked(found[:1], self._hull)[0][0].energy_above_hull
        return math.inf if distance is None else distance

    def _varied_note(self) -> str:
        """What is to be said of an ensemble."""
        num = len(self._varied.frames)
        if not num:
            return ""
        why = {
            "settled": f"{PATIENCE} rounds in a row found nothing lower",
            "rounds": f"after {ROUNDS} rounds, the last of which still found lower ones",
            "minutes": "the minutes were over",
            "interrupted": "interrupted",
        }.get(self.stopped, "")
        return f"{num} variations of the lowest structures were relaxed{why and f'; {why}'}."

    def _missing(self, places: Iterable[int]) -> dict[int, list[int]]:
        """Indices by the number of atoms; 0 where the prior is to draw it."""
        wanted: dict[int, list[int]] = {}
        histogram = self.generator.model.config.size_histogram["crystal"]
        for index in places:
            if index not in self._store.samples:
                size = cell_of(index, self.cells, histogram) if self.cells else 0
                wanted.setdefault(size, []).append(index)
        return wanted

    def _draw(self, size: int, indices: Sequence[int]) -> list[Any]:
        generator = dataclasses.replace(self.generator, num_atoms=size or None)
        name, seed = generator.model.name, generator.seed
        return generator.sample_ids([f"{name}/{seed}/{index}" for index in indices])

    def _relax_known(self, report: Progress) -> None:
        """Relax the structures that compete with the samples."""
        self._known = []

        def keep(place: int, result: RelaxResult) -> None:
            self._known.append((self.reference[place][0], result))
            report("known structures relaxed", len(self._known), len(self.reference))

        structures = [atoms for _, atoms in self.reference]
        self._known_kept.relax(structures, self._limits(self.prefilter), self.workers, keep)

    def _refine(self, report: Progress) -> None:
        """Relax the lowest by the second potential."""
        assert self.relaxer is not None
        lowest = self._first_pass()[: self.keep]
        self._refined = []
        done = 0

        def keep(place: int, result: RelaxResult) -> None:
            nonlocal done
            done += 1
            if not result.failed:
                each = lowest[place]
                self._refined.append(dataclasses.replace(each, result=result, refined=True))
            report(f"by {self.relaxer}", done, len(lowest))

        structures = [each.result.atoms for each in lowest]
        self._refined_kept.relax(structures, self._limits(self.relaxer), self.workers, keep)

    def _first_pass(self) -> list[Contestant]:
        """Distinct structures by the first potential, the nearest to the hull first."""
        made = [Contestant(result, sample_ids=(_id(result),)) for result in self._store.successes()]
        made += [
            Contestant(result, variation_ids=(_id(result),)) for result in self._varied.successes()
        ]
        made += [Contestant(r, known_as=(name,)) for name, r in self._known if not r.failed]
        found = distinct(made)
        if self.generator.formula is not None:
            return found
        by_name = {each.names: each for each in found}
        return [by_name[p.names] for p in ranked(found, self._hull)[0]]

    def predictions(self) -> Predictions:
        """Return what was found so far, ranked, with what is to be said of it."""
        seen = {name for each in self._refined for name in each.names}
        first = self._first_pass()
        rest = [each for each in first if not seen & {*each.names}]
        made, problems = ranked([*distinct(self._refined), *rest], self._hull, first)
        results = self._store.results()
        failed = [result.reason for result in results.values() if result.failed]
        notes = notes_on(made, self._hull, self.generator, failed)
        lost = [f"{name} could not be relaxed: {r.reason}" for name, r in self._known if r.failed]
        is_system = self.generator.formula is None
        about = About(
            request=self.generator.formula or str(self.generator.chemical_system),
            num_samples=len(self._store.samples),
            num_relaxed=len(results) - len(failed),
            stopped=self.stopped,
            notes=[*filter(None, [self._reach, self._varied_note()]), *notes, *lost, *problems],
            failures=failed,
            hull=self._hull.source,
            num_variations=len(self._varied.frames),
            known_phases=known_phases(made, self._hull) if is_system else None,
        )
        return Predictions(made, about)


def _id(result: RelaxResult) -> str:
    return str(result.atoms.info["adit"]["id"])
