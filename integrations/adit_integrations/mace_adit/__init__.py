"""`mace-adit`: a small MACE distilled from CHGNet, shipped, for use before an accurate potential.

`relaxer` uses it, `labels` and `training` make another (`adit train labels|prefilter`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adit_plugins.lazy import lazily

if TYPE_CHECKING:
    from adit_integrations.mace_adit.relaxer import MaceAditCalculator, MaceAditRelaxer

__all__ = ["MaceAditCalculator", "MaceAditRelaxer"]

__getattr__, __dir__ = lazily(
    __name__,
    relaxer="MaceAditCalculator MaceAditRelaxer",
)
