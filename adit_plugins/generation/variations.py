"""Structures near a given one: its latent with noise, denoised again."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING

from adit_plugins.generation.recipe import checked_integer, used_precision
from adit_plugins.generation.training_form import training_form
from adit_plugins.structures.samples import Convertible, Sample, from_batch, to_batch, to_sample

if TYPE_CHECKING:
    from adit_plugins.generation.settings import Recipe


def make_variations(
    generator: Recipe, structure: Convertible, num: int, strength: float
) -> list[Sample]:
    """See `ADiTGenerator.variations`."""
    num = checked_integer("num", num, 1)
    if isinstance(strength, bool) or not (isinstance(strength, Real) and 0 < strength <= 1):
        raise ValueError(f"strength must be above 0 and at most 1; got {strength!r}")
    if generator.steer is not None:
        raise ValueError("variations are not steered; leave out steer")
    original = to_sample(structure)
    sample = training_form(original).sample
    request = generator.composition
    if request:
        request.check_size(sample.num_atoms, sample.kind)
    # Without a request the variations keep the structure's elements, where they can be told.
    model = generator.model
    keep = model.tells_elements and not request and generator.elements_first is not False
    batch = model.vary(
        to_batch([sample] * num),
        float(strength),
        generator.steps(sample.kind),
        generator.guidance_scale,
        generator.seed,
        sampler=generator.sampler,
        precision=used_precision(generator.precision, model),
        conditions=generator.conditions,
        elements=[sample.atomic_numbers.tolist()] * num if keep else None,
        choose_types=request.choose if request else None,
    )
    origin = {
        "kind": sample.kind,
        "num_steps": generator.steps(sample.kind),
        "guidance_scale": generator.guidance(sample.kind),
        "variation_of": original.provenance or repr(original),
        "strength": float(strength),
    }
    name, seed = generator.model.name, generator.seed
    return from_batch(
        batch,
        [
            generator.provenance(seed, i) | origin | {"id": f"{name}/variation/{seed}/{i}"}
            for i in range(num)
        ],
    )
