"""Crystals and molecules from one diffusion model, for ASE and pymatgen.

The public names are loaded on first use, so that importing the package costs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adit_plugins._version import __version__
from adit_plugins.lazy import lazily, moved

if TYPE_CHECKING:
    from adit_plugins.generation.generator import ADiTGenerator
    from adit_plugins.generation.substitution import Substitution, substituted
    from adit_plugins.hosts.ase_io import stream
    from adit_plugins.prediction.verb import predict
    from adit_plugins.report import view
    from adit_plugins.structures.reading import read_structures
    from adit_plugins.structures.samples import Sample, from_batch, to_batch, to_sample
    from adit_plugins.structures.symmetrizing import symmetrized
    from adit_plugins.structures.writers import write_samples

__all__ = [
    "ADiTGenerator",
    "Sample",
    "Substitution",
    "__version__",
    "from_batch",
    "predict",
    "read_structures",
    "stream",
    "substituted",
    "symmetrized",
    "to_batch",
    "to_sample",
    "view",
    "write_samples",
]

__getattr__, __dir__ = lazily(
    __name__,
    **{
        "generation.generator": "ADiTGenerator",
        "generation.substitution": "Substitution substituted",
        "hosts.ase_io": "stream",
        "prediction.verb": "predict",
        "report": "view",
        "structures.reading": "read_structures",
        "structures.samples": "Sample from_batch to_batch to_sample",
        "structures.symmetrizing": "symmetrized",
        "structures.writers": "write_samples",
    },
)

# Documented under these names up to version 0.1, and in what `as_dict` has written.
moved(
    __name__,
    filters="hosts.filters",
    hull_energies="hull.energies",
    transformations="hosts.transformations",
)
