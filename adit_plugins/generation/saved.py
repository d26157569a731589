"""Saved generators: `.adit` files hold a recipe as MSON, plain values and nothing that is run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adit_model.outputs import replacing

if TYPE_CHECKING:
    from adit_plugins.generation.generator import ADiTGenerator


def save_recipe(generator: ADiTGenerator, path: str | PathLike[str]) -> Path:
    """See `ADiTGenerator.save`."""
    target = Path(path)
    if callable(generator.steer) or ":" in (generator.steer or ""):
        raise ValueError(
            f"a saved recipe names no code, and steer={generator.steer!r} is code: save the rest "
            "(steer=None) and give steer where the file is read"
        )
    content = generator.as_dict()
    checkpoint = generator.checkpoint
    if checkpoint is not None and Path(checkpoint).exists():
        # A relative path would mean something else where the file is read.
        content["checkpoint"] = str(Path(checkpoint).resolve())
    with replacing(target) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return target


def load_recipe(
    cls: type[ADiTGenerator], path: str | PathLike[str], **changes: Any
) -> ADiTGenerator:
    """See `ADiTGenerator.load`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no saved generator, or a field is unknown or has an impossible value.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no saved generator: it is not JSON ({error}).") from error
    if not isinstance(content, dict) or content.get("@class") != cls.__name__:
        raise ValueError(
            f"{path} is no saved generator; write one with ADiTGenerator(...).save({str(path)!r})."
        )
    try:
        return generator_of(cls, content | changes, changes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def generator_of(
    cls: type[ADiTGenerator], recipe: Mapping[str, Any], given: Collection[str] = ()
) -> ADiTGenerator:
    """Make a generator from what `ADiTGenerator.as_dict` gave, wherever that was kept.

    Only the fields of a recipe with plain values are taken: monty's decoder would import whatever
    module a dictionary names. A function to steer by would be code of the file's choice, too:
    it has to be among the fields that are `given` by the caller.

    Raises:
        ValueError: a field is unknown or has an impossible value.
    """
    fields = {name: value for name, value in recipe.items() if not name.startswith("@")}
    known = [field.name for field in dataclasses.fields(cls)]
    unknown = [name for name in fields if name not in known]
    if unknown:
        raise ValueError(f"no setting {unknown[0]!r}. Known: {', '.join(known)}.")
    for name, value in fields.items():
        if isinstance(value, dict) and name not in ("conditions", "condition_guidance"):
            raise ValueError(f"{name} must be a plain value; got a dictionary.")
    if "steer" not in given and ":" in str(fields.get("steer")):
        raise ValueError(f"it names code to run, steer={fields['steer']!r}; give it yourself.")
    try:
        return cls(**fields)
    except TypeError as error:
        raise ValueError(str(error)) from error
