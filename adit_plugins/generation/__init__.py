"""A recipe to samples: `ADiTGenerator`.

Add a request on elements in `composition`; a field of the recipe in `generator`, checked in
`recipe` and handed to the network in `drawing`. What a network can be told (a condition) is
`adit_model.config.Condition`, and needs no code here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adit_plugins.lazy import lazily

if TYPE_CHECKING:
    from adit_plugins.generation.composition import CompositionRequest
    from adit_plugins.generation.generator import ADiTGenerator
    from adit_plugins.generation.keeping import Selection

__all__ = ["ADiTGenerator", "CompositionRequest", "Selection"]

__getattr__, __dir__ = lazily(
    __name__,
    composition="CompositionRequest",
    generator="ADiTGenerator",
    keeping="Selection",
)
