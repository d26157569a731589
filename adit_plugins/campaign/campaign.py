"""The driver: structures stream in, chunks go to workers, and what they find goes into the store.

Screening keeps the order of the source, since the first of several equal structures is the one
that counts. Relaxations wait in the store and go first, so whatever the source, only a few chunks
are in memory; a driver that is started again goes on where the store ends.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ase import Atoms

from adit_plugins import __version__, registry
from adit_plugins.campaign import records
from adit_plugins.campaign.duplicates import Duplicates
from adit_plugins.campaign.executors import ProcessesExecutor, make_executor
from adit_plugins.campaign.jobs import Job, Jobs, Killer
from adit_plugins.campaign.settings import PREFILTER, RELAX, Resources, Settings
from adit_plugins.campaign.sources import (
    Entry,
    Source,
    entries_after,
    shard_ranges,
    source_of,
)
from adit_plugins.campaign.store import Row, Store
from adit_plugins.campaign.work import Screened, prefilter_and_place, relax_and_place, screen
from adit_plugins.workers import one_thread_a_child

Report = Callable[[str, int, int], None]  # stage, done, total

SCREEN = "screen"
SCREENED, PREFILTERED, RELAXED = "structures checked", "crystals pre-filtered", "crystals relaxed"
START_SECONDS = 120.0  # on top of a chunk's limit, for the potential that its worker loads


def no_report(stage: str, done: int, total: int) -> None:
    """Nobody watches."""


def _check_potentials(settings: Settings, named: Collection[str]) -> None:
    """Let no file decide which code is run: installed potentials only, or what the user names."""
    own = {"relaxer": settings.relaxer, "prefilter": settings.prefilter}
    for name, potential in own.items():
        if potential is not None and potential not in named and not _is_installed(potential):
            raise ValueError(
                f"This campaign's {name} is {potential!r}, which may run any code that is there. "
                f"If it is yours, name it once more: --{name} {potential}"
            )
    if others := set(named) - set(own.values()):
        used = ", ".join(filter(None, own.values())) or "none"
        raise ValueError(f"This campaign was begun with {used}, not with {', '.join(others)}.")


def _is_installed(potential: str) -> bool:
    """Whether it is `NAME` or `NAME:MODEL` of an installed package, and names no file here."""
    name, _, model = potential.partition(":")
    if not model:
        return True
    plain = re.fullmatch(r"[A-Za-z0-9.-]+", model) and not Path(model).exists()
    return bool(plain) and name in registry.names("adit.relaxers")


@dataclass
class Block:
    """Structures taken from the source together, and what is known of them by now."""

    entries: list[Entry]
    screened: dict[int, Screened | Killer] = field(default_factory=dict)


class Campaign:
    """A campaign in a folder; `run` goes on until everything has its verdict.

    Example:
        >>> from adit_plugins.campaign import Campaign, Settings
        >>> from adit_plugins.campaign import StructuresSource
        >>> from ase.build import bulk
        >>> import tempfile
        >>> from pathlib import Path
        >>> salts = [bulk("NaCl", "rocksalt", a=5.7), bulk("KCl", "rocksalt", a=6.4)]
        >>> source = StructuresSource(lambda start: salts[start:], total=2)
        >>> folder = Path(tempfile.mkdtemp())
        >>> with Campaign.create(folder, source, Settings(relaxer=None)) as campaign:
        ...     campaign.run()
        ...     len(campaign.store)
        2
    """

    def __init__(self, store: Store, source: Source, resources: Resources) -> None:
        self.store, self.source, self.resources = store, source, resources
        self.settings = Settings(**store.metadata["settings"])
        self.shard: tuple[int, int] = tuple(store.metadata["shard"])
        self.ranges = shard_ranges(source.parts, self.shard)
        self.total = sum(map(len, self.ranges))
        self.interrupted = False
        self.seconds = 0.0
        self.start_seconds = START_SECONDS * (1 if self.settings.prefilter is None else 2)

    @classmethod
    def create(
        cls,
        folder: Path,
        source: Source,
        settings: Settings | None = None,
        resources: Resources | None = None,
        shard: tuple[int, int] = (0, 1),
    ) -> Campaign:
        """Begin a campaign in an existing folder.

        Raises:
            StoreError: the folder holds one already, or cannot be written.
            ValueError: there is no such shard.
        """
        total = sum(map(len, shard_ranges(source.parts, shard)))
        metadata = {
            "total": total,
            "recipe": source.recipe,
            "settings": asdict(settings or Settings()),
            "shard": list(shard),
            "adit_plugins": __version__,
        }
        return cls(Store.create(folder, metadata), source, resources or Resources())

    @classmethod
    def open(
        cls,
        folder: Path,
        source: Source | None = None,
        resources: Resources | None = None,
        potentials: Collection[str] = (),
    ) -> Campaign:
        """Take up a campaign where it ended, by whatever it was ended.

        Args:
            folder: with a store.
            source: None to make it again from the recipe in the store.
            resources: may be others than before.
            potentials: those of the campaign that name a module or a file, once more: they may
                run any code, so that the store names them is not enough.

        Raises:
            StoreError: see `Store`.
            ValueError: the source is not what it was, or a potential is not named.
        """
        store = Store(folder)
        try:
            _check_potentials(Settings(**store.metadata["settings"]), potentials)
            source = source or source_of(store.metadata["recipe"])
            if source.recipe != store.metadata["recipe"]:
                raise ValueError(f"{folder} was made from another source: {source.recipe}.")
            return cls(store, source, resources or Resources())
        except BaseException:
            store.close()
            raise

    def __enter__(self) -> Campaign:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    @property
    def folder(self) -> Path:
        """Where the store is."""
        return self.store.folder

    def run(self, report: Report = no_report) -> None:
        """Work until everything has its verdict; Ctrl-C sets `interrupted` and keeps the rest.

        Raises:
            RelaxerError: the potential cannot be loaded, or no worker can start.
            StoreError: the store cannot be written any more; what it holds is whole.
            ValueError: the model cannot follow the recipe.
        """
        start = time.monotonic()
        self.interrupted = False
        self.store.release_claims()
        try:
            with self._jobs() as jobs:
                _Run(self, jobs, report).work()
        except KeyboardInterrupt:
            self.interrupted = True
            self.store.release_claims()
        finally:
            self.seconds += time.monotonic() - start

    @contextmanager
    def _jobs(self) -> Iterator[Jobs]:
        """An executor that is gone at the end, whatever it was doing."""
        means = self.resources
        limit = means.time_limit * means.chunk_size + self.start_seconds
        executor = make_executor(means.executor, means.workers, limit)
        try:
            with one_thread_a_child():
                yield Jobs(executor)
        finally:
            executor.shutdown(wait=isinstance(executor, ProcessesExecutor), cancel_futures=True)


class _Run:
    """One run of the driver."""

    def __init__(self, campaign: Campaign, jobs: Jobs, report: Report) -> None:
        self.campaign, self.jobs, self.report = campaign, jobs, report
        self.store, self.settings = campaign.store, campaign.settings
        self.resources = campaign.resources
        self.duplicates = Duplicates(self.store)
        self.blocks: deque[Block] = deque()
        last = self.store.largest("number")
        self.entries = entries_after(
            campaign.source, campaign.ranges, None if last is None else int(last)
        )
        self.checked = len(self.store)
        waiting = {stage: self.store.count("stage", stage) for stage in (PREFILTER, RELAX)}
        done = self.store.count("relaxed", 1.0) + self.store.count("relaxed", 0.0)
        self.relaxed = [done, done + sum(waiting.values())]
        judged = self.store.count("prefiltered", 1.0) + self.store.count("prefiltered", 0.0)
        self.prefiltered = [judged, judged + waiting[PREFILTER]]
        # Enough for every worker to find its next chunk ready.
        workers = self.resources.workers
        self.window = 2 * (workers if workers else _num_workers(jobs))

    def work(self) -> None:
        """Fill the executor, take what is finished, until there is nothing left."""
        self.report(SCREENED, self.checked, self.campaign.total)
        while self._fill() or len(self.jobs):
            for job, results in self.jobs.finished():
                if job.name == SCREEN:
                    self._keep_screened(job, results)
                else:
                    self._keep_relaxed(job, results)

    def _fill(self) -> bool:
        """Submit jobs until the window is full; return whether there was anything to do.

        What waits in the store goes before what the source still has, and the first of all before
        the rest: so the store and the memory hold little that is unfinished.
        """
        found = False
        while len(self.jobs) < self.window:
            if self._submit_relaxation(RELAX) or self._submit_relaxation(PREFILTER):
                found = True
            elif not self._take_block():
                return found
            else:
                found = True
        return found

    def _submit_relaxation(self, stage: str) -> bool:
        function = self._function(stage)
        if function is None:
            return False
        claimed = self.store.claim(stage, self.resources.chunk_size)
        if not claimed:
            return False
        self.jobs.submit(Job(stage, function, [atoms for _, atoms in claimed], claimed))
        return True

    def _function(self, stage: str) -> Callable[[Sequence[Atoms]], list[Any]] | None:
        """Return what a worker does with the structures of a stage; None if there is none."""
        s = self.settings
        if s.relaxer is None:
            return None
        if stage == RELAX:
            return partial(relax_and_place, s.relaxer, s.fmax, s.max_steps)
        if s.prefilter is None:
            return None
        return partial(
            prefilter_and_place,
            s.prefilter,
            s.relaxer,
            s.fmax,
            s.prefilter_steps,
            s.prefilter_limit,
        )

    def _take_block(self) -> bool:
        """Take structures from the source; False if there are no more."""
        entries = list(islice(self.entries, self.resources.block_size))
        if not entries:
            return False
        block = Block(entries)
        self.blocks.append(block)
        crystals = [e for e in entries if e.sample is not None and e.kind == "crystal"]
        size = -(-self.resources.block_size // 2)  # halves: so two workers share a block
        for start in range(0, len(crystals), size):
            part = crystals[start : start + size]
            keys = [(block, entry) for entry in part]
            self.jobs.submit(Job(SCREEN, screen, [entry.sample for entry in part], keys))
        self._commit_blocks()
        return True

    def _keep_screened(self, job: Job, results: list[Any]) -> None:
        for (block, entry), result in zip(job.keys, results, strict=True):
            block.screened[entry.number] = result
        self._commit_blocks()

    def _commit_blocks(self) -> None:
        """Write the blocks that are complete, in the order of the source."""
        while self.blocks and self._is_complete(self.blocks[0]):
            block = self.blocks.popleft()
            rows = self._rows(block)
            self.store.add(rows)
            self.duplicates.committed()
            self.checked += len(rows)
            self.report(SCREENED, self.checked, self.campaign.total)
            stages = [row.columns["stage"] for row in rows]
            self.prefiltered[1] += stages.count(PREFILTER)
            self.relaxed[1] += stages.count(PREFILTER) + stages.count(RELAX)
            self._report_relaxed()

    def _is_complete(self, block: Block) -> bool:
        crystals = sum(e.sample is not None and e.kind == "crystal" for e in block.entries)
        return len(block.screened) == crystals

    def _rows(self, block: Block) -> list[Row]:
        readable = [e for e in block.entries if e.sample is not None]
        molecules = self._molecule_rows([e for e in readable if e.kind == "molecule"])
        rows = []
        for entry in block.entries:
            if entry.sample is None:
                rows.append(records.unreadable_row(entry))
            elif entry.kind == "molecule":
                rows.append(molecules[entry.number])
            else:
                rows.append(self._crystal_row(entry, block.screened[entry.number]))
        return rows

    def _crystal_row(self, entry: Entry, screened: Screened | Killer) -> Row:
        duplicate_of = None
        if isinstance(screened, Screened) and screened.structure_valid:
            name = records.name_of(entry)
            duplicate_of = self.duplicates.crystal(name, screened.composition, screened.reduced)
        return records.crystal_row(entry, screened, duplicate_of, self.settings)

    def _molecule_rows(self, entries: list[Entry]) -> dict[int, Row]:
        """Molecules are checked by processes of their own, each with its time limit."""
        from adit_plugins.fingerprints import Fingerprints
        from adit_plugins.molecules import check_molecules, is_known

        if not entries:
            return {}
        known = Fingerprints.load("molecule")
        samples = [entry.sample for entry in entries if entry.sample is not None]
        rows = {}
        for entry, report in zip(
            entries, check_molecules(samples, workers=self.resources.workers or None), strict=True
        ):
            first = novel = None
            if report.smiles:
                first = self.duplicates.molecule(records.name_of(entry), report.smiles)
                novel = first is None and not is_known(report.smiles, known)
            rows[entry.number] = records.molecule_row(entry, report, first, novel)
        return rows

    def _keep_relaxed(self, job: Job, results: list[Any]) -> None:
        changes = {
            row_id: records.relaxed_row(job.name, atoms, answer, self.settings)
            for (row_id, atoms), answer in zip(job.keys, results, strict=True)
        }
        self.store.update(changes)
        if job.name == PREFILTER:
            left = sum(row.columns["stage"] != RELAX for row in changes.values())
            self.prefiltered[0] += len(changes)
            self.relaxed[1] -= left
        else:
            self.relaxed[0] += len(changes)
        self._report_relaxed()

    def _report_relaxed(self) -> None:
        if self.prefiltered[1]:
            self.report(PREFILTERED, *self.prefiltered)
        if self.relaxed[1]:
            self.report(RELAXED, *self.relaxed)


def _num_workers(jobs: Jobs) -> int:
    from adit_plugins.workers import available_cores

    return getattr(jobs.executor, "num_workers", None) or available_cores()
