"""Crystals and molecules from one diffusion model, for ASE and pymatgen.

The public names are loaded on first use, so that importing the package costs no torch.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adit_plugins.ase_io import stream
    from adit_plugins.generator import ADiTGenerator
    from adit_plugins.readers import read_structures
    from adit_plugins.report import view
    from adit_plugins.samples import Sample, from_batch, to_batch, to_sample
    from adit_plugins.substitution import Substitution, substituted
    from adit_plugins.symmetry import symmetrized
    from adit_plugins.writers import write_samples

__version__ = "0.1.0"

__all__ = [
    "ADiTGenerator",
    "Sample",
    "Substitution",
    "__version__",
    "from_batch",
    "read_structures",
    "stream",
    "substituted",
    "symmetrized",
    "to_batch",
    "to_sample",
    "view",
    "write_samples",
]

# What is tried again, what is slow, what is written; silent until somebody listens.
logging.getLogger(__name__).addHandler(logging.NullHandler())

_HOMES = {
    "ADiTGenerator": "generator",
    "Sample": "samples",
    "from_batch": "samples",
    "read_structures": "readers",
    "stream": "ase_io",
    "Substitution": "substitution",
    "substituted": "substitution",
    "symmetrized": "symmetry",
    "to_batch": "samples",
    "to_sample": "samples",
    "view": "report",
    "write_samples": "writers",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
