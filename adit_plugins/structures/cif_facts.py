"""Facts about a structure as data items of its CIF: a file that is passed on says what it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

PREFIX = "_adit_"
_PLAIN = re.compile(r"[A-Za-z0-9.+-][\w.+/-]*")
_RESERVED = re.compile(r"(data|save)_.*|loop_|stop_|global_", re.IGNORECASE)
HEAD = "# Energies: eV/atom, by the potential named in {prefix}potential and not by DFT.\n"
ENERGY = "energy"


def fact_items(facts: Mapping[str, Any]) -> str:
    """Return a line `_adit_NAME VALUE` for each fact that is known.

    Args:
        facts: names in the words of the tables; None and empty texts are left out.
    """
    known = {name: value for name, value in facts.items() if value not in (None, "")}
    lines = [f"{PREFIX}{name} {_value(value)}\n" for name, value in known.items()]
    head = HEAD.format(prefix=PREFIX) if any(ENERGY in name for name in known) else ""
    return head + "".join(lines)


def _value(value: Any) -> str:
    """A value of CIF 1.1: a word, or a text between quotes."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = " ".join(str(value).encode("ascii", "backslashreplace").decode().split())
    if _PLAIN.fullmatch(text) and not _RESERVED.fullmatch(text):
        return text
    quote = "'" if "'" not in text else '"'
    return f"{quote}{text.replace(quote, '`')}{quote}"
