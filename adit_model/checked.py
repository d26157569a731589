"""Frozen records that refuse field values of a wrong type, and fields that are options too."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, get_args, get_origin, get_type_hints

HELP = "help"  # in a field's metadata: it is an option, and this is what `--help` says of it


def option(default: Any, help: str, **more: Any) -> Any:  # noqa: A002
    """Return a dataclass field that is an option of the command line too.

    Args:
        default: the field's; `dataclasses.MISSING` makes the option required.
        help: what `--help` says of it; the default is added.
        more: further arguments of `ArgumentParser.add_argument`, such as `choices`.
    """
    return dataclasses.field(default=default, metadata={HELP: help, **more})


class Checked:
    """Refuses field values of a wrong type, which would otherwise choose a default in silence."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            value = getattr(self, name)
            wanted = problem(value, hint)
            if wanted:
                raise ValueError(f"{name} must be {wanted}; got {value!r}")


def problem(value: Any, hint: Any) -> str:
    """What a value of this type must be, or nothing if it is; types without a rule pass."""
    if get_origin(hint) is Literal:
        return "" if value in get_args(hint) else f"one of {', '.join(get_args(hint))}"
    if hint is bool:
        return "" if isinstance(value, bool) else "true or false"
    if hint is int:
        good = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        return "" if good else "a whole number of at least 1"
    if hint is float:
        good = isinstance(value, int | float) and not isinstance(value, bool)
        return "" if good and math.isfinite(value) else "a finite number"
    return ""
