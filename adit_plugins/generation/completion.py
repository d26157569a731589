"""Completions: some atoms, and a crystal's cell, are given and stay; the rest is filled in.

On the way from noise every predicted clean structure gets the given atoms, each in the place of the
atom that it is nearest to, and is encoded again; what is added follows. In the end the given atoms
are the original ones exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adit_plugins.generation import composition, drawing
from adit_plugins.generation.completion_task import Task
from adit_plugins.generation.filling import Filling
from adit_plugins.generation.recipe import checked_integer, used_precision
from adit_plugins.structures.samples import Sample

if TYPE_CHECKING:
    from torch import Tensor

    from adit_plugins.generation.settings import Recipe

HYDROGEN = 1


def complete(generator: Recipe, task: Task, num: int) -> list[Sample]:
    """See `ADiTGenerator.complete`."""
    from adit_model.samplers import SamplingSettings
    from adit_plugins.structures.samples import from_batch

    num = checked_integer("num", num, 1)
    given = task.given
    if generator.steer is not None or generator.composition:
        raise ValueError(
            "complete takes elements of its own and is not steered: leave out steer, elements, "
            "exclude_elements, chemical_system, formula and contains of the generator"
        )
    principal = generator.model.config.flow.molecule_frame == "principal"
    filling = Filling(given, principal)
    elements = _elements(generator, task, num)
    if given.kind == "molecule" and "elements" in elements:
        # Atoms that follow each other in the training data are mostly bonded, so that the given
        # ones come first, in their order.
        ordered = [_given_first(given.atomic_numbers, each) for each in elements["elements"]]
        elements["elements"] = [each for each, _ in ordered]
        filling.places = [places for _, places in ordered]
    settings = SamplingSettings(
        generator.steps(given.kind),
        generator.guidance_scale,
        generator.sampler,
        precision=used_precision(generator.precision, generator.model),
    )
    drawn = generator.model.draw(
        num,
        given.kind,
        settings,
        seed=generator.seed,
        conditions=generator.conditions,
        edit=filling,
        **elements,
    )
    name, seed = generator.model.name, generator.seed
    origin = {
        "kind": given.kind,
        "num_steps": generator.steps(given.kind),
        "guidance_scale": generator.guidance(given.kind),
        "completion_of": repr(given),
        "num_given": given.num_atoms,
    }
    completions = []
    for row, made in enumerate(from_batch(drawn.batch)):
        numbers, positions = filling.restored(row, made)
        told = origin | {"id": f"{name}/completion/{seed}/{row}", "num_atoms": len(numbers)}
        told = generator.provenance(seed, row) | told
        completions.append(Sample(given.kind, numbers, positions, given.lattice, told))
    return completions


def _given_first(
    given: NDArray[np.int64], elements: Sequence[int]
) -> tuple[list[int], NDArray[np.int64]]:
    """Elements with the given atoms first, hydrogens last, and the places of the given ones."""
    added = Counter(elements) - Counter(given.tolist())
    others = []
    for z in elements:
        if added[z] > 0:
            added[z] -= 1
            others.append(z)
    whole = np.array([*given.tolist(), *others])
    order = np.argsort(whole == HYDROGEN, kind="stable")
    return whole[order].tolist(), np.argsort(order)[: len(given)]


def _elements(generator: Recipe, task: Task, num: int) -> dict[str, Any]:
    """What `ADiT.draw` is told of the elements of completions."""
    model, kind = generator.model, task.given.kind
    told = model.tells_elements and generator.elements_first is not False
    exact = None if task.added is None else sorted((task.counts + task.added).elements())
    if told and exact is not None and (kind == "crystal" or model.prior is None):
        exact = exact if kind == "crystal" else sorted(exact, key=lambda z: z == HYDROGEN)
        return {"elements": [exact] * num}
    if told and model.prior is not None:
        # Atoms that are given can leave no likely choice but radicals.
        paired = drawing.has_paired_electrons if kind == "molecule" and exact is None else None
        drawn = drawing.draw_compositions(
            generator,
            kind,
            generator.seed,
            range(num),
            constraints=task.constraints(),
            accept=paired,
        )
        return {"elements": drawn}
    # The network cannot be told: the decoder's scores decide.
    histogram = model.config.size_histogram.get(kind, [])
    sizes = _sizes(task, histogram, generator.seed, num)
    slots = list(task.counts.elements()) if exact is None else exact
    allowed = task.allowed if task.added is None else frozenset(task.added)
    if allowed is None:
        allowed = frozenset(range(1, model.config.autoencoder.num_types)) - task.unwanted

    def choose(logits: Tensor) -> Tensor:
        return composition.choose_types(logits, sorted(allowed), lambda _size: slots)

    return {"num_atoms": sizes, "choose_types": choose}


def _sizes(task: Task, histogram: Sequence[int], seed: int, num: int) -> list[int]:
    """Numbers of atoms of completions, from the training histogram where they are free."""
    if task.sizes is not None and len(task.sizes) == 1:
        return [min(task.sizes)] * num
    weights = np.array(histogram, dtype=float)
    places = np.arange(len(weights))
    weights[places <= task.given.num_atoms] = 0.0
    if task.sizes is not None:
        weights[~np.isin(places, list(task.sizes))] = 0.0
    if not weights.sum():
        raise ValueError(
            f"no {task.given.kind} of more than {task.given.num_atoms} atoms"
            f"{f' and of {sorted(task.sizes)}' if task.sizes else ''} is in the training data; "
            "give fewer atoms, or another num_atoms"
        )
    cumulative = np.cumsum(weights) / weights.sum()
    return [
        int(np.searchsorted(cumulative, np.random.default_rng([seed, i]).random(), "right"))
        for i in range(num)
    ]
