"""Scores that steer the sampling: a function of your own, or the name of one.

A name is `[-]NAME[=TARGET]`: low values are sought, high ones with the minus, and with a target
those near it. NAME is

- `density` (g/cm3) or `volume` (cubic angstrom an atom) of a crystal,
- `energy_above_hull` (eV/atom), by mace-adit, or a relaxer's name (`chgnet`, `mace:PATH`) for the
  same by its potential,
- an ASE calculator's name (`emt`) for its energy, eV/atom,
- an RDKit descriptor's name (`MolLogP`, `TPSA`, `qed`) of a molecule,
- `module:function` of your own on the Python path.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from numbers import Real
from typing import TYPE_CHECKING, Any

from adit_plugins.generation.recipe import checked_integer

if TYPE_CHECKING:
    from ase import Atoms

    from adit_model.batch import AtomBatch
    from adit_plugins.generation.settings import Recipe

Function = Callable[["Atoms"], float]
Many = Callable[[Sequence["Atoms"]], Sequence[float]]

CHUNK_ATOMS = 512  # that a potential takes at once
GRAMS_PER_CM3 = 1.66053906660  # of 1 u per cubic angstrom


@dataclass(frozen=True)
class Named:
    """A name, taken apart: what is computed and what of it is sought."""

    name: str
    sign: float = 1.0
    target: float | None = None

    @classmethod
    def read(cls, text: str) -> Named:
        """Take a name apart.

        Raises:
            ValueError: the target is no number, or nothing is named.
        """
        name, equals, target = text.removeprefix("-").partition("=")
        try:
            goal = float(target) if equals else None
        except ValueError:
            goal = math.nan
        wrong_goal = goal is not None and not math.isfinite(goal)
        if not name or wrong_goal or (equals and text.startswith("-")):
            raise ValueError(
                f"cannot read steer={text!r}; write NAME for low values, -NAME for high ones, "
                "or NAME=TARGET, such as density=4.5"
            )
        return cls(name, -1.0 if text.startswith("-") else 1.0, goal)

    def score(self, value: float) -> float:
        """Lower is better."""
        return self.sign * value if self.target is None else abs(value - self.target)


def described(generator: Recipe) -> dict[str, Any]:
    """What steers a recipe, for provenance."""
    steer = generator.steer
    if steer is None:
        return {}
    if not isinstance(steer, str):
        name = getattr(steer, "__qualname__", type(steer).__qualname__)
        steer = f"{getattr(steer, '__module__', type(steer).__module__)}:{name}"
    asked = {"steer": steer, "particles": generator.particles}
    return asked | ({"steer_weight": generator.steer_weight} if generator.steer_weight else {})


def check_steering(generator: Recipe) -> None:
    """Refuse a recipe that cannot be steered; nothing heavy is loaded.

    Raises:
        ValueError: a field has an impossible value.
    """
    generator.particles = checked_integer("particles", generator.particles, 2)
    weight = generator.steer_weight
    if weight is not None:
        if generator.steer is None:
            raise ValueError("steer_weight needs steer: a function, or the name of a score")
        if not (isinstance(weight, Real) and math.isfinite(weight) and weight > 0):
            raise ValueError(f"steer_weight is {weight!r}; it must be a finite number above 0")
        generator.steer_weight = float(weight)
    if generator.steer is None:
        return
    if isinstance(generator.steer, str):
        Named.read(generator.steer)
    elif not callable(generator.steer):
        raise ValueError(f"steer must be a function or a name; got {generator.steer!r:.80}")
    if generator.sampler != "ancestral":
        raise ValueError(
            "steering needs sampler='ancestral', whose fresh noise parts the copies of a particle; "
            f"got {generator.sampler!r}"
        )


class Score:
    """A score as the sampler takes it; failures are NaN, counted, and the first one is kept."""

    def __init__(self, steer: Function | str, kind: str) -> None:
        """Find the function behind a name; see `find_score`."""
        self.label = repr(steer) if isinstance(steer, str) else getattr(steer, "__name__", "steer")
        self.many = find_score(steer, kind)
        self.asked = self.failed = 0
        self.reason = ""

    def __call__(self, batch: AtomBatch) -> list[float]:
        """One number a structure, NaN where there is none."""
        from adit_plugins.structures.samples import from_batch

        batch = batch.to("cpu")
        atoms: list[Atoms | None] = []
        for place in range(len(batch)):
            try:
                (sample,) = from_batch(batch[place : place + 1])
                atoms.append(sample.to_ase())
            except ValueError as error:  # not finite
                atoms.append(None)
                self.reason = self.reason or str(error)
        there = [each for each in atoms if each is not None]
        found = iter(self._values(there))
        values = [math.nan if each is None else next(found) for each in atoms]
        self.asked += len(values)
        self.failed += sum(not math.isfinite(value) for value in values)
        return values

    def check(self) -> None:
        """Refuse to go on where nothing was ever found.

        Raises:
            ValueError: the function gave no number for any structure.
        """
        if self.failed and self.failed == self.asked:
            raise ValueError(
                f"steer={self.label} gave no finite number for any of {self.asked} structures; "
                f"the first time: {self.reason}"
            )

    def _values(self, atoms: Sequence[Atoms]) -> list[float]:
        try:
            values = [float(value) for value in self.many(atoms)]
        except Exception as error:  # noqa: BLE001 - a user's function may raise anything
            if len(atoms) == 1:
                self.reason = self.reason or f"{type(error).__name__}: {error}"
                return [math.nan]
            return [self._values([each])[0] for each in atoms]
        if not all(map(math.isfinite, values)):
            self.reason = self.reason or "it is not finite"
        return values


def find_score(steer: Function | str, kind: str) -> Many:
    """Return what computes the scores of structures; see the module for the names.

    Raises:
        ValueError: there is no score of this name for this kind.
    """
    if not isinstance(steer, str):
        return _each(steer)
    named = Named.read(steer)
    many = _find(named.name, kind)
    return lambda atoms: [named.score(float(value)) for value in many(atoms)]


def _each(function: Function) -> Many:
    return lambda atoms: [function(each) for each in atoms]


def _find(name: str, kind: str) -> Many:
    from ase.calculators.calculator import external_calculators, get_calculator_class
    from ase.calculators.calculator import names as calculators

    from adit_plugins import registry

    relaxers = registry.names("adit.relaxers")
    of_crystals = {"density": _density, "volume": _volume}
    first = name.partition(":")[0]
    if name in of_crystals or name == "energy_above_hull" or first in relaxers:
        if kind != "crystal":
            raise ValueError(f"steer={name!r} is a score of crystals; this generator makes {kind}s")
        if name in of_crystals:
            return _each(of_crystals[name])
        return energy_above_hull("mace-adit" if name == "energy_above_hull" else name)
    if ":" in name:
        return _each(_own(name))
    if name in (*calculators, *external_calculators):
        return _energy(get_calculator_class(name)())
    found = _descriptors().get(name)
    if found is None:
        raise ValueError(
            f"No score {name!r}. Known: {', '.join(of_crystals)}, energy_above_hull, the relaxers "
            f"{', '.join(relaxers)}, ASE's calculators (emt, ...), RDKit's descriptors (MolLogP, "
            "TPSA, qed, ...), and module:function of your own."
        )
    if kind != "molecule":
        raise ValueError(f"steer={name!r} describes molecules; this generator makes {kind}s")
    return _each(_descriptor(found))


def _own(name: str) -> Function:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"No score {name!r}: {error}; write module:function") from error
    if not callable(found):
        raise ValueError(f"steer={name!r} is no function; it is {found!r:.80}")
    function: Function = found
    return function


def _density(atoms: Atoms) -> float:
    return float(atoms.get_masses().sum() / atoms.get_volume()) * GRAMS_PER_CM3


def _volume(atoms: Atoms) -> float:
    return float(atoms.get_volume()) / len(atoms)


def _energy(calculator: Any) -> Many:
    def energy(atoms: Atoms) -> float:
        atoms.calc = calculator
        return float(atoms.get_potential_energy()) / len(atoms)

    return _each(energy)


@lru_cache(maxsize=2)
def energy_above_hull(relaxer: str = "mace-adit") -> Many:
    """Energy above the shipped hull (eV/atom) of crystals as they are, by a relaxer's potential.

    Raises:
        UnknownPluginError: no relaxer of that name is installed.
        ValueError: it gives no energies of structures as they are.
    """
    from adit_plugins.hull.energies import place_energy
    from adit_plugins.hull.table import Hull
    from adit_plugins.relax.results import MP2020
    from adit_plugins.relax.run import find_relaxer

    potential: Any = find_relaxer(relaxer)()
    hull = Hull.load()
    many: Many
    if hasattr(potential, "energies"):
        many = potential.energies
    elif hasattr(potential, "calculator"):
        per_atom = _energy(potential.calculator)

        def many(atoms: Sequence[Atoms]) -> list[float]:
            return [e * len(a) for e, a in zip(per_atom(atoms), atoms, strict=True)]
    else:
        raise ValueError(f"the relaxer {relaxer!r} gives no energies of structures as they are")
    convention = getattr(potential, "convention", MP2020)
    low, high = getattr(potential, "energy_bounds", (-math.inf, math.inf))

    def heights(atoms: Sequence[Atoms]) -> list[float]:
        energies = [e for chunk in _chunks(atoms) for e in many(chunk)]
        return [
            place_energy(each, energy, convention, potential.name, hull)[1].energy_above_hull
            if low <= energy / len(each) <= high
            else math.nan  # a hole or a wall of the potential
            for each, energy in zip(atoms, energies, strict=True)
        ]

    return heights


def _chunks(atoms: Sequence[Atoms]) -> list[list[Atoms]]:
    chunks: list[list[Atoms]] = [[]]
    for each in atoms:
        if chunks[-1] and sum(map(len, chunks[-1])) + len(each) > CHUNK_ATOMS:
            chunks.append([])
        chunks[-1].append(each)
    return chunks


def _descriptors() -> dict[str, Callable[[Any], float]]:
    from rdkit.Chem import Descriptors

    return dict(Descriptors.descList)


def _descriptor(function: Callable[[Any], float]) -> Function:
    def value(atoms: Atoms) -> float:
        from adit_plugins.structures.bonds import perceive_bonds

        return float(function(perceive_bonds(atoms.numbers, atoms.positions)))

    return value
