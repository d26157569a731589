"""A structure in memory and on disk: `Sample`, files of any origin in, files out.

`reading` is the entrance and `writers` the exit. Add a format that is read as a parser beside
`cif.py`, named in `reading`; add one that is written to `formats.WRITERS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adit_plugins.lazy import lazily

if TYPE_CHECKING:
    from adit_plugins.structures.bonds import canonical_smiles, openbabel_bonds, perceive_bonds
    from adit_plugins.structures.entries import Entry, InputError
    from adit_plugins.structures.reading import iter_entries, read_structures
    from adit_plugins.structures.samples import Sample, from_batch, to_batch, to_sample
    from adit_plugins.structures.symmetrizing import symmetrized
    from adit_plugins.structures.symmetry import niggli_reduced
    from adit_plugins.structures.writers import OutputError, WriteReport, write_samples

__all__ = [
    "Entry",
    "InputError",
    "OutputError",
    "Sample",
    "WriteReport",
    "canonical_smiles",
    "from_batch",
    "iter_entries",
    "niggli_reduced",
    "openbabel_bonds",
    "perceive_bonds",
    "read_structures",
    "symmetrized",
    "to_batch",
    "to_sample",
    "write_samples",
]

__getattr__, __dir__ = lazily(
    __name__,
    bonds="canonical_smiles openbabel_bonds perceive_bonds",
    entries="Entry InputError",
    reading="iter_entries read_structures",
    samples="Sample from_batch to_batch to_sample",
    symmetrizing="symmetrized",
    symmetry="niggli_reduced",
    writers="OutputError WriteReport write_samples",
)
