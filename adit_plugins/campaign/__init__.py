"""The discovery campaign: structures in, verdicts and a ranking out, in a store that survives."""

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
