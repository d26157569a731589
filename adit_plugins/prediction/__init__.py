"""A formula to its crystal structures: sampled, relaxed, grouped, ranked.

Which cells are looked in is `cells`, the search itself `search`; how structures become distinct
predictions `ranking`, what a person gets of them `results` and `files`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adit_plugins.lazy import lazily

if TYPE_CHECKING:
    from adit_plugins.prediction.ranking import Prediction
    from adit_plugins.prediction.results import Predictions
    from adit_plugins.prediction.search import Search, predict

__all__ = ["Prediction", "Predictions", "Search", "predict"]

__getattr__, __dir__ = lazily(
    __name__,
    ranking="Prediction",
    results="Predictions",
    search="Search predict",
)
