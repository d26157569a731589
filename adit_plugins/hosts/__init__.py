"""What ASE and pymatgen load of ours: formats, filters, transformations.

Add what another program calls here; it is imported in every run of that program, so it imports
nothing at load time that the program has not loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adit_plugins.lazy import lazily

if TYPE_CHECKING:
    from adit_plugins.hosts.ase_io import read_adit, stream
    from adit_plugins.hosts.filters import (
        LematFilter,
        NovelFilter,
        SmactFilter,
        StructureValidFilter,
        UniqueFilter,
    )
    from adit_plugins.hosts.transformations import ADiTVariationTransformation

__all__ = [
    "ADiTVariationTransformation",
    "LematFilter",
    "NovelFilter",
    "SmactFilter",
    "StructureValidFilter",
    "UniqueFilter",
    "read_adit",
    "stream",
]

__getattr__, __dir__ = lazily(
    __name__,
    ase_io="read_adit stream",
    filters="LematFilter NovelFilter SmactFilter StructureValidFilter UniqueFilter",
    transformations="ADiTVariationTransformation",
)
