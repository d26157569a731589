"""Parsing lives in `adit_plugins.structures`; these are its public names."""

from adit_plugins.structures.cif import parse_cifs
from adit_plugins.structures.entries import PROVENANCE_TAG, Entry, attempt
from adit_plugins.structures.json_files import parse_content as parse_pymatgen
from adit_plugins.structures.sdf import parse_sdf
from adit_plugins.structures.xyz import parse_xyz

__all__ = [
    "PROVENANCE_TAG",
    "Entry",
    "attempt",
    "parse_cifs",
    "parse_pymatgen",
    "parse_sdf",
    "parse_xyz",
]
