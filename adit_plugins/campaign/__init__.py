"""The discovery pipeline: generated structures in, verdicts and a ranking out."""

from adit_plugins.campaign.pipeline import Campaign, Crystal, MoleculeRecord, Settings

__all__ = ["Campaign", "Crystal", "MoleculeRecord", "Settings"]
