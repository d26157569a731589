"""Completions: some atoms, and a crystal's cell, are given and stay; the rest is filled in.

On the way from noise every predicted clean structure gets the given atoms, each in the place of the
atom that it is nearest to, and is encoded again; what is added follows. In the end the given atoms
are the original ones exactly.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adit_plugins.datasets.crystals import training_order
from adit_plugins.generation import composition, drawing
from adit_plugins.generation.placing import (
    CrystalPlacer,
    MoleculePlacer,
    Motion,
    Placed,
    Placer,
    rigid_motion,
)
from adit_plugins.generation.recipe import checked_integer, used_precision
from adit_plugins.structures.samples import Convertible, Sample, to_sample

if TYPE_CHECKING:
    from torch import Tensor

    from adit_model.batch import AtomBatch
    from adit_model.compositions import Constraints
    from adit_plugins.generation.generator import ADiTGenerator

HYDROGEN = 1


@dataclass(frozen=True)
class Task:
    """What is given and what may be added.

    Attributes:
        given: the atoms that stay, in their order.
        removed: atomic numbers of those taken away.
        added: atoms of each element that are added, where it is said exactly.
        allowed: atomic numbers that may be added; None is all.
        sizes: numbers of atoms that a completion may have; None is any.
    """

    given: Sample
    removed: tuple[int, ...] = ()
    added: Counter[int] | None = None
    allowed: frozenset[int] | None = None
    sizes: frozenset[int] | None = None

    def constraints(self) -> Constraints:
        """The task as the prior takes it."""
        from adit_model.compositions import Constraints

        counts = self.counts
        if self.added is not None:
            counts = counts + self.added
            return Constraints(allowed=frozenset(counts), least=counts, most=counts)
        most = {z: counts[z] for z in self.unwanted}
        allowed = None
        if self.allowed is not None:
            most = {z: n for z, n in counts.items() if z not in self.allowed}
            allowed = self.allowed | frozenset(counts)
        first = self.given.num_atoms + 1
        sizes = self.sizes or frozenset(range(first, first + 1000))
        return Constraints(allowed=allowed, least=counts, most=most, num_atoms=sizes)

    @property
    def unwanted(self) -> frozenset[int]:
        """Elements that are not added unless they are named: those taken out of a crystal."""
        return frozenset(self.removed if self.given.kind == "crystal" else ())

    @property
    def counts(self) -> Counter[int]:
        """Atoms of each element that are given."""
        return Counter(self.given.atomic_numbers.tolist())


def make_task(
    structure: Convertible,
    num_atoms: int | Sequence[int] | None,
    fixed: Sequence[int] | None,
    elements: str | Sequence[str] | None,
    replace: str | Sequence[str] | None,
) -> Task:
    """See `ADiTGenerator.complete`.

    Raises:
        ValueError: an argument is impossible, or nothing is left or to be added.
    """
    whole = to_sample(structure)
    numbers = whole.atomic_numbers
    keep = np.ones(len(numbers), dtype=bool)
    if fixed is not None:
        keep[:] = False
        keep[_indices(fixed, len(numbers))] = True
    if replace is not None:
        named = composition.atomic_numbers([replace] if isinstance(replace, str) else replace)
        missing = named - set(numbers.tolist())
        if missing:
            raise ValueError(f"replace names {_symbols(missing)}, of which {whole!r} has none")
        keep &= ~np.isin(numbers, list(named))
    if not keep.any():
        raise ValueError("no atom is given; for whole structures use generate")
    given = Sample(whole.kind, numbers[keep], whole.positions[keep], whole.lattice)
    removed = tuple(numbers[~keep].tolist())
    added, allowed = None, None
    if isinstance(elements, str):
        added = Counter(composition.formula_numbers(elements))
        sizes: frozenset[int] | None = frozenset({given.num_atoms + added.total()})
    else:
        if elements is not None:
            allowed = frozenset(composition.atomic_numbers(elements))
            if not allowed:
                raise ValueError("elements must name at least one, or be left out")
        sizes = frozenset({len(numbers)}) if removed else None
    if num_atoms is not None:
        asked = [num_atoms] if isinstance(num_atoms, int) else list(num_atoms)
        asked = [checked_integer("num_atoms", each, 1) for each in asked]
        if not asked or min(asked) <= given.num_atoms or (added and set(asked) != sizes):
            expected = f"{min(sizes)}" if added and sizes else f"above {given.num_atoms}"
            raise ValueError(
                f"num_atoms={num_atoms} counts all atoms of a completion: it must be {expected}, "
                f"as {given.num_atoms} are given"
            )
        sizes = frozenset(asked)
    if added is None and allowed is not None and len(allowed) == 1 and sizes and len(sizes) == 1:
        added = Counter({next(iter(allowed)): min(sizes) - given.num_atoms})
    return Task(given, removed, added, allowed, sizes)


def _indices(fixed: Sequence[int], num_atoms: int) -> list[int]:
    indices = [checked_integer("fixed", each, 0) for each in fixed]
    if len(set(indices)) != len(indices) or any(each >= num_atoms for each in indices):
        raise ValueError(
            f"fixed must be different indices of atoms, 0..{num_atoms - 1}; got {list(fixed)}"
        )
    return indices


def _symbols(numbers: set[int]) -> str:
    from ase.data import chemical_symbols

    return ", ".join(chemical_symbols[z] for z in sorted(numbers))


class Filling:
    """The given atoms in the network's frame, in every predicted structure (an `Edit`)."""

    def __init__(self, given: Sample, principal: bool = True) -> None:
        """Bring a crystal into its Niggli cell, where the network knows it best.

        Args:
            given: the atoms.
            principal: whether the network knows molecules by their principal axes.
        """
        self.given, self.principal = given, principal
        self.placed: dict[int, Placed] = {}
        self.places: list[NDArray[np.int64]] | None = None  # of the given atoms in each row
        self.cell: NDArray[np.float64] | None = None
        self.basis = np.eye(3)  # the Niggli cell's vectors in those of the given cell
        numbers = given.atomic_numbers
        self.placer: Placer
        if given.lattice is None:
            self.placer = MoleculePlacer(numbers, given.positions)
            return
        from ase.cell import Cell
        from pymatgen.core import Lattice

        _, basis = Cell(given.lattice).niggli_reduce()
        self.basis = np.array(basis, dtype=float).T
        reduced = Lattice(self.basis @ given.lattice)
        self.cell = Lattice.from_parameters(*reduced.parameters).matrix
        frac = given.positions @ np.linalg.inv(self.basis @ given.lattice)
        self.placer = CrystalPlacer(numbers, frac, self.cell)

    def __call__(self, rows: list[int], batch: AtomBatch, t: float) -> AtomBatch:
        """Put the given atoms into predicted structures of one size."""
        import torch

        periodic = self.cell is not None
        numbers = batch.atomic_numbers.cpu().numpy().copy()
        coords = (batch.frac_coords if periodic else batch.positions).double().cpu().numpy()
        if not np.isfinite(coords).all():
            raise ValueError(
                "the network's output is not finite; take a smaller guidance_scale, or the weights "
                "are damaged: see adit doctor"
            )
        for place, row in enumerate(rows):
            last = self.placed.get(row)
            atoms = None if self.places is None else self.places[row]
            found = self.placer(numbers[place], coords[place], last.motion if last else None, atoms)
            coords[place, found.atoms] = found.motion.apply(self.placer.start)
            if periodic:
                coords[place] = (coords[place] + 0.02) % 1.0 - 0.02
                order = training_order(numbers[place], coords[place])
                numbers[place], coords[place] = numbers[place][order], coords[place][order]
                found = Placed(found.motion, np.argsort(order)[found.atoms])
            else:
                turn = self._turn(coords[place])
                coords[place] = turn.apply(coords[place])
                found = Placed(found.motion.then(turn), found.atoms)
            self.placed[row] = found
        if self.cell is None:
            frac, lattice, positions = batch.frac_coords, batch.lattice, coords
        else:
            frac, positions = batch.frac_coords.new_tensor(coords), coords @ self.cell
            lattice = batch.lattice.new_tensor(self.cell).expand(len(rows), 3, 3)
        return dataclasses.replace(
            batch,
            atomic_numbers=torch.tensor(numbers, device=batch.device),
            frac_coords=frac,
            positions=batch.positions.new_tensor(positions),
            lattice=lattice,
        )

    def _turn(self, positions: NDArray[np.float64]) -> Motion:
        """Into the frame that molecules have in training."""
        import torch

        from adit_model.batch import principal_frame

        if not self.principal:
            return Motion(np.eye(3), -positions.mean(axis=0))
        return rigid_motion(
            positions, principal_frame(torch.from_numpy(positions)[None])[0].numpy()
        )

    def restored(self, row: int, made: Sample) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Numbers and positions of a completion in the given frame: the given atoms, then others.

        Args:
            row: of the call.
            made: what the network gave for it.
        """
        placed, given = self.placed[row], self.given
        others = np.setdiff1d(np.arange(made.num_atoms), placed.atoms)
        if given.lattice is None:
            added = placed.motion.undo(made.positions[others])
        else:
            assert made.lattice is not None
            frac = np.asarray(np.linalg.solve(made.lattice.T, made.positions[others].T).T, float)
            frac = placed.motion.undo(frac) @ self.basis
            added = (frac % 1.0) @ given.lattice
        numbers = np.concatenate([given.atomic_numbers, made.atomic_numbers[others]])
        return numbers, np.concatenate([given.positions, added])


def complete(generator: ADiTGenerator, task: Task, num: int) -> list[Sample]:
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
        generator.num_steps,
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


def _elements(generator: ADiTGenerator, task: Task, num: int) -> dict[str, Any]:
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
