"""Where a structure comes from, as it travels in `Atoms.info` and `Structure.properties`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

KEY = "adit"


_SHAPE: dict[str, type] = {
    "id": str, "checkpoint": str, "checkpoint_hash": str, "kind": str, "seed": int, "index": int,
}  # fmt: skip


def provenance_in(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the provenance in `Atoms.info` or `Structure.properties`; empty if there is none.

    A dictionary, or its JSON where a format keeps only text. Files of others may have a key `adit`
    of their own: what does not look like ours is passed over.
    """
    found = info.get(KEY)
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except ValueError:
            return {}
    if not isinstance(found, dict):
        return {}
    ours = all(isinstance(found[key], kind) for key, kind in _SHAPE.items() if key in found)
    return dict(found) if ours else {}
