"""A campaign in a folder: begin it, take it up again, run it to its end."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from adit_plugins import __version__
from adit_plugins.campaign.driver import Driver, Report, no_report
from adit_plugins.campaign.executors import make_executor
from adit_plugins.campaign.jobs import Jobs
from adit_plugins.campaign.settings import Resources, Settings
from adit_plugins.campaign.sources import Source, shard_ranges, source_of
from adit_plugins.campaign.store import Store
from adit_plugins.processes import ProcessesExecutor

log = logging.getLogger(__name__)


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
        cls, folder: Path, source: Source | None = None, resources: Resources | None = None
    ) -> Campaign:
        """Take up a campaign where it ended, by whatever it was ended.

        Args:
            folder: with a store.
            source: None to make it again from the recipe in the store.
            resources: may be others than before.

        Raises:
            StoreError: see `Store`.
            ValueError: the source is not what it was.
        """
        store = Store(folder)
        try:
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

    @property
    def finished(self) -> bool:
        """Whether every structure has its verdict."""
        return len(self.store) == self.total and not self.store.num_waiting()

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
                Driver(
                    self.store,
                    self.source,
                    self.ranges,
                    self.settings,
                    self.resources,
                    jobs,
                    report,
                ).work()
        except KeyboardInterrupt:
            log.info("interrupted with %d of %d structures checked", len(self.store), self.total)
            self.interrupted = True
            self.store.release_claims()
        finally:
            self.seconds += time.monotonic() - start

    @contextmanager
    def _jobs(self) -> Iterator[Jobs]:
        """An executor that is gone at the end, whatever it was doing."""
        means = self.resources
        executor = make_executor(means.executor, means.workers, means.time_limit)
        try:
            yield Jobs(executor)
        finally:
            executor.shutdown(wait=isinstance(executor, ProcessesExecutor), cancel_futures=True)
