"""Command-line options from a dataclass: a field, its type and its help are written down once."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Collection
from typing import Any, Literal, get_args, get_origin, get_type_hints

from adit_model.checked import HELP, option

__all__ = ["add_options", "changes_of", "option", "values_of"]


def add_options(
    parser: argparse._ActionsContainer,
    record: type,
    defaults: Any = None,
    skip: Collection[str] = (),
    optional: Collection[str] = (),
) -> None:
    """Add an option for each field of a dataclass that was declared with `option`.

    `bool` becomes a switch, `tuple[X, ...]` takes several, `Literal` offers its values.

    Args:
        parser: or a group of one.
        record: the dataclass.
        defaults: an instance, of which `--help` tells the values; what is not given is then None,
            and a `bool` can be switched off, too. None for the fields' own defaults.
        skip: fields that are no options here.
        optional: fields without a default that may be left out all the same; then None.
    """
    hints = get_type_hints(record)
    for field in dataclasses.fields(record):
        if HELP not in field.metadata or field.name in skip:
            continue
        told = field.default if defaults is None else getattr(defaults, field.name)
        keywords = _keywords(hints[field.name], field.default) | dict(field.metadata)
        if field.name in optional:
            keywords["required"] = False
        if defaults is not None:
            keywords |= {"default": None}
            if hints[field.name] is bool:
                keywords |= {"action": argparse.BooleanOptionalAction}
        if told is not None and told != () and (defaults is not None or "default" in keywords):
            keywords[HELP] += f" (default: {_words(told)})"
        parser.add_argument("--" + field.name.replace("_", "-"), **keywords)


def _words(value: Any) -> Any:
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


def changes_of(record: type, args: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of a dataclass that were given, of a parser made with `defaults`."""
    return {name: value for name, value in values_of(record, args).items() if value is not None}


def values_of(record: type, args: argparse.Namespace) -> dict[str, Any]:
    """Return the parsed fields of a dataclass by name; several values are a tuple."""
    names = [field.name for field in dataclasses.fields(record) if hasattr(args, field.name)]
    values = {name: getattr(args, name) for name in names}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def _keywords(hint: Any, default: Any) -> dict[str, Any]:
    """What argparse is told of a field by its type."""
    if hint is bool:
        return {"action": "store_true"}
    several = get_origin(hint) is tuple
    kinds = [each for each in get_args(hint) if each not in (type(None), Ellipsis)]
    keywords: dict[str, Any] = {"nargs": "+"} if several else {}
    if get_origin(hint) is Literal:
        keywords |= {"choices": get_args(hint), "type": type(get_args(hint)[0])}
    else:
        keywords["type"] = kinds[0] if kinds else hint
    if default is dataclasses.MISSING:
        return keywords | {"required": True}
    return keywords | {"default": default}
