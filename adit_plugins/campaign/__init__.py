"""The discovery campaign: structures in, verdicts and a ranking out, in a store that survives.

`driver` decides what is done next, `store` is the database, `work` what workers do, `records` the
rows. Add an option of `adit discover` in `adit_plugins.cli.discover`: a field of
`settings.Settings` if it decides verdicts, else of `Resources` and named in `MEANS` there. Add a
stage in `settings`, `work`, `driver` and `records`, a way to run chunks by the entry point
`adit.executors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adit_plugins.lazy import lazily

if TYPE_CHECKING:
    from adit_plugins.campaign.campaign import Campaign
    from adit_plugins.campaign.settings import Resources, Settings
    from adit_plugins.campaign.sources import FileSource, GeneratorSource, StructuresSource
    from adit_plugins.campaign.store import Store, StoreError

__all__ = [
    "Campaign",
    "FileSource",
    "GeneratorSource",
    "Resources",
    "Settings",
    "Store",
    "StoreError",
    "StructuresSource",
]

__getattr__, __dir__ = lazily(
    __name__,
    campaign="Campaign",
    settings="Resources Settings",
    sources="FileSource GeneratorSource StructuresSource",
    store="Store StoreError",
)
