"""DFT of candidates: computed by an engine, or written as input folders.

Add a code that computes by the entry point `adit.dft`, one that is given files in
`inputs.WRITERS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adit_plugins.lazy import lazily

if TYPE_CHECKING:
    from adit_plugins.dft.engines import (
        DftEngine,
        DftError,
        DftVerdict,
        compute,
        find_engine,
        reference_structure,
        verdict,
        with_moments,
    )
    from adit_plugins.dft.inputs import write_espresso, write_vasp

__all__ = [
    "DftEngine",
    "DftError",
    "DftVerdict",
    "compute",
    "find_engine",
    "reference_structure",
    "verdict",
    "with_moments",
    "write_espresso",
    "write_vasp",
]

__getattr__, __dir__ = lazily(
    __name__,
    engines="DftEngine DftError DftVerdict compute find_engine reference_structure "
    "verdict with_moments",
    inputs="write_espresso write_vasp",
)
