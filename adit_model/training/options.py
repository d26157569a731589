"""Command-line options from a dataclass: a field, its type and its help are written down once."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, Literal, get_args, get_origin, get_type_hints

_HELP = "help"  # fields without it are no options


def option(default: Any, help: str, **more: Any) -> Any:  # noqa: A002
    """Return a dataclass field that is an option too.

    Args:
        default: the field's; `dataclasses.MISSING` makes the option required.
        help: what `--help` says of it; the default is added.
        more: further arguments of `ArgumentParser.add_argument`, such as `choices`.
    """
    return dataclasses.field(default=default, metadata={_HELP: help, **more})


def add_options(parser: argparse.ArgumentParser, record: type) -> None:
    """Add an option for each field of a dataclass that was declared with `option`.

    `bool` becomes a switch, `tuple[X, ...]` takes several, `Literal` offers its values.
    """
    hints = get_type_hints(record)
    for field in dataclasses.fields(record):
        if _HELP not in field.metadata:
            continue
        keywords = _keywords(hints[field.name], field.default) | dict(field.metadata)
        if keywords.get("default") is not None and field.default != ():
            keywords[_HELP] += f" (default: {field.default})"
        parser.add_argument("--" + field.name.replace("_", "-"), **keywords)


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
