"""A campaign in a folder: begin it, take it up again, run it to its end."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from adit_plugins import registry
from adit_plugins._version import __version__
from adit_plugins.campaign.confirm import confirm_candidates
from adit_plugins.campaign.driver import Driver, Report, no_report
from adit_plugins.campaign.duplicates import mark_relaxed_duplicates
from adit_plugins.campaign.executors import make_executor
from adit_plugins.campaign.jobs import Jobs
from adit_plugins.campaign.settings import (
    ALL,
    FOUND,
    INTERRUPTED,
    MINUTES,
    UNFINISHED,
    Resources,
    Settings,
)
from adit_plugins.campaign.sources import Source, shard_ranges, source_of
from adit_plugins.campaign.store import Store
from adit_plugins.datasets.download import digest
from adit_plugins.hull import loaders
from adit_plugins.processes import ProcessesExecutor

log = logging.getLogger(__name__)


def _check_potentials(settings: Settings, named: Collection[str]) -> None:
    """Let no file decide which code is run: installed potentials only, or what the user names."""
    names = ("relaxer", "prefilter", "confirm")
    own: dict[str, str | None] = {name: getattr(settings, name) for name in names}
    for name, potential in own.items():
        if potential is not None and potential not in named and not _is_installed(potential):
            raise ValueError(
                f"This campaign's {name} is {potential!r}, which may run any code that is there. "
                f"If it is yours, name it once more: --{name} {potential}"
            )
    if others := set(named) - set(own.values()):
        used = ", ".join(filter(None, own.values())) or "none"
        raise ValueError(f"This campaign was begun with {used}, not with {', '.join(others)}.")


def settled(settings: Settings) -> Settings:
    """Return settings whose hull is one that can be read, and is found from any folder.

    Raises:
        UnknownPluginError: there is none of that name.
        MissingExtraError: its package is not installed.
        ValueError: it cannot be read, or its name holds a key that nobody else should see.
    """
    hull = loaders.with_absolute_path(settings.hull)
    if hull.startswith("mp-api:"):
        raise ValueError(
            "A campaign writes its settings into its files: keep the key in MP_API_KEY, and name "
            "the hull mp-api."
        )
    if hull != loaders.DEFAULT and settings.relaxer is not None:
        loaders.kept_hull(hull)
    return replace(settings, hull=hull)


def _digest_of(hull: str) -> str | None:
    file = loaders.file_of(hull)
    return None if file is None else digest(file)


def _check_hull(settings: Settings, known: str | None, named: str | None) -> None:
    """Require the reference that the campaign began with, and let no store decide what is run."""
    own = settings.hull
    if named is not None and loaders.with_absolute_path(named) != own:
        raise ValueError(
            f"This campaign was begun with the hull {own!r}, not with {named!r}. Leave --hull out, "
            "or begin another campaign with another --out."
        )
    if named is None and not loaders.reads_only_data(own):
        raise ValueError(
            f"This campaign's hull is {own!r}, which may run any code that is there. If it is "
            f"yours, name it once more: --hull {own}"
        )
    settled(settings)
    if _digest_of(own) != known:
        raise ValueError(
            f"{loaders.file_of(own)} is not the file by which this campaign's crystals were "
            "ranked. Put that one back, or begin another campaign with another --out."
        )


def _is_installed(potential: str) -> bool:
    """Whether it is `NAME` or `NAME:MODEL` of an installed package, and names no file here."""
    name, _, model = potential.partition(":")
    if not model:
        return True
    plain = re.fullmatch(r"[A-Za-z0-9.-]+", model) and not Path(model).exists()
    return bool(plain) and name in registry.names("adit.relaxers")


class Campaign:
    """A campaign in a folder; `run` goes on until everything has its verdict.

    Examples:
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
        self.ended = UNFINISHED
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
            ValueError: there is no such shard, or the hull cannot be read.
            UnknownPluginError: there is no such hull.
            MissingExtraError: the hull's package is not installed.
        """
        total = sum(map(len, shard_ranges(source.parts, shard)))
        settings = settled(settings or Settings())
        metadata = {
            "total": total,
            "recipe": source.recipe,
            "settings": asdict(settings),
            "hull_sha256": _digest_of(settings.hull),
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
        confirm: Mapping[str, Any] | None = None,
        hull: str | None = None,
    ) -> Campaign:
        """Take up a campaign where it ended, by whatever it was ended.

        Args:
            folder: with a store.
            source: None to make it again from the recipe in the store.
            resources: may be others than before.
            potentials: those of the campaign that name a module or a file, once more: they may
                run any code, so that the store names them is not enough.
            confirm: settings of the second opinion (`confirm`, `confirm_steps`, `confirm_limit`) in
                the place of the campaign's own; they change no other verdict.
            hull: that of the campaign, once more, where reading it may run code (a pickle).

        Raises:
            StoreError: see `Store`.
            ValueError: the source or the hull's file is not what it was, or a potential or hull is
                not named.
        """
        store = Store(folder)
        try:
            settings = Settings(**store.metadata["settings"] | dict(confirm or {}))
            _check_potentials(settings, potentials)
            _check_hull(settings, store.metadata.get("hull_sha256"), hull)
            source = source or source_of(store.metadata["recipe"])
            if source.recipe != store.metadata["recipe"]:
                raise ValueError(f"{folder} was made from another source: {source.recipe}.")
            if confirm:
                store.change_metadata(settings=asdict(settings))
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

        `ended` says afterwards what has ended it: `"all"`, `"found"` (enough, by `until`),
        `"minutes"` or `"interrupted"`.

        Raises:
            RelaxerError: the potential cannot be loaded, or no worker can start.
            StoreError: the store cannot be written any more; what it holds is whole.
            ValueError: the model cannot follow the recipe.
        """
        start = time.monotonic()
        minutes, unasked = self.resources.minutes, 0
        deadline = math.inf if minutes is None else start + 60 * minutes
        self.ended, is_marked = UNFINISHED, False
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
                    deadline,
                ).work()
                mark_relaxed_duplicates(self.store)
                is_marked = True  # nothing is relaxed after it
                unasked = confirm_candidates(
                    self.store, self.settings, self.resources, jobs, report, deadline
                )
        except KeyboardInterrupt:
            log.info("interrupted with %d of %d structures checked", len(self.store), self.total)
            self.ended = INTERRUPTED
        finally:
            self.seconds += time.monotonic() - start
        self.store.release_claims()
        if not is_marked:
            mark_relaxed_duplicates(self.store)
        if not self.interrupted:
            self.ended = self._what_ended(unasked)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C, or a failure after something was kept, has ended the last run."""
        return self.ended == INTERRUPTED

    def _what_ended(self, unasked: int) -> str:
        if not unasked and self.store.num_judged() == self.total:
            return ALL
        until = self.settings.until
        return FOUND if until is not None and self.store.num_found() >= until else MINUTES

    @contextmanager
    def _jobs(self) -> Iterator[Jobs]:
        """An executor that is gone at the end, whatever it was doing."""
        means = self.resources
        executor = make_executor(means.executor, means.workers, means.time_limit)
        try:
            yield Jobs(executor)
        finally:
            executor.shutdown(wait=isinstance(executor, ProcessesExecutor), cancel_futures=True)
