"""How a recipe becomes structures: elements first where the checkpoint can, else all at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from adit_plugins.generation import steering
from adit_plugins.generation.composition import NEEDS_PRIOR, atomic_numbers
from adit_plugins.generation.recipe import used_precision

if TYPE_CHECKING:
    from adit_model.compositions import Constraints
    from adit_model.decoding import Drawn
    from adit_model.samplers import SamplingSettings
    from adit_plugins.generation.settings import Recipe

MAX_ATTEMPTS = 100  # draws of one composition until it is charge-balanced


def goes_elements_first(generator: Recipe) -> bool:
    """Whether the elements are drawn from the prior and told to the network.

    Raises:
        ValueError: the recipe asks for it and the checkpoint cannot.
    """
    model = generator.model
    can = model.prior is not None and model.tells_elements
    asked = generator.elements_first or generator.charge_balanced or generator.condition_guidance
    if not can and asked:
        raise ValueError(
            f"{model.name!r} has no prior over elements, or its denoiser cannot be told them; "
            "leave out elements_first, charge_balanced and condition_guidance, or take the shipped "
            "release"
        )
    return can and generator.elements_first is not False


def described(generator: Recipe) -> dict[str, Any]:
    """What a recipe asks for, for provenance; what it leaves out is not recorded."""
    asked: dict[str, Any] = generator.composition.describe()
    if generator.conditions:
        asked["conditions"] = dict(generator.conditions)
    if generator.condition_guidance:
        asked["condition_guidance"] = dict(generator.condition_guidance)
    if goes_elements_first(generator):
        asked["elements_first"] = True
    if generator.charge_balanced:
        asked["charge_balanced"] = True
    precision = used_precision(generator.precision, generator.model)
    if precision != "float32":
        asked["precision"] = precision
    return asked | steering.described(generator)


def draw_samples(
    generator: Recipe,
    seed: int,
    indices: Sequence[int],
    progress: Callable[[int, int], None] | None = None,
) -> Drawn:
    """Samples of a seed as the network gives them.

    Raises:
        ValueError: the model cannot follow the recipe.
    """
    from adit_model.samplers import SamplingSettings, Steering

    settings = SamplingSettings(
        generator.steps(),
        generator.guidance_scale,
        generator.sampler,
        precision=used_precision(generator.precision, generator.model),
    )
    common: dict[str, Any] = {
        "seed": seed,
        "indices": list(indices),
        "conditions": generator.conditions,
        "progress": progress,
    }
    if generator.steer is None:
        return _draw(generator, settings, seed, indices, common)
    score = steering.Score(generator.steer, generator.kind)
    common["steering"] = Steering(score, generator.particles, generator.steer_weight)
    drawn = _draw(generator, settings, seed, indices, common)
    score.check()
    return drawn


def _draw(
    generator: Recipe,
    settings: SamplingSettings,
    seed: int,
    indices: Sequence[int],
    common: dict[str, Any],
) -> Drawn:
    model, request = generator.model, generator.composition
    if goes_elements_first(generator):
        elements = draw_compositions(generator, generator.kind, seed, indices)
        if generator.steer is not None:
            elements = _with_particles(generator, seed, indices, elements)
        return model.draw(len(indices), generator.kind, settings, elements=elements, **common)
    if request.needs_prior():
        raise ValueError(NEEDS_PRIOR.format(request.chemical_system))
    histogram = model.config.size_histogram.get(generator.kind, [])
    sizes = generator.num_atoms or request.sizes(histogram, generator.kind, seed, indices)
    choose = request.choose if request else None
    return model.draw(
        len(indices), generator.kind, settings, num_atoms=sizes, choose_types=choose, **common
    )


def _with_particles(
    generator: Recipe, seed: int, indices: Sequence[int], first: list[list[int]]
) -> list[list[int]]:
    """Compositions of all particles, sample by sample; those of one sample are of one size."""
    sizes = [len(elements) for elements in first]
    others = [
        draw_compositions(generator, generator.kind, seed, indices, sizes, particle * MAX_ATTEMPTS)
        for particle in range(1, generator.particles)
    ]
    return [elements for particles in zip(first, *others, strict=True) for elements in particles]


def draw_compositions(
    generator: Recipe,
    kind: str,
    seed: int,
    indices: Sequence[int],
    num_atoms: Sequence[int] | None = None,
    first_attempt: int = 0,
    constraints: Constraints | None = None,
    accept: Callable[[Sequence[int]], bool] | None = None,
) -> list[list[int]]:
    """A composition for each sample; a function of (seed, index) alone.

    Args:
        generator: says what may be drawn.
        kind: `"crystal"` or `"molecule"`.
        seed: with the index, names the random numbers.
        indices: which of the seed's sequence.
        num_atoms: of each; the generator's by default.
        first_attempt: another gives another draw.
        constraints: the generator's request by default.
        accept: what compositions must be besides; charge-balanced where the generator says so.

    Raises:
        ValueError: nothing fits, or nothing that is accepted was found.
    """
    own_size = generator.num_atoms if constraints is None else None
    if constraints is None:
        _check_elements(generator, kind)
        turns = [part.constraints() for part in generator.composition.parts()]
    else:
        turns = [constraints]
    sizes = dict(zip(indices, num_atoms, strict=True)) if num_atoms is not None else None

    def draw(places: Sequence[int], attempt: int) -> list[list[int]]:
        made: dict[int, list[int]] = {}
        for turn, each in enumerate(turns):
            mine = [index for index in places if index % len(turns) == turn]
            if mine:
                made |= zip(mine, draw_one(mine, attempt, each), strict=True)
        return [made[index] for index in places]

    def draw_one(places: list[int], attempt: int, one: Constraints) -> list[list[int]]:
        return generator.model.draw_elements(
            len(places),
            kind,
            seed=seed,
            num_atoms=[sizes[i] for i in places] if sizes else own_size,
            conditions=generator.conditions,
            condition_guidance=generator.condition_guidance,
            constraints=one,
            indices=places,
            attempt=first_attempt + attempt,
        )

    found = dict(zip(indices, draw(indices, 0), strict=True))
    accepted = accept or (_balanced if generator.charge_balanced else None)
    if accepted is None:
        return list(found.values())
    for attempt in range(1, MAX_ATTEMPTS):
        again = [index for index, elements in found.items() if not accepted(elements)]
        if not again:
            return list(found.values())
        found |= dict(zip(again, draw(again, attempt), strict=True))
    rule = "charge-balanced composition" if accept is None else "composition of paired electrons"
    asked = generator.composition.describe() or "any elements"
    raise ValueError(
        f"no {rule} in {MAX_ATTEMPTS} draws of sample {again[0]} of seed {seed} for {asked}; "
        + ("leave out charge_balanced" if accept is None else "ask for other elements or num_atoms")
    )


def _check_elements(generator: Recipe, kind: str) -> None:
    """Refuse elements that could never appear, beside others that can.

    Raises:
        ValueError: the training data of this kind lack one, or one that is asked for.
    """
    from adit_model.elements import named

    prior = generator.model.prior
    known = frozenset(prior.config.elements.get(kind, ())) if prior is not None else frozenset()
    unknown = atomic_numbers(generator.elements or ()) - known
    for part in generator.composition.parts() if known else ():
        part.constraints().elements(known)  # of several systems each is judged before the work
    if known and unknown:
        raise ValueError(
            f"no {kind} would hold {named(frozenset(unknown))}: the training data of "
            f"{generator.model.name!r} have {named(known)}. Leave it out of elements"
            + ("" if kind == "crystal" else ", or ask for crystals")
        )


def has_paired_electrons(elements: Sequence[int]) -> bool:
    """Whether a neutral molecule of these atoms need not be a radical."""
    return sum(elements) % 2 == 0


def _balanced(elements: Sequence[int]) -> bool:
    from pymatgen.core import Composition, Element

    from adit_plugins.validity.crystals import is_composition_valid

    counts = {Element.from_Z(z): elements.count(z) for z in set(elements)}
    return is_composition_valid(Composition(counts))
