"""Reading lives in `adit_plugins.structures`; these are its public names."""

from adit_plugins.structures.entries import PROVENANCE_TAG, Entry, InputError, ReadingNotice
from adit_plugins.structures.reading import iter_entries, read_structures
from adit_plugins.structures.selection import INDEX

__all__ = [
    "INDEX",
    "PROVENANCE_TAG",
    "Entry",
    "InputError",
    "ReadingNotice",
    "iter_entries",
    "read_structures",
]
