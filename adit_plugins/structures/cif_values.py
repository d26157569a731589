"""The values of a CIF block by their tags, and what they mean as text and numbers."""

from __future__ import annotations

import re
from typing import Any

import gemmi

Tags = dict[str, list[str]]
"""Values by tag: in lower case, without the first underscore, other dots as underscores.

An unknown value (`?` or `.`) is empty.
"""

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][+-]?\d+)?(?=\(|$)")
_BARE = re.compile(
    r"^([ \t]*_\S+[ \t]+)(?=[^\s'\"#;])(\S+[ \t]+[^#\n]*\S|[\[\]$]\S*)[ \t]*$", re.MULTILINE
)


def tags_of(text: str) -> Tags:
    """All values by their tag.

    Raises:
        ValueError: it is no CIF.
    """
    text = text.encode("ascii", "replace").decode()  # gemmi takes others inside quotes only
    try:
        block = gemmi.cif.read_string(text)[0]
    except (ValueError, RuntimeError, IndexError) as first:
        try:
            block = gemmi.cif.read_string(_quoted(text))[0]
        except (ValueError, RuntimeError, IndexError):
            text = re.sub(r"^string:(\d+)(:\d+\(\d+\))?(.*?): *", r"line \1: ", str(first))
            raise ValueError(f"it is no sound CIF ({text.strip()})") from first
    tags: Tags = {}
    for item in block:
        pair: Any = item.pair
        if pair is not None:
            tags[_plain(pair[0])] = [_value(pair[1])]
        elif item.loop is not None:
            width, values = item.loop.width(), item.loop.values
            for column, tag in enumerate(item.loop.tags):
                tags[_plain(tag)] = [_value(value) for value in values[column::width]]
    return tags


def _value(raw: str) -> str:
    return "" if raw in ("?", ".") else gemmi.cif.as_string(raw)


def _plain(tag: str) -> str:
    return tag[1:].lower().replace(".", "_")


def _quoted(text: str) -> str:
    """Quote values with blanks or brackets that programs and people leave bare."""
    return _BARE.sub(r"\1'\2'", text)


def first(tags: Tags, tag: str) -> str:
    """The value of a tag that stands alone, empty if there is none or it is unknown."""
    values = tags.get(tag, [])
    return values[0].strip() if values else ""


def number(text: str) -> float | None:
    """The number of a CIF value with or without its uncertainty, or a fraction."""
    text = text.strip()
    top, slash, bottom = text.partition("/")
    if slash and top.lstrip("+-").isdigit() and bottom.isdigit() and int(bottom):
        return int(top) / int(bottom)
    found = _NUMBER.match(text)
    return float(found.group().lower().replace("d", "e")) if found else None
