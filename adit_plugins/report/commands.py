"""Command lines that make results again, from the recipe that a campaign keeps."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from adit_plugins.campaign.settings import Settings

ID = "{id}"  # where the page puts the id of a sample

# Field of a generator's recipe -> option; what is not set is left out.
_LISTS = {"elements", "exclude_elements", "contains"}
_SHOWN = ("relaxer", "fmax", "max_steps")  # also at their default
_PLAIN = (
    "checkpoint", "num_steps", "guidance_scale", "sampler", "num_atoms", "elements",
    "exclude_elements", "contains", "chemical_system", "formula",
)  # fmt: skip


def sample_command(generator: Mapping[str, Any]) -> str:
    """Return `adit generate --ids {id} ...` for the samples of a generator (its `as_dict()`)."""
    kind = generator["kind"]
    words = ["adit", "generate", "--kind", kind, *_sampling(generator)]
    out = "sample.cif" if kind == "crystal" else "sample.xyz"
    return f"{shlex.join(words)} --ids {ID} --out {out}"


def campaign_command(metadata: Mapping[str, Any]) -> str:
    """Return the `adit discover ...` of a store; nothing for a campaign that Python made."""
    recipe, settings = metadata["recipe"], metadata["settings"]
    words = ["adit", "discover"]
    generators = recipe.get("generators", [])
    if "file" in recipe:
        words += [recipe["file"]]
    elif not generators:
        return ""
    if recipe["num"] is not None:
        words += ["--num", str(recipe["num"])]
    if generators:
        if len(generators) == 1:
            words += ["--kind", generators[0]["kind"]]
        words += ["--seed", str(generators[0]["seed"]), *_sampling(generators[0])]
    words += _screening(settings)
    shard = metadata["shard"]
    if shard[1] > 1:
        words += ["--shard", f"{shard[0]}/{shard[1]}"]
    return shlex.join(words)


def _sampling(generator: Mapping[str, Any]) -> Iterator[str]:
    for name in _PLAIN:
        value = generator.get(name)
        if value is None:
            continue
        text = ",".join(value) if name in _LISTS else str(value)
        yield from (f"--{name.replace('_', '-')}", text)
    for name, value in (generator.get("conditions") or {}).items():
        yield from ("--condition", f"{name}={'none' if value is None else value}")
    for name, scale in (generator.get("condition_guidance") or {}).items():
        yield from ("--condition-guidance", f"{name}={scale:g}")
    first = generator.get("elements_first")
    if first is not None:
        yield "--elements-first" if first else "--one-shot"
    if generator.get("charge_balanced"):
        yield "--charge-balanced"


def _screening(settings: Mapping[str, Any]) -> Iterator[str]:
    """Each setting has an option of its name; those at their default are left out."""
    if settings["relaxer"] is None:
        yield "--no-relax"
        return
    for field in fields(Settings):
        value = settings.get(field.name)
        if value is not None and (value != field.default or field.name in _SHOWN):
            yield from (f"--{field.name.replace('_', '-')}", str(value))
