"""Look around the lowest structures: their latents with noise, denoised, relaxed, and again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from ase import Atoms

from adit_plugins.generation.generator import ADiTGenerator
from adit_plugins.prediction.ranking import Contestant
from adit_plugins.relax.results import bare_structure
from adit_plugins.structures.provenance import KEY, provenance_in

PARENTS = 4  # of a round, the lowest distinct structures
STRENGTHS = (0.2, 0.4, 0.6)  # of the noise, one after the other
CHILDREN = PARENTS * len(STRENGTHS) * 2  # of a round
LOWER = 0.001  # eV/atom; less is no other structure
PATIENCE, ROUNDS = 3, 20  # in a row that find nothing lower, and at most


def children(
    generator: ADiTGenerator, contestants: Sequence[Contestant], number: int
) -> Iterator[Atoms]:
    """Yield the variations of a round, `CHILDREN` in all; few parents have more each.

    Those of (seed, round) are the same whenever the parents are; the elements stay the parents'.

    Args:
        generator: of the search.
        contestants: distinct structures, the best first.
        number: of the round.
    """
    # Without its request the generator tells the network each parent's own elements.
    plain = dataclasses.replace(
        generator, formula=None, chemical_system=None, num_atoms=None, charge_balanced=False
    )
    parents = contestants[:PARENTS]
    for place in range(CHILDREN if parents else 0):
        parent = parents[place % len(parents)]
        strength = STRENGTHS[place // len(parents) % len(STRENGTHS)]
        index = number * CHILDREN + place
        varied = dataclasses.replace(plain, seed=_seed(generator.seed, index))
        (made,) = varied.variations(bare_structure(parent.result.atoms), 1, strength)
        atoms = made.to_ase()
        origin = {
            "id": f"{generator.model.name}/variation/{generator.seed}/{index}",
            "index": index,
            "variation_of": parent.names[0],
        }
        atoms.info[KEY] = provenance_in(atoms.info) | origin
        yield atoms


def _seed(seed: int, index: int) -> int:
    """Of one variation; samples of no usual seed share its noise."""
    return (seed + 1) * 1_000_003 + index
