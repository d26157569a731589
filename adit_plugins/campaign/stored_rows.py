"""What a row of the store is written from, and read as.

Rows are ASE's, without its query a row and its look at every number of a row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms
from ase.db.core import bytes_to_object, str_represents
from ase.db.row import AtomsRow
from ase.io.jsonio import decode

from adit_plugins.outputs import without_nan

# ASE's columns that a campaign uses, and how arrays among them are kept.
_ROW_NAMES = (
    "id", "unique_id", "ctime", "mtime", "username", "numbers", "positions", "cell", "pbc",
    "initial_magmoms", "initial_charges", "constraints", "calculator", "calculator_parameters",
    "energy", "free_energy", "forces", "stress", "magmoms", "magmom", "key_value_pairs", "data",
)  # fmt: skip
ROW = ", ".join(_ROW_NAMES)
_ARRAYS: dict[str, tuple[type, tuple[int, ...] | None]] = {
    "numbers": (np.int32, None), "positions": (float, (-1, 3)), "cell": (float, (3, 3)),
    "initial_magmoms": (float, None), "initial_charges": (float, None),
    "forces": (float, (-1, 3)), "stress": (float, None), "magmoms": (float, None),
}  # fmt: skip

TEXT = "text:"  # before a text that looks like a number

# ASE indexes keys but neither values nor rows: a look-up or an update would take time
# proportional to the number of rows.
SETUP = (
    "CREATE TABLE adit_claims (id INTEGER PRIMARY KEY, owner TEXT, time REAL)",
    "CREATE INDEX adit_text ON text_key_values(key, value)",
    "CREATE INDEX adit_number ON number_key_values(key, value)",
    *(
        f"CREATE INDEX adit_{table} ON {table}(id)"
        for table in ("keys", "text_key_values", "number_key_values", "species")
    ),
)


@dataclass
class Row:
    """What is written about a structure.

    Attributes:
        atoms: generated, or relaxed with energy, forces and stress.
        columns: verdicts that `ase db` can select by; None is left out.
        data: everything else.
    """

    atoms: Atoms
    columns: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)


class StoredRow(AtomsRow):
    """A row whose data are read when they are asked for, in a fifth of ASE's time."""

    @property
    def data(self) -> dict[str, Any]:
        """Everything that is no column; arrays cannot be written to."""
        if isinstance(self._data, bytes):
            self._data = _read_data(self._data)
        return self._data


def stored_row(values: Sequence[Any]) -> AtomsRow:
    """Return a row of what was selected by `ROW`."""
    content = dict(zip(_ROW_NAMES, values, strict=True))
    for name, (dtype, shape) in _ARRAYS.items():
        if content[name] is not None:
            array = np.frombuffer(content[name], np.dtype(dtype).newbyteorder("<"))
            content[name] = array.astype(dtype).reshape(shape or -1)
    content["user"] = content.pop("username")
    content["pbc"] = (content["pbc"] & np.array([1, 2, 4])).astype(bool)
    content["key_value_pairs"] = json.loads(content["key_value_pairs"])
    if content["calculator"] is not None:
        content["calculator_parameters"] = decode(content["calculator_parameters"])
    return StoredRow({key: value for key, value in content.items() if value is not None})


def _read_data(blob: bytes) -> dict[str, Any]:
    """Return what ASE's `bytes_to_object` does."""
    text = blob[int.from_bytes(blob[:8], "little") :]
    if b'"__complex__"' in text or b'"__ase_objtype__"' in text:
        return dict(bytes_to_object(blob))
    content: dict[str, Any] = json.loads(text)
    _put_arrays(content, blob)
    return content


def _put_arrays(content: Any, blob: bytes) -> None:
    """Put the arrays of a blob in the places that name them."""
    places = content.items() if isinstance(content, dict) else enumerate(content)
    for place, value in places:
        kind = type(value)
        if kind is dict and "__ndarray__" in value:
            shape, name, offset = value["__ndarray__"]
            dtype = np.dtype(name).newbyteorder("<")
            size = int(np.prod(shape))
            content[place] = np.frombuffer(blob, dtype, size, offset).reshape(shape)
        elif kind is dict or (kind is list and any(type(each) in (dict, list) for each in value)):
            _put_arrays(value, blob)


def kept_columns(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Drop what has no value; ASE refuses texts that look like numbers, so they get a prefix."""
    kept = {key: value for key, value in without_nan(columns).items() if value is not None}
    for key, value in kept.items():
        if isinstance(value, str) and any(str_represents(value, t) for t in (bool, int, float)):
            kept[key] = f"{TEXT}{value}"
    return kept
