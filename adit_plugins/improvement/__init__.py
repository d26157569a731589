"""The flywheel: the best that campaigns have found becomes training data of the next checkpoint.

`reading` takes what `adit discover` and `adit predict` leave and says of each structure why it is
no pick, `known` compares picks with each other and with the prepared data, `picking` does both and
counts, `lineage` makes the prepared files and says in the checkpoint where it comes from. Training
itself is `adit_model.training`. Add a reason to leave a structure out in `reading` where one row
says it, in `picking` where it takes the others or the checkpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adit_plugins.lazy import lazily

if TYPE_CHECKING:
    from adit_plugins.improvement.picking import Picks, pick
    from adit_plugins.improvement.reading import Campaign, Candidate, read_campaign

__all__ = ["Campaign", "Candidate", "Picks", "pick", "read_campaign"]

__getattr__, __dir__ = lazily(
    __name__, picking="Picks pick", reading="Campaign Candidate read_campaign"
)
