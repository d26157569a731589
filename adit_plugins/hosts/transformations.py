"""Variations of a crystal as a pymatgen transformation, for `StandardTransmuter` chains."""

from __future__ import annotations

from typing import Any

from pymatgen.core import Structure
from pymatgen.transformations.transformation_abc import AbstractTransformation

from adit_plugins.generation.generator import ADiTGenerator
from adit_plugins.generation.recipe import checked_integer
from adit_plugins.structures.samples import Sample
from adit_plugins.validity.crystals import is_composition_valid, is_structure_valid

__all__ = ["ADiTVariationTransformation"]


class ADiTVariationTransformation(AbstractTransformation):
    """Structures near the given one: encoded, noised to `strength`, denoised, decoded.

    One-to-many: `StandardTransmuter(..., extend_collection=4)` takes the four best. They are ranked
    by the validity rules that they pass (structure, then SMACT composition); equal ones stay in the
    order in which they were made. Each carries its provenance in `properties["adit"]`.

    Args:
        strength: share of noise, above 0 (nearly the structure) up to 1 (a fresh sample).
        num: variations made of each structure; more are made where more are asked for.
        generator: its checkpoint, steps, seed and composition requests are used; None is the
            release with its defaults.

    Raises:
        ValueError: strength or num is out of range.

    Examples:
        >>> from pymatgen.core import Lattice, Structure
        >>> from adit_plugins import ADiTGenerator
        >>> from adit_plugins.hosts import ADiTVariationTransformation
        >>> salt = Structure.from_spacegroup(
        ...     "Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
        ... )
        >>> vary = ADiTVariationTransformation(0.2, num=2, generator=ADiTGenerator(num_steps=10))
        >>> len(vary.apply_transformation(salt, return_ranked_list=2))
        2
    """

    def __init__(
        self, strength: float = 0.3, num: int = 8, generator: ADiTGenerator | None = None
    ) -> None:
        """See the class."""
        if isinstance(strength, bool) or not 0 < strength <= 1:
            raise ValueError(f"strength must be above 0 and at most 1; got {strength!r}")
        self.strength = float(strength)
        self.num = checked_integer("num", num, 1)
        self.generator = generator if generator is not None else ADiTGenerator()

    def apply_transformation(
        self, structure: Structure, return_ranked_list: bool | int = False
    ) -> Structure | list[dict[str, Any]]:
        """Return the best variation, or a ranked list of dictionaries with `structure`.

        Args:
            structure: an ordered crystal.
            return_ranked_list: how many; True for `num`, False for the best alone.

        Raises:
            ValueError: the model cannot hold the structure (disorder, too many atoms).
        """
        wanted = self.num if return_ranked_list is True else int(return_ranked_list)
        made = self.generator.variations(structure, max(self.num, wanted), self.strength)
        ranked = sorted((_judge(each) for each in made), key=_rank, reverse=True)
        return ranked[:wanted] if return_ranked_list else ranked[0]["structure"]

    @property
    def is_one_to_many(self) -> bool:
        """True: ask with `return_ranked_list`."""
        return True


def _judge(sample: Sample) -> dict[str, Any]:
    structure = sample.to_pymatgen()
    assert isinstance(structure, Structure)  # as the structure that was varied
    return {
        "structure": structure,
        "structure_valid": is_structure_valid(structure),
        "composition_valid": is_composition_valid(structure.composition),
    }


def _rank(candidate: dict[str, Any]) -> tuple[bool, bool]:
    return candidate["structure_valid"], candidate["composition_valid"]
