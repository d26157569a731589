"""A formula to its crystal structures: sampled, relaxed, grouped, ranked.

`verb` is the one call, `search` the search itself, `cells` says where it looks, `known` which known
structures compete, `ranking` how structures become distinct predictions; what a person gets of them
is `results` and `files`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adit_plugins.lazy import lazily

if TYPE_CHECKING:
    from adit_plugins.prediction.ranking import Prediction
    from adit_plugins.prediction.results import Predictions
    from adit_plugins.prediction.search import Search
    from adit_plugins.prediction.verb import predict

__all__ = ["Prediction", "Predictions", "Search", "predict"]

__getattr__, __dir__ = lazily(
    __name__,
    ranking="Prediction",
    results="Predictions",
    search="Search",
    verb="predict",
)
