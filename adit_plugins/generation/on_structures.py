"""What a generator makes of structures that are there: variations, completions, latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adit_plugins.generation.settings import Recipe
from adit_plugins.structures.samples import Convertible, Sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass
class OnStructures(Recipe):
    """The methods of `ADiTGenerator` that begin with a structure."""

    def variations(
        self, structure: Convertible, num: int = 8, strength: float = 0.3
    ) -> list[Sample]:
        """Structures near a given one: its latent with noise, denoised again.

        Args:
            structure: Atoms, Structure, Molecule, Mol or Sample of any kind; crystals are taken
                in their Niggli cell.
            num: how many.
            strength: share of noise, above 0 (nearly the structure) up to 1 (a fresh sample).

        Raises:
            ValueError: strength is out of range, or the structure is larger than any that the
                model was trained on.

        Examples:
            >>> from ase.build import bulk
            >>> from adit_plugins import ADiTGenerator
            >>> near = ADiTGenerator(num_steps=10).variations(bulk("NaCl", "rocksalt", 5.6), 2)
            >>> len(near)
            2
        """
        from adit_plugins.generation.variations import make_variations

        return make_variations(self, structure, num, strength)

    def encode(self, structures: Convertible | Sequence[Convertible]) -> list[NDArray[np.float32]]:
        """Latents of structures, standardised as the diffusion transformer sees them.

        Structures are brought into the form of the training data first: a crystal into its
        primitive Niggli cell, a molecule to its principal axes.

        Args:
            structures: one or a list of Atoms, Structure, Molecule, Mol or Sample; both kinds
                may be mixed.

        Returns:
            For each a row for each of its atoms, in the order given `[num_atoms, latent_dim]`.
            Atoms of a crystal that a lattice translation maps onto each other have equal rows.

        Raises:
            TypeError: one is no structure.
            ValueError: one has no cell that can be reduced; the message names its place.

        Examples:
            >>> from ase.build import bulk
            >>> from adit_plugins import ADiTGenerator
            >>> ADiTGenerator().encode(bulk("NaCl", "rocksalt", 5.6, cubic=True))[0].shape
            (8, 8)
        """
        from adit_plugins.generation.latents import encode

        return encode(self.model, structures)

    def reconstruct(self, structures: Convertible | Sequence[Convertible]) -> list[Sample]:
        """Encode structures and decode them again, without noise: what the latents can hold.

        They go through the form of the training data, as in `encode`, and come back in the cell,
        order and orientation in which they were given.

        Raises:
            TypeError: one is no structure.
            ValueError: one has no cell that can be reduced; the message names its place.
        """
        from adit_plugins.generation.latents import reconstruct

        return reconstruct(self.model, structures)

    def complete(
        self,
        structure: Convertible,
        num: int = 8,
        *,
        num_atoms: int | Sequence[int] | None = None,
        fixed: Sequence[int] | None = None,
        elements: str | Sequence[str] | None = None,
        replace: str | Sequence[str] | None = None,
    ) -> list[Sample]:
        """Fill a structure in: given atoms, and a crystal's cell, stay exactly where they are.

        Args:
            structure: a host crystal, or the atoms of a molecule's scaffold or fragments with the
                places that they have to each other; Atoms, Structure, Molecule, Mol or Sample.
            num: how many completions.
            num_atoms: atoms of a completion, the given ones included; several let each draw one
                of them. By default as many as `structure` has where atoms of it are taken away,
                else drawn.
            fixed: indices of the atoms that are given; by default all that `replace` leaves.
            elements: of the atoms that are added: exactly these as a formula (`"Li2O"`), or any of
                a list (`["Li"]`); by default any, in a crystal but those that `replace` names.
            replace: symbols of atoms that are taken away and drawn anew, such as `["Co"]`.

        Returns:
            Completions: the given atoms in their order, then the added ones.

        Raises:
            ValueError: an argument is impossible, or no completion fits the training data.

        Examples:
            >>> from ase.build import bulk
            >>> from adit_plugins import ADiTGenerator
            >>> salt = bulk("NaCl", "rocksalt", 5.6)
            >>> made = ADiTGenerator(num_steps=10).complete(salt, 2, fixed=[1], elements="K")
            >>> made[0].atomic_numbers.tolist()
            [17, 19]
        """
        from adit_plugins.generation.completion import complete
        from adit_plugins.generation.completion_task import make_task

        return complete(self, make_task(structure, num_atoms, fixed, elements, replace), num)
